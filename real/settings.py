"""From a scenario to what really runs: the model at its true size, and what this backend cannot do."""

from typing import Final, Literal

from orionbed.backends import BackendError, require_torch
from orionbed.orchestration import simulated_alone
from orionbed.plan import Plan
from orionbed.scenario import Scenario
from orionbed.shortening import shortened
from orionbed.training.shape import NUMBER_FORMATS, ModelShape, own_shape, problem_of

DeviceKind = Literal["cpu", "cuda"]

NOT_FOR_REAL: Final = {"link", "partition", "corrupt", "flap"}
"""Kinds of faults that need a network of our own making."""


def as_real(plan: Plan) -> Scenario:
    """Return the scenario that runs: peers start without delay, and the `real` block may shorten the run."""
    scenario, block = plan.scenario, plan.scenario.real
    changes: dict[str, object] = {}
    if block.steps is not None and plan.order is not None:
        per_step = plan.order.num_microbatches * plan.num_replicas * plan.tokens_per_microbatch
        changes |= {"run.tokens": float(block.steps * per_step), "run.duration": None}
    return shortened(scenario, block.training, changes, is_shorter=is_shortened(scenario))


def is_shortened(scenario: Scenario) -> bool:
    """Whether the `real` block has the run end earlier, or merge more often, than the scenario says."""
    block = scenario.real
    return any(value is not None for value in (block.steps, block.training, block.merges))


def real_shape(plan: Plan, device: DeviceKind) -> ModelShape:
    """Return the shape of the scenario's own model."""
    scenario = plan.scenario
    native = NUMBER_FORMATS.get(scenario.model.dtype, "bfloat16") if device == "cuda" else "float32"
    return own_shape(plan, scenario.real.dtype or native)


def refuse(scenario: Scenario) -> None:
    """Raise BackendError for what cannot be run on hardware, all of it at once."""
    require_torch("the real backend needs")
    problems = [*_about_the_model(scenario), *_about_the_run(scenario), *simulated_alone(scenario)]
    if scenario.pipeline.schedule.kind == "queue":
        problems += _about_queues(scenario)
    if problems:
        raise BackendError("\n".join(problems))


def _about_the_model(scenario: Scenario) -> list[str]:
    model, boundary = scenario.model, scenario.pipeline.boundary
    found = []
    if model.block != "llama":
        found.append(f"model.block {model.block}: the real backend trains llama blocks; use that, or sim")
    if model.tied_embeddings:
        found.append("model.tied_embeddings: first and last stage share no weights on hardware; set false, or use sim")
    if model.dtype == "fp16" and scenario.real.dtype is None:
        found.append("model.dtype fp16 needs loss scaling, which is not there; use bf16 or set real.dtype")
    if model.hidden % (2 * model.heads):
        found.append(f"model.heads {model.heads}: a head must have an even width, since rotation takes pairs")
    problem = problem_of(boundary, model.hidden)
    if problem is not None:
        found.append(f"pipeline.boundary: {problem}; use other values, or sim")
    elif boundary.kind in {"quantize", "topk"} and scenario.pipeline.schedule.kind != "queue":
        found.append(
            f"pipeline.boundary.kind {boundary.kind}: torch's pipelining sends values and no packed bytes; use the "
            "queue-driven schedule, another kind, or the emulator"
        )
    if scenario.peers.groups:
        found.append("peers.groups: all peers run on one kind of device here; use peers.gpu and peers.sites, or sim")
    if scenario.peers.gpus != 1:
        found.append(f"peers.gpus {scenario.peers.gpus}: a peer is one GPU here; use 1, or sim")
    return found


def _about_the_run(scenario: Scenario) -> list[str]:
    queue, block, sync = scenario.pipeline.schedule.kind == "queue", scenario.real, scenario.sync
    found = []
    if queue and block.transport not in {"auto", "tcp"}:
        found.append(f"real.transport {block.transport} needs a fixed batch per step; queues run over tcp")
    if not isinstance(sync, str) and (sync.algorithm != "ring" or sync.every != 1 or sync.overlap or sync.bits != 32.0):
        found.append("sync: hardware does {algorithm: ring, every: 1, bits: 32} without overlap; use that, or sim")
    if scenario.peers.rebalance_every is not None or scenario.peers.rejoin != "own":
        found.append("peers.rebalance_every and peers.rejoin: peers stay with their stage here; use sim")
    if scenario.recovery.in_flight != "drop":
        found.append(f"recovery.in_flight {scenario.recovery.in_flight}: peers drop here; use drop, or sim")
    if not isinstance(scenario.merge, str) and scenario.merge.only_simulated:
        keys = ", ".join(f"merge.{name}" for name in scenario.merge.only_simulated)
        found.append(f"{keys}: hardware merges by IOTA's butterfly through the store; use that, or sim")
    if not queue and scenario.merge != "none":
        found.append("merge needs the queue-driven schedule here; use that, or sync, or the emulator")
    if not queue and (scenario.churn != "none" or scenario.faults.list):
        found.append("churn and faults with a fixed batch are for the emulator; here a lost process ends the run")
    return found


def _about_queues(scenario: Scenario) -> list[str]:
    block, found = scenario.real, []
    if block.checkpoint is not None:
        found.append("real.checkpoint is for a fixed batch; with queues a peer takes the state of another")
    if not isinstance(scenario.churn, str) and scenario.churn.gives_notice:
        found.append("churn with notice: real peers are killed without having been told; set it 0 s, or use sim")
    if block.compile:
        found.append("real.compile is for a fixed batch; set false")
    kinds = sorted({fault.kind for fault in scenario.faults.list} & NOT_FOR_REAL)
    if kinds:
        found.append(f"faults of kind {', '.join(kinds)}: nothing throttles or damages real links; use the emulator")
    if any(_comes_back_from_disk(fault) for fault in scenario.faults.list):
        found.append(
            "faults with restart state disk: real peers keep no state on disk; use state lost, or the emulator"
        )
    return found


def _comes_back_from_disk(fault: object) -> bool:
    restart = getattr(fault, "restart", "none")
    return not isinstance(restart, str) and restart.state == "disk"
