"""From a plan to what each peer runs: its policy, and how long its operations take."""

from collections.abc import Callable

from orionbed.plan import Plan
from orionbed.schedule.actions import Kind
from orionbed.schedule.build import make_fixed_policy
from orionbed.schedule.opportunistic import OpportunisticPolicy
from orionbed.schedule.queue_driven import QueueDrivenPolicy
from orionbed.schedule.routers import make_router
from orionbed.schedule.static import StaticPolicy


def durations_of(plan: Plan, stage: int, speed: float) -> dict[int, dict[Kind, float]]:
    """Return the seconds of each kind of operation of a peer of `stage`, by chunk."""
    step = plan.stages[stage].costs["STEP"]
    return {
        chunk: {kind: cost.duration_s / speed for kind, cost in (plan.chunk_costs[chunk] | {"STEP": step}).items()}
        for chunk in plan.chunks_of(stage)
    }


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
