"""What an emulation of a plan is: the scaled-down model that stands in for the scenario's, and how long it runs."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from orionbed.plan import Plan
from orionbed.scenario import Scenario
from orionbed.scenario.schedules import Boundary, NarrowBoundary, ResBMBoundary, TopKBoundary
from orionbed.shortening import shortened

if TYPE_CHECKING:
    from orionbed.training.shape import ModelShape

HEAD_WIDTH = 64
FFN_RATIO = 3
NOISE_WIDTH = 256
"""Below this width Python costs more than the arithmetic, so that measured times mean little."""


def as_emulated(scenario: Scenario) -> Scenario:
    """Return the scenario that the emulator runs, and that the simulator must run to be compared with it.

    Peers start without delay, their first weights at hand (the simulator has an option for that), and the `emulator`
    block may shorten phases and the run.
    """
    block = scenario.emulator
    return shortened(scenario, block.training, {}, is_shorter=is_shortened(scenario))


def is_shortened(scenario: Scenario) -> bool:
    """Whether the `emulator` block has the run end earlier, or merge more often, than the scenario says."""
    return scenario.emulator.training is not None or scenario.emulator.merges is not None


def model_shape(plan: Plan) -> "ModelShape":
    """Return the shape of the scaled-down model; its boundary is as much narrower as the scenario's."""
    from orionbed.training.shape import ModelShape
    from orionbed.training.text import vocab_of

    block, model, boundary = plan.scenario.emulator, plan.scenario.model, plan.scenario.pipeline.boundary
    layers = plan.num_chunks if block.layers is None else max(block.layers, plan.num_chunks)
    each, more = divmod(layers, plan.num_chunks)
    heads = max(1, block.width // HEAD_WIDTH)
    while block.width % (2 * heads):  # an even number of values for each
        heads -= 1
    group = max(1, min(heads, model.heads // model.kv_heads))
    while heads % group:
        group -= 1
    return ModelShape(
        layers_per_chunk=tuple(each + (chunk < more) for chunk in range(plan.num_chunks)),
        hidden=block.width,
        ffn=FFN_RATIO * block.width,
        heads=heads,
        kv_heads=heads // group,
        vocab=vocab_of(plan.scenario.training.data, block.vocab),
        sequence=block.tokens,
        sequences=block.sequences,
        boundary=scaled(boundary, block.width / model.hidden),
        dtype=block.dtype,
        recompute=plan.scenario.pipeline.schedule.recompute == "full",
    )


def scaled(boundary: Boundary, by: float) -> Boundary:
    """Return a boundary of a model as many times as wide: it leaves the same share of values, of as many bits."""
    changes: dict[str, int] = {}
    if isinstance(boundary, NarrowBoundary):
        changes["width"] = max(1, round(boundary.width * by))
    if isinstance(boundary, ResBMBoundary) and boundary.encoder_width is not None:
        changes["encoder_width"] = max(1, round(boundary.encoder_width * by))
    if isinstance(boundary, TopKBoundary):
        changes["keep"] = max(1, round(boundary.keep * by))
    return boundary.model_copy(update=changes)


def boundary_problem(plan: Plan) -> str | None:
    """Return why the stand-in cannot have the scenario's boundary, with what to do, or None if it can."""
    from orionbed.training.shape import problem_of

    boundary, width = plan.scenario.pipeline.boundary, plan.scenario.emulator.width
    found = problem_of(scaled(boundary, width / plan.scenario.model.hidden), width)
    return None if found is None else f"pipeline.boundary: {found}; use other values, or sim"


@dataclass(frozen=True, slots=True)
class Scales:
    """How an emulation is stretched and shrunk: real seconds per second of the run, and bytes per byte sent."""

    time_dilation: float
    payload_scale: float

    def payload(self, num_bytes: float) -> int:
        """Return the bytes that really travel for `num_bytes` of the plan."""
        return max(1, round(num_bytes / self.payload_scale))
