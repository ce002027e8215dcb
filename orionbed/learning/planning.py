"""What is simulated and what is trained: the plan as it runs, the shape of the model, and its text."""

from dataclasses import dataclass

from orionbed import emulation
from orionbed.backends import BackendError, require_torch
from orionbed.plan import Plan, make_plan
from orionbed.scenario import Scenario
from orionbed.shortening import shortened
from orionbed.training.shape import NUMBER_FORMATS, ModelShape, own_shape


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan whose run ends when enough is learned, and the model that learns."""

    plan: Plan
    shape: ModelShape


def as_trained(scenario: Scenario) -> Scenario:
    """Return the scenario that is simulated: peers start at once, and it ends after `training.microbatches`."""
    changes: dict[str, object] = {"run.trace": "summary"}
    count = scenario.training.microbatches
    if count is not None:
        changes |= {"run.tokens": float(count * scenario.batch.tokens), "run.duration": None}
    return shortened(scenario, None, changes, is_shorter=count is not None)


def plan_training(scenario: Scenario, seed: int) -> Planned:
    """Return what is simulated and what is trained.

    Raises:
        BackendError: torch is missing, or the scenario's own model cannot be trained.

    """
    require_torch("training needs")
    plan = make_plan(as_trained(scenario), seed)
    problem = emulation.boundary_problem(plan)
    if problem is not None:
        raise BackendError(problem)
    if scenario.training.model == "stand-in":
        return Planned(plan, emulation.model_shape(plan))
    return Planned(plan, trainable_shape(plan))


def trainable_shape(plan: Plan) -> ModelShape:
    """Return the shape of the scenario's own model, if it is one that is trained.

    Raises:
        BackendError: it has what is not trained.

    """
    model = plan.scenario.model
    if model.block != "llama" or model.tied_embeddings:
        raise BackendError("training.model own: only llama blocks without tied embeddings are trained; use stand-in")
    if model.dtype not in NUMBER_FORMATS:
        raise BackendError(f"training.model own: {model.dtype} is not trained in; use model.dtype bf16, or stand-in")
    try:
        return own_shape(plan, NUMBER_FORMATS[model.dtype])
    except ValueError as error:
        raise BackendError(f"training.model own: {error}; change the model, or use stand-in") from None
