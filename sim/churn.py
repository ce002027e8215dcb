"""Peers that leave and come back: one SimPy process per peer, each with a random stream of its own."""

from orionbed import tracing
from orionbed.account import CAUSE_OF_STATUS
from orionbed.results import Mark
from orionbed.scenario.sections import Churn as ChurnBlock
from sim.engine import Engine
from sim.merging import Merging, Process
from sim.peer import SimPeer
from sim.rebalancing import Rebalancing


class Churn:
    """Takes peers away and brings them back, benched until the next epoch or, without merges, until they are ready."""

    def __init__(self, engine: Engine, merging: Merging | None, rebalancing: Rebalancing) -> None:
        self._engine = engine
        self._merging = merging
        self._rebalancing = rebalancing
        self._left_s: dict[int, float] = {}

    def start(self, block: ChurnBlock) -> None:
        """Start every peer's life."""
        for peer in self._engine.peers:
            self._engine.clock.process(self._life(peer, block))

    def _life(self, peer: SimPeer, block: ChurnBlock) -> Process:
        clock = self._engine.clock
        random = self._engine.streams.get(f"churn/{peer.index}")
        while True:
            yield clock.timeout(float(block.up.sample(random, 1)[0]))
            self._leave(peer)
            yield clock.timeout(float(block.down.sample(random, 1)[0]))
            peer.charge(tracing.CAUSE_DOWN, clock.now)
            peer.status = "benched"
            self._mark(peer.index)
            self._rebalancing.come_back(peer)

    def _mark(self, index: int) -> None:
        self._engine.marks.append(Mark(self._left_s.pop(index), self._engine.clock.now, "down", index))

    def close(self) -> None:
        """Mark those who are still away when the run ends."""
        for index in sorted(self._left_s):
            self._mark(index)

    def _leave(self, peer: SimPeer) -> None:
        engine = self._engine
        self._left_s[peer.index] = engine.clock.now
        if peer.status == "training":
            engine.crash(peer)
        else:
            engine.network.cancel_peer(peer.index)
            if peer.status != "down":
                peer.charge(CAUSE_OF_STATUS[peer.status], engine.clock.now)
            peer.status = "down"
        if self._merging is not None:
            self._merging.lost(peer)
