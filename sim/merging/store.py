"""Merges in phases through the object store, with a gate after each: IOTA's butterfly, and everybody fetching all.

butterfly    upload pseudo-gradients; fetch, average and upload the slices that one holds; download the weights
gather       upload contributions; download those of the others that were there in time, and average them
"""

from collections import Counter
from collections.abc import Callable, Generator
from typing import Any

import simpy

from orionbed import tracing
from orionbed.merging.butterfly import MergeBytes, Slices, butterfly_bytes, coverage, pairs_of, random_pairs
from orionbed.merging.coding import coding_s, contribution_bits, moved_weight_bits
from orionbed.results import MergeCounts
from orionbed.scenario.merging import Merge
from sim.engine import Engine
from sim.merging.exchange import draw_silent
from sim.merging.gate import PhaseGate, Process
from sim.merging.wire import Wire
from sim.peer import SimPeer
from sim.transfer import Transfer

Ready = Generator[simpy.Event, Any, list[SimPeer]]


class StoreMerge:
    """One merge after the other, each with everybody who was in training; those who are benched take the weights too.

    A peer that falls silent does so after its upload in a butterfly, so that only its slices are missing, and before it
    in a gather. It is back for the download.
    """

    def __init__(self, engine: Engine, block: Merge, wire: Wire, counts: MergeCounts) -> None:
        self._engine = engine
        self._block = block
        self._wire = wire
        self._counts = counts
        self._gate: PhaseGate | None = None
        self._silent: list[SimPeer] = []
        self._moving: dict[int, Transfer] = {}
        self._num_there: dict[int, int] = {}
        self._there: set[int] = set()
        # How often each peer was lost: who comes back does not go on with what it did before.
        self._losses: Counter[int] = Counter()
        self._encode_s, self._decode_s = (seconds / block.fragments for seconds in coding_s(block.codec))
        self._compute_s = block.compute / block.fragments
        self.num_missed = 0
        # Hears of each phase as it begins.
        self.tell: Callable[[str], object] | None = None

    def lost(self, peer: SimPeer) -> None:
        """`peer` is gone: the phase under way no longer waits for it."""
        self._losses[peer.index] += 1
        if self._gate is not None:
            self._gate.lost(peer)

    def run(self, merging: list[SimPeer]) -> Ready:
        """Merge; return the peers that hold the merged weights. Who still downloads joins the training later."""
        if self._block.algorithm == "gather":
            self._fall_silent(merging)
            there = yield from self._phase(merging, self._upload, "upload")
            self._count_uploads(merging, there)
            self._write_down_gathered(merging, there)
            merging = [peer for peer in merging if peer.status == "merging"]
            kept: list[SimPeer] = []
        else:
            there = yield from self._phase(merging, self._upload, "upload")
            kept = yield from self._partitions([peer for peer in merging if peer.status == "merging"], there)
            merging = [peer for peer in merging if peer.status == "merging" and peer not in kept]
        self._silent = []
        joining = [peer for peer in self._engine.peers if peer.status == "benched"]
        ready = yield from self._phase(merging + joining, self._download, "download")
        return ready + [peer for peer in kept if peer.status == "merging"]

    # ---------------------------------------------------------------- phases

    def _phase(self, peers: list[SimPeer], work: Callable[[SimPeer, PhaseGate], Process], name: str) -> Ready:
        """Let every peer do its part until enough are through; return those that are."""
        clock = self._engine.clock
        if self.tell is not None:
            self.tell(name)
        gate = self._gate = PhaseGate(self._engine, peers)
        for peer in peers:
            if peer not in self._silent:
                clock.process(work(peer, gate))
        if peers:
            yield from gate.wait(self._block)
        self._gate = None
        late = gate.late
        if name == "upload":
            self.num_missed += len([peer for peer in late if peer not in self._silent])
            self._counts.arrivals_s.append(gate.arrivals_s)
        for peer in late:
            if name != "download":
                self._cut_off(peer)
            if peer.status == "merging":
                peer.charge(tracing.CAUSE_MERGE_TRANSFER, clock.now)
        for peer in peers:
            if peer.status == "merging":
                peer.charge(tracing.CAUSE_MERGE_WAIT, clock.now)
        return [peer for peer in peers if not gate.waits_for(peer) and not gate.is_lost(peer)]

    def _cut_off(self, peer: SimPeer) -> None:
        """End a late peer's transfers: all it has, or where boundary tensors are still on their way, only its own."""
        if self._block.flush:
            self._engine.network.cancel_peer(peer.index)
        elif peer.index in self._moving:
            self._engine.network.cancel(self._moving.pop(peer.index))

    def _fall_silent(self, peers: list[SimPeer]) -> None:
        self._silent = draw_silent(self._engine, self._block, peers)
        self._counts.failures += len(self._silent)

    def _partitions(self, merging: list[SimPeer], there: list[SimPeer]) -> Ready:
        """Let slices be averaged, again where too many are missing; return those who keep their own weights."""
        floor = self._block.coverage_floor or 0.0
        slices = self._slices(merging)
        covered = dict.fromkeys(slices, 0.0)
        uploads = [(peer.stage, peer.index) for peer in there]  # who is lost now may come back to another stage
        through_by_stage: dict[int, set[int]] = {stage: set() for stage in slices}
        again = merging
        for attempt in range(self._block.attempts):
            self._fall_silent(again)
            self._counts.retries += 0 if attempt == 0 else len({peer.stage for peer in again})
            through = yield from self._phase(again, self._merge_partitions, "partitions")
            done = {peer.index for peer in through if peer.status == "merging"}
            for stage in {peer.stage for peer in again}:
                covered[stage] = coverage(slices[stage], done)
                through_by_stage[stage] = done
            again = [peer for peer in again if peer.status == "merging" and covered[peer.stage] < floor]
            if not again:
                break
        refused = {peer.stage for peer in again}
        self._counts.refused += len(refused)
        self._counts.covered += [0.0 if stage in refused else share for stage, share in sorted(covered.items())]
        for stage in sorted(slices.keys() - refused):
            self._write_down(stage, merging, uploads, slices[stage], through_by_stage[stage])
        return again

    def _write_down(
        self, stage: int, merging: list[SimPeer], uploads: list[tuple[int, int]], slices: Slices, through: set[int]
    ) -> None:
        """Tell the scribe which slices were merged from the uploads that were there, and who has them."""
        scribe = self._engine.scribe
        if scribe is None:
            return
        members = [index for its_stage, index in uploads if its_stage == stage]
        takers = [peer.index for peer in merging if peer.stage == stage and peer.status == "merging"]
        has_holder = [bool(members) and not through.isdisjoint(holders) for holders in slices]
        scribe.merges.merged(stage, members, takers, has_holder)

    def _write_down_gathered(self, merging: list[SimPeer], there: list[SimPeer]) -> None:
        uploads = [(peer.stage, peer.index) for peer in there]
        for stage in sorted(self._num_there):
            self._write_down(stage, merging, uploads, [tuple(self._there)], self._there)

    def _slices(self, merging: list[SimPeer]) -> dict[int, Slices]:
        """Return who holds the slices of each stage that merges."""
        members: dict[int, list[int]] = {}
        for peer in merging:
            members.setdefault(peer.stage, []).append(peer.index)
        if self._block.partitions == "pairs":
            return {stage: pairs_of(peers) for stage, peers in members.items()}
        random = self._engine.streams.get("merge/slices")
        return {stage: random_pairs(peers, random) for stage, peers in sorted(members.items())}

    def _count_uploads(self, merging: list[SimPeer], there: list[SimPeer]) -> None:
        """Note whose contributions can be fetched."""
        self._there = {peer.index for peer in there}
        self._num_there = {peer.stage: 0 for peer in merging}
        for peer in there:
            self._num_there[peer.stage] += 1
        self._counts.covered += [float(count > 0) for _, count in sorted(self._num_there.items())]

    # ---------------------------------------------------------------- what one peer does

    def _num_merging(self, peer: SimPeer) -> int:
        return sum(p.status == "merging" and p.stage == peer.stage for p in self._engine.peers)

    def _bytes(self, peer: SimPeer) -> MergeBytes:
        stage, block = self._engine.plan.stages[peer.stage], self._block
        gradient_bytes = contribution_bits(block.codec, stage.parameters, stage.weight_bytes) / 8.0 / block.fragments
        weight_bytes = moved_weight_bits(block.codec, stage.parameters, stage.weight_bytes) / 8.0 / block.fragments
        count = max(1, self._num_merging(peer))
        return butterfly_bytes(weight_bytes, count, gradient_bytes=gradient_bytes, momentum=block.outer == "nesterov")

    def _upload(self, peer: SimPeer, gate: PhaseGate) -> Process:
        yield from self._compute(peer, gate, self._encode_s)
        if not gate.waits_for(peer):
            return
        yield from self._move(peer, self._bytes(peer).gradients_up, up=True, kind=tracing.KIND_UPLOAD)
        gate.finished(peer)

    def _merge_partitions(self, peer: SimPeer, gate: PhaseGate) -> Process:
        amounts = self._bytes(peer)
        yield from self._move(peer, amounts.partitions_down, up=False, kind=tracing.KIND_DOWNLOAD)
        yield from self._compute(peer, gate, self._decode_s)
        started_s = self._engine.clock.now
        yield self._engine.clock.timeout(self._compute_s)
        if self._gate is not gate or not gate.waits_for(peer):
            return  # lost, or the others went on meanwhile
        peer.charge(tracing.CAUSE_MERGE_COMPUTE, self._engine.clock.now)
        self._record(peer, tracing.KIND_AVERAGE, started_s, 0.0, tracing.CAUSE_MERGE_COMPUTE)
        yield from self._move(peer, amounts.partitions_up, up=True, kind=tracing.KIND_UPLOAD)
        gate.finished(peer)

    def _download(self, peer: SimPeer, gate: PhaseGate) -> Process:
        num_bytes = self._bytes(peer).weights_down
        averages = self._block.algorithm == "gather" and peer.status == "merging"
        if averages:
            others = self._num_there.get(peer.stage, 0) - (peer.index in self._there)
            num_bytes = others * self._bytes(peer).gradients_up
        elif peer.status == "benched":
            num_bytes = float(self._engine.plan.stages[peer.stage].weight_bytes)
        yield from self._move(peer, num_bytes, up=False, kind=tracing.KIND_DOWNLOAD)
        if averages:
            losses = self._losses[peer.index]
            yield from self._compute(peer, gate, self._decode_s + self._compute_s)
            if self._losses[peer.index] != losses:
                return
        if self._gate is gate:
            gate.finished(peer)
        elif self._engine.in_training:
            self._engine.start_training(peer)
        else:
            peer.status = "benched"

    def _compute(self, peer: SimPeer, gate: PhaseGate, seconds: float) -> Process:
        if seconds <= 0.0:
            return
        started_s = self._engine.clock.now
        yield self._engine.clock.timeout(seconds)
        if self._gate is gate and gate.waits_for(peer) and peer.status == "merging":
            peer.charge(tracing.CAUSE_MERGE_COMPUTE, self._engine.clock.now)
            self._record(peer, tracing.KIND_AVERAGE, started_s, 0.0, tracing.CAUSE_MERGE_COMPUTE)

    def _move(self, peer: SimPeer, num_bytes: float, *, up: bool, kind: int) -> Process:
        """Move bytes to or from the store."""
        engine = self._engine
        started_s = engine.clock.now
        done = engine.clock.event()
        move = self._wire.to_storage if up else self._wire.from_storage
        self._moving[peer.index] = move(peer.index, num_bytes, lambda _: done.succeed())
        yield done  # never, once the peer is lost or the phase has gone on without it
        self._moving.pop(peer.index, None)
        if peer.status == "merging":
            peer.charge(tracing.CAUSE_MERGE_TRANSFER, engine.clock.now)
        self._record(peer, kind, started_s, num_bytes, tracing.CAUSE_MERGE_TRANSFER)

    def _record(self, peer: SimPeer, kind: int, started_s: float, num_bytes: float, cause: int) -> None:
        recording = self._engine.recording
        if recording.active:
            recording.merge(peer, kind, cause, num_bytes, (started_s, self._engine.clock.now))
