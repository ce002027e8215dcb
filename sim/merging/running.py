"""Runs the merges of a run: when training stops for them, beside it, and what becomes of those who were not in it."""

from collections.abc import Callable, Generator
from typing import Any

import simpy

from orionbed import tracing
from orionbed.merging.coding import contribution_bits
from orionbed.results import Mark, MergeCounts
from orionbed.scenario.merging import GATED, Merge
from sim.engine import Engine
from sim.merging.exchange import Exchange
from sim.merging.gate import PhaseGate, Process
from sim.merging.hold import Hold
from sim.merging.store import StoreMerge
from sim.merging.wire import Wire
from sim.peer import SimPeer


class Merging:
    """Merges all peers that are in training, in phases through the store or in one exchange per stage."""

    def __init__(self, engine: Engine, block: Merge) -> None:
        self._engine = engine
        self._block = block
        self._wire = Wire(engine.network, through_storage=block.through_storage)
        self.counts = MergeCounts()
        self._store = StoreMerge(engine, block, self._wire, self.counts)
        self._in_phases = block.algorithm in GATED and block.through_storage and not block.overlap
        self._gate: PhaseGate | None = None
        self._hold: Hold | None = None
        self._exchanges: list[Exchange] = []
        self._fetching: dict[int, object] = {}
        self._beside: simpy.Event | None = None
        self._num_missed = 0
        engine.keeps_work = not block.flush

    @property
    def tell(self) -> Callable[[str], object] | None:
        """Hears of each phase as it begins: upload, partitions, download, or the one exchange."""
        return self._store.tell

    @tell.setter
    def tell(self, hear: Callable[[str], object] | None) -> None:
        self._store.tell = hear

    @property
    def num_missed(self) -> int:
        """Peers that were too late for a merge."""
        return self._num_missed + self._store.num_missed

    @property
    def bytes_between_peers(self) -> float:
        """Bytes sent for merges that did not go through the store."""
        return self._wire.direct_bytes

    @property
    def overlaps(self) -> bool:
        """Whether training goes on during a merge."""
        return self._block.overlap

    def lost(self, peer: SimPeer) -> None:
        """`peer` crashed: nobody waits for it any longer than it takes to notice."""
        self._store.lost(peer)
        self._fetching.pop(peer.index, None)
        if self._hold is not None:
            self._hold.ended(peer)
        for exchange in self._exchanges:
            exchange.lost(peer)
        if self._gate is not None:
            self._gate.lost(peer)

    # ---------------------------------------------------------------- merges that training stops for

    def stop_training(self) -> Process:
        """End the training phase for everybody, with or without what is in flight."""
        engine = self._engine
        if self._block.flush:
            engine.ending.end_training()
            return
        self._hold = Hold(engine, [peer for peer in engine.peers if peer.status == "training"])
        yield from self._hold.settle()
        self._hold = None

    def run(self) -> Generator[simpy.Event, Any, list[SimPeer]]:
        """Merge all peers that are in training; benched ones take the merged weights too.

        Returns the peers that hold the merged weights. Those still downloading join the training when they have them.
        """
        engine = self._engine
        started_s = engine.clock.now
        merging = [peer for peer in engine.peers if peer.status == "training"]
        for peer in merging:
            peer.status = "merging"
        if engine.scribe is not None:
            engine.scribe.merges.begins()
        if self._in_phases:
            ready = yield from self._store.run(merging)
        else:
            ready = yield from self._exchange_all(merging)
        engine.marks.append(Mark(started_s, engine.clock.now, "merge"))
        return ready

    def _exchange_all(self, merging: list[SimPeer]) -> Generator[simpy.Event, Any, list[SimPeer]]:
        """Let every stage exchange, and wait for all, or as the scenario says; return those who can train on."""
        engine, block = self._engine, self._block
        if self.tell is not None:
            self.tell("exchange")
        gate = self._gate = PhaseGate(engine, merging)
        exchanges = self._begin(merging, self._through, gate)
        if block.algorithm == "gossip":
            yield from gate.wait_for(lambda: all(self._has_begun(each, gate) for each in exchanges), block.timeout)
        else:
            yield from gate.wait(block)
        self._gate = None
        self.counts.arrivals_s.append(gate.arrivals_s)
        silent = {peer.index for each in exchanges for peer in each.silent}
        ready = [peer for peer in merging if peer.status == "merging" and peer.index not in silent]
        if block.algorithm == "gossip":
            ready = [peer for peer in ready if not gate.waits_for(peer)]
        else:
            self._give_up(exchanges, [peer for peer in gate.late if peer.index not in silent])
        for peer in merging:
            if peer.status == "merging" and (peer in ready or peer.index in silent):
                late = gate.waits_for(peer) and peer.index not in silent
                peer.charge(tracing.CAUSE_MERGE_TRANSFER if late else tracing.CAUSE_MERGE_WAIT, engine.clock.now)
                if peer.index in silent:
                    peer.status = "benched"
        self._fetch_weights()
        return ready

    @staticmethod
    def _has_begun(exchange: Exchange, gate: PhaseGate) -> bool:
        """Whether a stage has somebody who is through, or nobody who could be."""
        return not exchange.members or any(not gate.waits_for(peer) for peer in exchange.members)

    def _through(self, peer: SimPeer) -> None:
        """`peer` has what its exchange gives it."""
        if self._gate is not None and self._gate.waits_for(peer):
            self._gate.finished(peer)
        elif peer.status == "merging" and self._engine.in_training:
            self._engine.start_training(peer)
        elif peer.status == "merging":
            peer.status = "benched"

    def _give_up(self, exchanges: list[Exchange], late: list[SimPeer]) -> None:
        """Let those who are late go on with their own weights."""
        self._num_missed += len(late)
        for exchange in exchanges:
            if any(peer in exchange.members for peer in late):
                exchange.abandon()
                self.counts.covered.append(0.0)
                self.counts.refused += 1

    # ---------------------------------------------------------------- merges beside training

    def begin_beside(self) -> Process:
        """Begin a merge that training goes on beside, as soon as the one before it is through."""
        if self._beside is not None:
            yield self._beside
        self._beside = self._engine.clock.process(self._merge_beside())

    def _merge_beside(self) -> Process:
        engine = self._engine
        started_s = engine.clock.now
        training = [peer for peer in engine.peers if peer.status == "training"]
        gate = self._gate = PhaseGate(engine, training)
        exchanges = self._begin(training, gate.finished, gate)
        self._fetch_weights()
        yield from gate.wait(self._block)
        self._gate = None
        self.counts.arrivals_s.append(gate.arrivals_s)
        silent = [peer for each in exchanges for peer in each.silent]
        self._give_up(exchanges, [peer for peer in gate.late if peer not in silent])
        engine.marks.append(Mark(started_s, engine.clock.now, "merge-beside"))

    # ---------------------------------------------------------------- both

    def _begin(self, peers: list[SimPeer], through: Callable[[SimPeer], None], gate: PhaseGate) -> list[Exchange]:
        """Start one exchange per stage."""
        engine, block = self._engine, self._block
        found = []
        for stage in engine.plan.stages:
            members = [peer for peer in peers if peer.stage == stage.index]
            bits = contribution_bits(block.codec, stage.parameters, stage.weight_bytes)
            num_bytes = bits / 8.0 / block.fragments
            if members:
                exchange = Exchange(
                    engine,
                    block,
                    self._wire,
                    members,
                    counts=self.counts,
                    contribution_bytes=num_bytes,
                    through=through,
                    gone=gate.lost,
                )
                found.append(exchange)
        self._exchanges = [each for each in self._exchanges if not each.over] + found
        for exchange in found:
            engine.clock.process(exchange.run())
        return found

    def _fetch_weights(self) -> None:
        """Let those who are benched fetch their stage's weights from the store, and train when they have them."""
        for peer in self._engine.peers:
            if peer.status == "benched" and peer.index not in self._fetching:
                mine = self._fetching[peer.index] = object()
                weight_bytes = float(self._engine.plan.stages[peer.stage].weight_bytes)
                self._wire.from_storage(peer.index, weight_bytes, self._fetched, (peer, mine))

    def _fetched(self, what: tuple[SimPeer, object]) -> None:
        peer, mine = what
        if self._fetching.get(peer.index) is not mine:
            return
        del self._fetching[peer.index]
        if peer.status == "benched" and self._engine.in_training:
            self._engine.start_training(peer)
