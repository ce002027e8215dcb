"""What peers know of one another: each broadcasts its load every few seconds, so what is known is stale."""

from orionbed.plan import Plan
from orionbed.schedule.queue_driven import QueueDrivenPolicy
from orionbed.schedule.routers import StageView
from orionbed.streams import Streams
from sim.clock import Clock
from sim.peer import SimPeer


class StatusBoard:
    """The last broadcast of every peer, by stage. Static schedules route by their lists and never look."""

    def __init__(self, plan: Plan, clock: Clock, streams: Streams) -> None:
        self.views = [
            StageView(
                [peer.index for peer in plan.peers if peer.stage == stage],
                [peer.speed for peer in plan.peers if peer.stage == stage],
                free_cache=1,
            )
            for stage in range(plan.num_stages)
        ]
        self._clock = clock
        self._random = streams.get("broadcast")

    def start(self, peers: list[SimPeer], every_s: float, *, may_move: bool) -> None:
        """Start periodic broadcasts, each peer at its own phase. Nobody routes to first-stage peers that stay there."""
        phases = self._random.uniform(0.0, every_s, len(peers))
        for peer, phase in zip(peers, phases, strict=True):
            if peer.stage > 0 or may_move:
                self._clock.call_in(float(phase), self._broadcast, (peer, every_s))

    def _broadcast(self, what: tuple[SimPeer, float]) -> None:
        peer, every_s = what
        if peer.status == "training":
            self.announce(peer)
        else:
            self.views[peer.stage].drop(peer.position)
        self._clock.call_in(every_s, self._broadcast, what)

    def announce(self, peer: SimPeer) -> None:
        """Tell everybody the load of `peer` as it is now."""
        if isinstance(peer.policy, QueueDrivenPolicy):
            self.views[peer.stage].update(peer.position, peer.policy.num_free, peer.policy.num_queued)
