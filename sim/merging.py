"""Merges through object storage: upload, merge partitions, download. Rare, so written as SimPy processes."""

from collections.abc import Callable, Generator, Iterable
from math import floor
from typing import Any

import simpy

from orionbed import tracing
from orionbed.butterfly import MergeBytes, butterfly_bytes
from orionbed.results import Mark
from orionbed.scenario.sections import Merge
from sim.engine import Engine
from sim.peer import SimPeer

Process = Generator[simpy.Event, Any, None]


class PhaseGate:
    """Waits until enough peers have finished a phase. The quorum starts at all of them and relaxes with time."""

    def __init__(self, engine: Engine, peers: Iterable[SimPeer]) -> None:
        self._engine = engine
        self._pending = {peer.index: peer for peer in peers}
        self._num_peers = len(self._pending)
        self._changed = engine.clock.event()
        self._lost: set[int] = set()

    def lost(self, peer: SimPeer) -> None:
        """`peer` left, with all that it had: nothing more will come of it, even if it comes back within the phase."""
        self._lost.add(peer.index)
        self.finished(peer)

    def is_lost(self, peer: SimPeer) -> bool:
        """Whether `peer` left during the phase."""
        return peer.index in self._lost

    def finished(self, peer: SimPeer) -> None:
        """`peer` is through."""
        if self._pending.pop(peer.index, None) is not None:
            self._changed.succeed()
            self._changed = self._engine.clock.event()

    def waits_for(self, peer: SimPeer) -> bool:
        """Whether `peer` has yet to finish."""
        return peer.index in self._pending

    @property
    def late(self) -> list[SimPeer]:
        """Peers that have not finished."""
        return list(self._pending.values())

    def wait(self, block: Merge) -> Process:
        """Wait for the quorum, at most the phase's timeout."""
        clock = self._engine.clock
        started_s = clock.now
        while self._pending and clock.now - started_s < block.timeout:
            ticks = floor((clock.now - started_s) / block.quorum_every + 1e-9)
            needed = max(block.quorum_floor, 1.0 - block.quorum_relax * ticks)
            if (self._num_peers - len(self._pending)) / self._num_peers >= needed - 1e-12:
                return
            next_tick = started_s + (ticks + 1) * block.quorum_every
            yield self._changed | clock.timeout(next_tick - clock.now)


class Merging:
    """Runs merges, and counts the peers that were too late for them."""

    def __init__(self, engine: Engine, block: Merge) -> None:
        self._engine = engine
        self._block = block
        self._gate: PhaseGate | None = None
        self.num_missed = 0

    def lost(self, peer: SimPeer) -> None:
        """`peer` crashed: the phase under way no longer waits for it."""
        if self._gate is not None:
            self._gate.lost(peer)

    def run(self) -> Generator[simpy.Event, Any, list[SimPeer]]:
        """Merge all peers that are in training; benched ones take the merged weights too.

        Returns the peers that hold the merged weights. Those still downloading join the training when they have them.
        """
        started_s = self._engine.clock.now
        merging = [peer for peer in self._engine.peers if peer.status == "training"]
        for peer in merging:
            peer.status = "merging"
        yield from self._phase(merging, self._upload, "upload")
        merging = [peer for peer in merging if peer.status == "merging"]
        yield from self._phase(merging, self._merge_partitions, "partitions")
        merging = [peer for peer in merging if peer.status == "merging"]
        joining = [peer for peer in self._engine.peers if peer.status == "benched"]
        ready = yield from self._phase(merging + joining, self._download, "download")
        self._engine.marks.append(Mark(started_s, self._engine.clock.now, "merge"))
        return ready

    def _phase(
        self, peers: list[SimPeer], work: Callable[[SimPeer, PhaseGate], Process], name: str
    ) -> Generator[simpy.Event, Any, list[SimPeer]]:
        """Let every peer do its part until enough are through; return those that are."""
        clock = self._engine.clock
        gate = self._gate = PhaseGate(self._engine, peers)
        for peer in peers:
            clock.process(work(peer, gate))
        if peers:
            yield from gate.wait(self._block)
        self._gate = None
        late = gate.late
        self.num_missed += len(late) if name == "upload" else 0
        for peer in late:
            if name != "download":
                self._engine.network.cancel_peer(peer.index)
            if peer.status == "merging":
                peer.charge(tracing.CAUSE_MERGE_TRANSFER, clock.now)
        for peer in peers:
            if peer.status == "merging":
                peer.charge(tracing.CAUSE_MERGE_WAIT, clock.now)
        return [peer for peer in peers if not gate.waits_for(peer) and not gate.is_lost(peer)]

    def _num_merging(self, peer: SimPeer) -> int:
        return sum(p.status == "merging" and p.stage == peer.stage for p in self._engine.peers)

    def _bytes(self, peer: SimPeer) -> MergeBytes:
        weight_bytes = float(self._engine.plan.stages[peer.stage].weight_bytes)
        return butterfly_bytes(weight_bytes, max(1, self._num_merging(peer)))

    def _upload(self, peer: SimPeer, gate: PhaseGate) -> Process:
        yield from self._move(peer, self._bytes(peer).gradients_up, up=True, kind=tracing.KIND_UPLOAD)
        gate.finished(peer)

    def _merge_partitions(self, peer: SimPeer, gate: PhaseGate) -> Process:
        amounts = self._bytes(peer)
        yield from self._move(peer, amounts.partitions_down, up=False, kind=tracing.KIND_DOWNLOAD)
        started_s = self._engine.clock.now
        yield self._engine.clock.timeout(self._block.compute)
        if self._gate is not gate or not gate.waits_for(peer):
            return  # lost, or the others went on meanwhile
        peer.charge(tracing.CAUSE_MERGE_COMPUTE, self._engine.clock.now)
        self._record(peer, tracing.KIND_AVERAGE, started_s, 0.0, tracing.CAUSE_MERGE_COMPUTE)
        yield from self._move(peer, amounts.partitions_up, up=True, kind=tracing.KIND_UPLOAD)
        gate.finished(peer)

    def _download(self, peer: SimPeer, gate: PhaseGate) -> Process:
        yield from self._move(peer, self._bytes(peer).weights_down, up=False, kind=tracing.KIND_DOWNLOAD)
        if self._gate is gate:
            gate.finished(peer)
        elif self._engine.in_training:
            self._engine.start_training(peer)
        else:
            peer.status = "benched"

    def _move(self, peer: SimPeer, num_bytes: float, *, up: bool, kind: int) -> Process:
        """Move bytes to or from the store."""
        engine = self._engine
        started_s = engine.clock.now
        done = engine.clock.event()
        (engine.network.to_storage if up else engine.network.from_storage)(peer.index, num_bytes, succeed, done)
        yield done  # never, once the peer is lost or the phase has gone on without it
        if peer.status == "merging":
            peer.charge(tracing.CAUSE_MERGE_TRANSFER, engine.clock.now)
        self._record(peer, kind, started_s, num_bytes, tracing.CAUSE_MERGE_TRANSFER)

    def _record(self, peer: SimPeer, kind: int, started_s: float, num_bytes: float, cause: int) -> None:
        recording = self._engine.recording
        if recording.active:
            recording.merge(peer, kind, cause, num_bytes, (started_s, self._engine.clock.now))


def succeed(event: simpy.Event) -> None:
    """Trigger an event; what a transfer of a process calls when it is delivered."""
    event.succeed()
