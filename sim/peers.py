"""Build the simulated peers of a plan, each with its policy."""

from collections.abc import Callable

from orionbed.plan import Plan
from orionbed.schedule.actions import Kind
from orionbed.schedule.build import make_fixed_policy
from orionbed.schedule.policy import Policy
from orionbed.schedule.queue_driven import QueueDrivenPolicy
from orionbed.schedule.routers import make_router
from orionbed.streams import Block, Streams
from sim.peer import SimPeer


def make_peers(plan: Plan, streams: Streams, source: Callable[[], int]) -> list[SimPeer]:
    """Return the peers in the plan's order; `source` makes a new micro-batch."""
    is_queue = plan.order is None
    policies = (_queue_driven if is_queue else _fixed)(plan, streams, source)
    peers = [
        SimPeer(peer, policy, durations_of(plan, peer.stage, peer.speed))
        for peer, policy in zip(plan.peers, policies, strict=True)
    ]
    if not is_queue:
        numberings: list[dict[int, int]] = [{} for _ in range(plan.num_replicas)]
        for peer in peers:
            peer.numbering = numberings[peer.replica]
    return peers


def durations_of(plan: Plan, stage: int, speed: float) -> dict[int, dict[Kind, float]]:
    """Return the seconds of each kind of operation of a peer of `stage`, by chunk."""
    stage_of = range(plan.num_stages) if plan.order is None else plan.order.stage_of
    step = plan.stages[stage].costs["STEP"]
    return {
        chunk: {kind: cost.duration_s / speed for kind, cost in (plan.chunk_costs[chunk] | {"STEP": step}).items()}
        for chunk, holder in enumerate(stage_of)
        if holder == stage
    }


def _queue_driven(plan: Plan, streams: Streams, source: Callable[[], int]) -> list[Policy]:
    schedule = plan.scenario.pipeline.schedule
    assert schedule.kind == "queue"
    uniform = Block(streams.get("router").random).take
    return [queue_policy(plan, uniform, source, peer.stage, peer.replica) for peer in plan.peers]


def queue_policy(
    plan: Plan, uniform: Callable[[], float], source: Callable[[], int], stage: int, replica: int
) -> QueueDrivenPolicy:
    """Return the policy of a peer of `stage`; `uniform` draws for the router."""
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


def _fixed(plan: Plan, streams: Streams, source: Callable[[], int]) -> list[Policy]:  # noqa: ARG001
    schedule = plan.scenario.pipeline.schedule
    assert schedule.kind != "queue"
    assert plan.order is not None
    pipelines = [
        [stage * plan.num_replicas + replica for stage in range(plan.num_stages)]
        for replica in range(plan.num_replicas)
    ]
    waits = not isinstance(plan.scenario.sync, str)
    return [
        make_fixed_policy(schedule, plan.order, peer.stage, pipelines[peer.replica], waits_for_sync=waits)
        for peer in plan.peers
    ]
