"""Whether a profile says how long whole stages take: predicted by the cost model, measured, and how far apart."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from orionbed.boundary_costs import ends_of
from orionbed.compute import CostModel, Work
from orionbed.scenario import GpuProfile, Scenario
from orionbed.training.shape import ModelShape, parameters_of
from real.calibration.measure import Times, spread_of
from real.calibration.whole import one_microbatch

TOLERANCE: Final = 0.05
HELD: Final = ("forward", "backward", "whole")
"""What must lie within the tolerance; the rest is shown beside it."""

_TITLES: Final = {
    "forward": "forward",
    "backward": "backward",
    "input_gradient": "  input half",
    "weight_gradient": "  weight half",
    "backward_with_recompute": "backward, recompute",
    "step": "optimizer step",
    "whole": "whole",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One time of a stage: predicted and measured seconds, with the spread of the latter."""

    chunk: int
    what: str
    predicted_s: float
    measured_s: float
    p5_s: float
    p95_s: float

    @property
    def error(self) -> float:
        """How much longer than measured the prediction is."""
        return self.predicted_s / self.measured_s - 1.0

    @property
    def passed(self) -> bool:
        """Whether it is as near as it must be."""
        return self.what not in HELD or abs(self.error) <= TOLERANCE


def predicted(profile: GpuProfile, scenario: Scenario, shape: ModelShape, chunk: int) -> dict[str, float]:
    """Return what the cost model says of a stage of `shape`, in seconds by section."""
    costs, model, tokens = CostModel(profile), scenario.model, shape.tokens
    is_first, is_last = chunk == 0, shape.is_last(chunk)
    work: Work = costs.layer(model, tokens, shape.sequence).times(shape.layers_per_chunk[chunk])
    if is_first:
        work += costs.embedding(model, tokens)
    if is_last:
        work += costs.head(model, tokens)
    work += ends_of(costs, model, tokens, shape.boundary, is_first=is_first, is_last=is_last).work()
    step_s = costs.optimizer_step_s(
        parameters_of(shape, chunk), model.dtype, model.optimizer.state_bytes_per_parameter, model=model
    )
    return {
        "forward": work.forward_s,
        "backward": work.backward_s,
        "input_gradient": work.input_gradient_s,
        "weight_gradient": work.weight_gradient_s,
        "backward_with_recompute": work.backward_s + work.forward_s,
        "step": step_s,
    }


def compare(profile: GpuProfile, scenario: Scenario, shape: ModelShape, measured: Mapping[int, Times]) -> list[Row]:
    """Return predicted beside measured times of whole stages, by chunk of the model."""
    rows = []
    for chunk, times in measured.items():
        says = predicted(profile, scenario, shape, chunk)
        says["whole"] = sum(says[section] for section in ("forward", "backward", "step") if section in times)
        seen: Times = {**times, "whole": one_microbatch(times)}
        for what in _TITLES:
            if what in seen:
                spread = spread_of(seen[what])
                rows.append(Row(chunk, what, says[what], spread.median, spread.p5, spread.p95))
    return rows


def lines_of(rows: Sequence[Row], shape: ModelShape) -> list[str]:
    """Return a table for a terminal."""
    found = [f"{'':34} {'predicted':>11} {'measured':>11} {'p5 to p95':>23} {'error':>8}"]
    for row in rows:
        first = next(other for other in rows if other.chunk == row.chunk) is row
        stage = f"stage {row.chunk} ({describe(shape, row.chunk)})"
        if first:
            found.append(stage)
        spread = f"{milliseconds(row.p5_s)} to {milliseconds(row.p95_s)}"
        verdict = "" if row.what not in HELD else "  ok" if row.passed else f"  over {TOLERANCE:.0%}"
        found.append(
            f"  {_TITLES[row.what]:32} {milliseconds(row.predicted_s):>11} {milliseconds(row.measured_s):>11} "
            f"{spread:>23} {row.error:>+8.1%}{verdict}"
        )
    return found


def describe(shape: ModelShape, chunk: int) -> str:
    """Return what a stage holds, in words."""
    layers = shape.layers_per_chunk[chunk]
    parts = [f"{layers} layer{'' if layers == 1 else 's'}"]
    narrow = shape.matrix_width is not None
    if chunk == 0:
        parts.insert(0, "embedding")
    elif narrow:
        parts.insert(0, "decoder")
    if shape.is_last(chunk):
        parts.append("head")
    elif narrow:
        parts.append("encoder")
    return ", ".join(parts)


def milliseconds(seconds: float) -> str:
    """Return a time in milliseconds."""
    return f"{seconds * 1e3:.4g} ms"


def plain(rows: Sequence[Row]) -> list[dict[str, object]]:
    """Return the rows for JSON."""
    return [
        {
            "stage": row.chunk,
            "what": row.what,
            "predicted_s": row.predicted_s,
            "measured_s": row.measured_s,
            "p5_s": row.p5_s,
            "p95_s": row.p95_s,
            "error": row.error,
            "held": row.what in HELD,
            "passed": row.passed,
        }
        for row in rows
    ]
