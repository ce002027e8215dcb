"""Stopping training without throwing anything away: everybody finishes the operation at hand and begins no other."""

from collections.abc import Iterable

from sim.engine import Engine
from sim.merging.gate import Process
from sim.peer import SimPeer


class Hold:
    """Holds peers back until training begins again; queues, caches and messages on their way stay as they are."""

    def __init__(self, engine: Engine, peers: Iterable[SimPeer]) -> None:
        self._engine = engine
        self._quiet = engine.clock.event()
        self._busy = {peer.index for peer in peers if peer.running is not None}
        for peer in peers:
            engine.stand_by(peer)
        engine.hold = self

    def ended(self, peer: SimPeer) -> None:
        """`peer` has ended what it did, or is gone."""
        self._busy.discard(peer.index)
        if not self._busy and not self._quiet.triggered:
            self._quiet.succeed()

    def settle(self) -> Process:
        """Wait until nobody is at work; then what comes in only queues up."""
        if self._busy:
            yield self._quiet
        self._engine.hold = None
