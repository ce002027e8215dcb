"""From a plan to what each peer runs: its policy, and how long its operations take."""

from collections.abc import Callable

from orionbed.plan import Plan
from orionbed.schedule.actions import Kind
from orionbed.schedule.build import make_fixed_policy
from orionbed.schedule.opportunistic import OpportunisticPolicy
from orionbed.schedule.queue_driven import QueueDrivenPolicy
from orionbed.schedule.routers import make_router
from orionbed.schedule.static import StaticPolicy


def durations_of(plan: Plan, stage: int, speed: float, hardware: int = 0) -> dict[int, dict[Kind, float]]:
    """Return the seconds of each kind of operation of a peer of `stage`, by chunk.

    `speed` and `hardware` are those of the peer: how fast it is of its kind, and which kind of machine it is.
    """
    costs = plan.chunk_costs_on(hardware)
    step = plan.stage_costs_on(hardware, stage)["STEP"]
    durations: dict[int, dict[Kind, float]] = {
        chunk: {kind: cost.duration_s / speed for kind, cost in (costs[chunk] | {"STEP": step}).items()}
        for chunk in plan.chunks_of(stage)
    }
    redundant_s = redundant_forward_s(plan, stage, hardware)
    if redundant_s:
        durations[stage]["F"] += redundant_s / speed
    return durations


def redundant_forward_s(plan: Plan, stage: int, hardware: int = 0) -> float:
    """Return the seconds of the next stage's forward that a peer of speed 1 does besides its own (Bamboo), else 0.

    The last stage has no forward of its own: it is one operation with loss and backward.
    """
    recovery = plan.scenario.recovery
    if recovery.in_flight != "neighbour" or stage >= plan.num_stages - 2:
        return 0.0
    return recovery.redundant * plan.chunk_costs_on(hardware)[stage + 1]["F"].duration_s


def queue_policy(
    plan: Plan, uniform: Callable[[], float], source: Callable[[], int], stage: int, replica: int
) -> QueueDrivenPolicy:
    """Return the policy of a peer of `stage`; `uniform` draws for the router, `source` makes a new micro-batch."""
    schedule = plan.scenario.pipeline.schedule
    assert schedule.kind == "queue"
    return QueueDrivenPolicy(
        stage,
        plan.num_stages,
        replica,
        window=None if isinstance(schedule.window, str) else schedule.window,
        local_step_every=schedule.local_step_every,
        router=make_router(schedule.router, uniform),
        source=source if stage == 0 else None,
    )


def fixed_policy(plan: Plan, stage: int, replica: int) -> StaticPolicy | OpportunisticPolicy:
    """Return the policy of a peer of a schedule with a fixed batch per step."""
    schedule = plan.scenario.pipeline.schedule
    assert schedule.kind != "queue"
    assert plan.order is not None
    pipeline = [each * plan.num_replicas + replica for each in range(plan.num_stages)]
    waits = not isinstance(plan.scenario.sync, str)
    return make_fixed_policy(schedule, plan.order, stage, pipeline, waits_for_sync=waits)
