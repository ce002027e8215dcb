"""Build the simulated peers of a plan, each with its policy."""

from collections.abc import Callable

from orionbed.plan import Plan
from orionbed.policies import durations_of, fixed_policy, queue_policy
from orionbed.schedule.policy import Policy
from orionbed.streams import Block, Streams
from sim.peer import SimPeer


def make_peers(plan: Plan, streams: Streams, source: Callable[[], int]) -> list[SimPeer]:
    """Return the peers in the plan's order; `source` makes a new micro-batch."""
    policies: list[Policy]
    if plan.order is None:
        uniform = Block(streams.get("router").random).take
        policies = [queue_policy(plan, uniform, source, peer.stage, peer.replica) for peer in plan.peers]
    else:
        policies = [fixed_policy(plan, peer.stage, peer.replica) for peer in plan.peers]
    peers = [
        SimPeer(peer, policy, durations_of(plan, peer.stage, peer.speed, peer.hardware))
        for peer, policy in zip(plan.peers, policies, strict=True)
    ]
    if plan.order is not None:
        numberings: list[dict[int, int]] = [{} for _ in range(plan.num_replicas)]
        for peer in peers:
            peer.numbering = numberings[peer.replica]
    return peers
