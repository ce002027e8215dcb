"""Faults of peers: they crash and come back, stand still, are slow, and have clocks that are wrong."""

from math import isfinite

from orionbed import tracing
from orionbed.fault_effects import clock_offset_s, compute_factor, end_of
from orionbed.faults import ResolvedFault
from orionbed.results import Mark
from sim.disturbing import DisturbedNetwork
from sim.engine import Engine
from sim.fault_tally import Tally
from sim.merging import Merging
from sim.peer import SimPeer
from sim.rebalancing import Rebalancing

_AWAY = frozenset({"down", "startup", "kicked"})
"""In these there is no process that a fault could hit."""


class PeerFaults:
    """Crashes, pauses, slowness and wrong clocks of the peers of one run.

    What an operation loses to slowness and pauses is settled when it begins (`stretched_s`): all faults are known.
    """

    def __init__(
        self,
        engine: Engine,
        network: DisturbedNetwork,
        merging: Merging | None,
        rebalancing: Rebalancing,
        tallies: dict[str, Tally],
    ) -> None:
        self._engine = engine
        self._network = network
        self._merging = merging
        self._rebalancing = rebalancing
        self._tallies = tallies
        self._stretching: dict[int, list[ResolvedFault]] = {}
        self._wrong_clocks: dict[int, list[ResolvedFault]] = {}
        # By peer: the fault that took it away, and when.
        self._away: dict[int, tuple[ResolvedFault, float]] = {}
        self._num_pauses: dict[int, int] = {}
        self._stopped_s: dict[int, float] = {}
        # Peers that were idle when they were stopped: they look for work again when they go on.
        self._dozing: set[int] = set()
        self.paused: set[int] = set()

    def add(self, fault: ResolvedFault) -> None:
        """Take a fault of peers into account."""
        for index in fault.peers:
            if fault.kind in {"slow", "pause"}:
                self._stretching.setdefault(index, []).append(fault)
            elif fault.kind == "clock":
                self._wrong_clocks.setdefault(index, []).append(fault)

    def begin(self, fault: ResolvedFault) -> None:
        """A fault begins."""
        for index in fault.peers:
            peer = self._engine.peers[index]
            if fault.kind == "crash":
                self._crash(fault, peer)
            elif fault.kind == "pause":
                self._pause(fault, peer)

    def end(self, fault: ResolvedFault) -> None:
        """A fault ends."""
        for index in fault.peers:
            peer = self._engine.peers[index]
            if fault.kind == "crash":
                self._come_back(fault, peer)
            elif fault.kind == "pause":
                self._go_on(peer)

    def close(self) -> None:
        """Mark those who are still away when the run ends."""
        for index in sorted(self._away):
            fault, left_s = self._away[index]
            self._engine.marks.append(Mark(left_s, self._engine.clock.now, "down", index, fault.id))

    def stretched_s(self, peer: SimPeer, start_s: float, lasts_s: float) -> float:
        """Return how long an operation takes from `start_s` on that takes a healthy peer so long."""
        faults = self._stretching.get(peer.index)
        if faults is None:
            return lasts_s
        if compute_factor(faults, peer.index, start_s) != 1.0:
            for fault in faults:
                if fault.kind == "slow" and fault.hits(peer.index, start_s):
                    self._tallies[fault.id].hit = True
        return end_of(faults, peer.index, start_s, lasts_s) - start_s

    def is_silent(self, peer: SimPeer, limit_s: float) -> bool:
        """Whether a peer stands still, or what it says of itself looks older than `limit_s` to others."""
        if peer.index in self.paused:
            return True
        faults = self._wrong_clocks.get(peer.index)
        if faults is None or clock_offset_s(faults, peer.index, self._engine.clock.now) >= -limit_s:
            return False
        for fault in faults:
            if fault.hits(peer.index, self._engine.clock.now):
                self._tallies[fault.id].hit = True
        return True

    def are_back(self, fault: ResolvedFault) -> bool:
        """Whether those whom a fault took away, and who were to come back, take part again."""
        if fault.kind != "crash" or not isfinite(fault.end_s):
            return True
        # With merges a benched peer waits for the next epoch, and there is nothing more to be done for it.
        there = {"training", "merging"} | (set() if self._merging is None else {"benched"})
        return all(self._engine.peers[index].status in there for index in fault.peers)

    # ---------------------------------------------------------------- crashes

    def _crash(self, fault: ResolvedFault, peer: SimPeer) -> None:
        if peer.status in _AWAY:
            return
        engine, tally = self._engine, self._tallies[fault.id]
        destroyed_bytes, dropped = engine.network.bytes_destroyed, engine.ledger.dropped
        self._rebalancing.take(peer)
        self._away[peer.index] = (fault, engine.clock.now)
        tally.hit = True
        tally.destroyed_bytes += engine.network.bytes_destroyed - destroyed_bytes
        tally.dropped += engine.ledger.dropped - dropped

    def _come_back(self, fault: ResolvedFault, peer: SimPeer) -> None:
        engine = self._engine
        by, left_s = self._away.get(peer.index, (None, 0.0))
        if by is not fault or peer.status != "down":
            return
        del self._away[peer.index]
        peer.charge(tracing.CAUSE_DOWN, engine.clock.now)
        peer.status = "benched"
        engine.marks.append(Mark(left_s, engine.clock.now, "down", peer.index, fault.id))
        if fault.parameters.get("state") == "disk" and self._merging is None:
            if engine.scribe is not None:
                engine.scribe.restores(peer)
            engine.start_training(peer)
        else:
            self._rebalancing.come_back(peer)

    # ---------------------------------------------------------------- pauses

    def _pause(self, fault: ResolvedFault, peer: SimPeer) -> None:
        """Stop a peer. Its operation has been stretched already; idle ones must not begin anything."""
        engine = self._engine
        self._num_pauses[peer.index] = self._num_pauses.get(peer.index, 0) + 1
        self._stopped_s.setdefault(peer.index, engine.clock.now)
        if peer.status not in _AWAY:
            self._tallies[fault.id].hit = True
        self.paused.add(peer.index)
        self._network.hold(peer.index, fault.end_s)
        if engine.doze(peer):
            self._dozing.add(peer.index)

    def _go_on(self, peer: SimPeer) -> None:
        """Let a peer go on, if no other pause holds it; what it stood still for is charged as time away."""
        index, engine = peer.index, self._engine
        self._num_pauses[index] -= 1
        if self._num_pauses[index]:
            return
        self.paused.discard(index)
        stopped_s = self._stopped_s.pop(index)
        dozed = index in self._dozing
        self._dozing.discard(index)
        if peer.status != "training":
            return
        now = engine.clock.now
        if peer.running is not None:
            stood_s = now - max(stopped_s, peer.action_s)
            if stood_s > 0.0:
                peer.cause_s[tracing.CAUSE_DOWN] += stood_s
                peer.action_s += stood_s
                peer.accounted_s += stood_s
        elif dozed and not peer.idle:
            peer.charge(tracing.CAUSE_DOWN, now)
            engine.look_again(peer)
        if engine.is_queue_driven:
            engine.status.announce(peer)
