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
    stage_of = range(plan.num_stages) if plan.order is None else plan.order.stage_of
    peers = []
    for peer_plan, policy in zip(plan.peers, policies, strict=True):
        mine = [chunk for chunk, stage in enumerate(stage_of) if stage == peer_plan.stage]
        step = plan.stages[peer_plan.stage].costs["STEP"]
        durations: dict[int, dict[Kind, float]] = {
            chunk: {
                kind: cost.duration_s / peer_plan.speed for kind, cost in (plan.chunk_costs[chunk] | {"STEP": step}).items()
            }
            for chunk in mine
        }
        peers.append(SimPeer(peer_plan, policy, durations))
    if not is_queue:
        numberings: list[dict[int, int]] = [{} for _ in range(plan.num_replicas)]
        for peer in peers:
            peer.numbering = numberings[peer.replica]
    return peers


def _queue_driven(plan: Plan, streams: Streams, source: Callable[[], int]) -> list[Policy]:
    schedule = plan.scenario.pipeline.schedule
    assert schedule.kind == "queue"
    uniform = Block(streams.get("router").random).take
    return [
        QueueDrivenPolicy(
            peer.stage,
            plan.num_stages,
            peer.replica,
            window=None if isinstance(schedule.window, str) else schedule.window,
            local_step_every=schedule.local_step_every,
            router=make_router(schedule.router, uniform),
            source=source if peer.stage == 0 else None,
        )
        for peer in plan.peers
    ]


def _fixed(plan: Plan, streams: Streams, source: Callable[[], int]) -> list[Policy]:  # noqa: ARG001
    schedule = plan.scenario.pipeline.schedule
    assert schedule.kind != "queue"
    assert plan.order is not None
    pipelines = [
        [stage * plan.num_replicas + replica for stage in range(plan.num_stages)] for replica in range(plan.num_replicas)
    ]
    waits = not isinstance(plan.scenario.sync, str)
    return [
        make_fixed_policy(schedule, plan.order, peer.stage, pipelines[peer.replica], waits_for_sync=waits)
        for peer in plan.peers
    ]
