"""Build the simulated peers of a plan, each with its policy."""

from collections.abc import Callable

from orionbed.plan import Plan
from orionbed.schedule.actions import Kind
from orionbed.schedule.policy import Policy
from orionbed.schedule.queue_driven import QueueDrivenPolicy
from orionbed.schedule.routers import make_router
from orionbed.schedule.static import SCHEDULES, StaticPolicy
from orionbed.streams import Block, Streams
from sim.peer import SimPeer


def make_peers(plan: Plan, streams: Streams, source: Callable[[], int]) -> list[SimPeer]:
    """Return the peers in the plan's order; `source` makes a new micro-batch."""
    make_policy = _queue_driven if plan.scenario.pipeline.schedule.kind == "queue" else _static
    policies = make_policy(plan, streams, source)
    peers = []
    for peer_plan, policy in zip(plan.peers, policies, strict=True):
        costs = plan.stages[peer_plan.stage].costs
        durations: dict[Kind, float] = {kind: cost.duration_s / peer_plan.speed for kind, cost in costs.items()}
        peers.append(SimPeer(peer_plan, policy, durations))
    if plan.scenario.pipeline.schedule.kind != "queue":
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


def _static(plan: Plan, streams: Streams, source: Callable[[], int]) -> list[Policy]:  # noqa: ARG001
    schedule = plan.scenario.pipeline.schedule
    assert schedule.kind != "queue"
    lists = SCHEDULES[schedule.kind](plan.num_stages, schedule.microbatches)
    last, replicas = plan.num_stages - 1, plan.num_replicas
    return [
        StaticPolicy(
            lists[peer.stage],
            forward_peer=None if peer.stage == last else peer.index + replicas,
            backward_peer=None if peer.stage == 0 else peer.index - replicas,
        )
        for peer in plan.peers
    ]
