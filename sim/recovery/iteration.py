"""Oobleck's and Varuna's rule: a loss costs the iteration, and everybody reconfigures before it goes on.

A queue-driven pipeline has no iteration; what it loses is everything in flight, and the gradients that each peer has
gathered since its last optimizer step. With a fixed batch every replica loses its step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from sim.recovery.dropping import Recovery

if TYPE_CHECKING:
    from sim.engine import Engine
    from sim.peer import SimPeer


class Iteration(Recovery):
    """The policy `iteration`. Peers are `reconfiguring` meanwhile; a loss during the pause does not prolong it."""

    may_be_void: ClassVar[bool] = True
    reason: ClassVar[str] = "iteration lost"

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._pause = 0
        self._paused = False

    def crash(self, peer: SimPeer) -> None:
        """Stop everybody, drop everything, and begin the pause."""
        self.counts["losses"] += 1
        self.counts["pauses"] += 1
        engine = self.engine
        num_open = engine.ledger.in_flight
        if engine.is_queue_driven:
            training = [other for other in engine.peers if other.status == "training"]
            if engine.scribe is not None:
                engine.scribe.reset(training)
            self.flush(training, self.reason)
            peer.policy.restart()
            peer.status = "down"
        else:
            engine.ending.stop(peer, self.reason)
            peer.status = "down"
            for replica in range(engine.plan.num_replicas):
                self.halt_replica(next(p for p in engine.peers if p.replica == replica))
        self.drops_by_peer[peer.name] += num_open - engine.ledger.in_flight
        for other in engine.peers:
            if other.status == "training":
                self._hold(other)
        self._pause += 1
        self._paused = True
        engine.clock.call_in(self.block.reconfigure, self._go_on, self._pause)

    def _hold(self, peer: SimPeer) -> None:
        peer.charge_status(self.engine.clock.now)
        peer.idle = False
        peer.status = "reconfiguring"

    def holds_back(self, peer: SimPeer) -> bool:
        """Let a peer that comes during the pause wait for its end."""
        if self._paused:
            self._hold(peer)
        return self._paused

    def _go_on(self, pause: int) -> None:
        if not self._paused or pause != self._pause:
            return
        self._paused = False
        for peer in self.engine.peers:
            if peer.status == "reconfiguring":
                self.engine.start_training(peer)

    def before_merge(self) -> None:
        """A merge is as good as a pause: those who wait take part in it."""
        self._paused = False
        for peer in self.engine.peers:
            if peer.status == "reconfiguring":
                peer.charge_status(self.engine.clock.now)
                peer.status = "training"
