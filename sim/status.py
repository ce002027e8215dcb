"""What peers know of one another: each broadcasts its load every few seconds, so what is known is stale."""

from collections.abc import Callable
from typing import Any, Final

from orionbed.plan import Plan
from orionbed.schedule.queue_driven import QueueDrivenPolicy
from orionbed.schedule.routers import StageView
from orionbed.streams import Streams
from sim.clock import Clock
from sim.peer import SimPeer

SILENT_AFTER: Final = 1.2
"""A peer that has not been heard of for so many broadcast intervals is taken for gone, as in the emulator."""


class Board:
    """What is known of the peers of each stage by those who send to them, and how often that was wrong."""

    measures = False
    """Whether `chose` wants to hear of every forward."""

    def __init__(self, plan: Plan, clock: Clock, streams: Streams) -> None:
        self.views = [
            StageView(
                [peer.index for peer in plan.peers if peer.stage == stage],
                [plan.known_speed(peer) for peer in plan.peers if peer.stage == stage],
                free_cache=1,
            )
            for stage in range(plan.num_stages)
        ]
        self.num_to_absent = 0
        self.num_to_nobody = 0
        # Whether others hear nothing of a peer, or nothing that is younger than so many seconds.
        self.is_silent: Callable[[SimPeer, float], bool] | None = None
        self._clock = clock
        self._random = streams.get("broadcast")

    def start(self, peers: list[SimPeer], every_s: float, *, may_move: bool) -> None:
        """Start what keeps the views up to date."""
        raise NotImplementedError

    def announce(self, peer: SimPeer) -> None:
        """Take in that `peer` has begun to train."""
        raise NotImplementedError

    def chose(self, target: SimPeer) -> None:
        """A forward is sent to `target`, which answers."""

    def missed(self, target: int | None) -> None:
        """A forward found nobody: no peer was known, or the one that was chosen is not there."""
        if target is None:
            self.num_to_nobody += 1
        else:
            self.num_to_absent += 1

    def forget(self, peer: SimPeer) -> None:
        """Take a peer out at once, since it has been sent away."""
        self.views[peer.stage].drop(peer.position)

    def was_evicted(self, peer: SimPeer) -> bool:  # noqa: ARG002  (a broadcast evicts nobody)
        """Whether the peer's silence has cost it its place since this was last asked."""
        return False

    def summary(self) -> dict[str, Any]:
        """Return the summary's part about what was known."""
        return {"forwards_to_absent": self.num_to_absent, "forwards_without_a_peer": self.num_to_nobody}


class StatusBoard(Board):
    """The last broadcast of every peer, by stage. Static schedules route by their lists and never look."""

    def start(self, peers: list[SimPeer], every_s: float, *, may_move: bool) -> None:
        """Start periodic broadcasts, each peer at its own phase. Nobody routes to first-stage peers that stay there."""
        phases = self._random.uniform(0.0, every_s, len(peers))
        for peer, phase in zip(peers, phases, strict=True):
            if peer.stage > 0 or may_move:
                self._clock.call_in(float(phase), self._broadcast, (peer, every_s))

    def _broadcast(self, what: tuple[SimPeer, float]) -> None:
        peer, every_s = what
        silent = self.is_silent is not None and self.is_silent(peer, SILENT_AFTER * every_s)
        if peer.status == "training" and not silent:
            self.announce(peer)
        else:
            self.views[peer.stage].drop(peer.position)
        self._clock.call_in(every_s, self._broadcast, what)

    def announce(self, peer: SimPeer) -> None:
        """Tell everybody the load of `peer` as it is now."""
        if peer.is_leaving:
            self.views[peer.stage].drop(peer.position)
        elif isinstance(peer.policy, QueueDrivenPolicy):
            self.views[peer.stage].update(peer.position, peer.policy.num_free, peer.policy.num_queued)
