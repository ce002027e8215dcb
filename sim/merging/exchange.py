"""The peers of one stage average among themselves, and what they do about one that falls silent.

A peer that is silent sends nothing from the start. What the others do about it depends on who needs it:

    ring, tree     nobody gets on; after `failure_timeout` they begin anew without it
    central-ps     so they do when it is the server; the server itself waits `failure_timeout` and sums the others
    sharded-ps     its part of the weights is lost; the others wait `failure_timeout` at most and have the rest
    grouped        the same within its groups
    gossip         its partner waits `failure_timeout` and keeps its own weights
    gather         as if it were not there, after `failure_timeout`

A peer that leaves in the middle makes those it exchanges with begin anew without it after `failure_timeout`.
"""

from collections.abc import Callable, Generator, Sequence
from typing import Any

import simpy

from orionbed import tracing
from orionbed.merging.coding import coding_s
from orionbed.merging.groups import grid_groups, num_rounds, random_partners
from orionbed.results import MergeCounts
from orionbed.scenario.merging import Merge
from sim.collectives import ALGORITHMS, AllToAll, Collective, Make, ShardedServer
from sim.engine import Engine
from sim.merging.gate import Process
from sim.merging.wire import Wire
from sim.peer import SimPeer
from sim.scribe_merges import Group

NEEDS_ALL = ("ring", "tree")


class Exchange:
    """One merge of one stage, without a gate in between.

    `through` is called for each peer that has what it gets, `gone` in the end for each that fell silent.
    `silent` are those who have fallen silent; `covered` is the share of the stage's weights that was averaged,
    of gossip the share of the peers that averaged theirs.
    """

    def __init__(
        self,
        engine: Engine,
        block: Merge,
        wire: Wire,
        members: Sequence[SimPeer],
        *,
        counts: MergeCounts,
        contribution_bytes: float,
        through: Callable[[SimPeer], None],
        gone: Callable[[SimPeer], None],
    ) -> None:
        self._engine = engine
        self._block = block
        self._wire = wire
        self._bytes = contribution_bytes
        self._counts = counts
        self._through = through
        self._gone = gone
        self._broken = engine.clock.event()
        self._kind = _kind_of(block)
        self._collectives: list[Collective] = []
        # Who has merged with whom, round by round.
        self._groups: list[Group] = []
        self.over = False
        self.members = list(members)
        self.silent: list[SimPeer] = []
        self.covered = 0.0

    def lost(self, peer: SimPeer) -> None:
        """`peer` left the run."""
        if peer in self.members:
            self.members.remove(peer)
            self._broken.succeed()
            self._broken = self._engine.clock.event()

    def abandon(self) -> None:
        """Give up: what is on its way still arrives, and is ignored."""
        self.over = True
        for collective in self._collectives:
            collective.abandon()

    def run(self) -> Process:
        """Encode, exchange, decode and average; then everybody who is not silent is through."""
        began_s = self._engine.clock.now
        yield from self._all_of_it()
        if self.over:
            return
        self.over = True
        self._counts.covered.append(self.covered)
        self._counts.exchanges_s.append(self._engine.clock.now - began_s)
        self._counts.refused += self.covered == 0.0
        for peer in self.silent:
            self._gone(peer)

    def _all_of_it(self) -> Process:
        encode_s, decode_s = (seconds / self._block.fragments for seconds in coding_s(self._block.codec))
        yield from self._compute(encode_s, self.members)
        if self._block.algorithm == "gossip":
            yield from self._gossip(decode_s)
        elif self._block.algorithm == "grouped":
            yield from self._rounds()
            yield from self._finish(self.members, decode_s, self._groups)
        else:
            yield from self._together()
            if self.covered:
                yield from self._finish(self.members, decode_s, self._groups)
            else:
                self._done(self.members)

    # ---------------------------------------------------------------- all at once

    def _together(self) -> Process:
        algorithm = self._block.algorithm
        for _ in range(self._block.attempts):
            everybody = list(self.members)
            if not everybody:
                return
            silent = self._fall_silent()
            members = list(self.members)
            server_silent = algorithm == "central-ps" and everybody[0] in silent
            if not members or server_silent or (silent and algorithm in NEEDS_ALL):
                yield from self._begin_anew()
                continue
            is_whole = yield from self._collective([(members, len(everybody))], bool(silent))
            if is_whole:
                is_sharded = algorithm == "sharded-ps"
                self.covered = len(members) / len(everybody) if is_sharded else 1.0
                self._groups.append(_group(members, everybody if is_sharded else members))
                return
            yield from self._begin_anew()

    def _begin_anew(self) -> Process:
        self._counts.retries += 1
        yield self._engine.clock.timeout(self._block.failure_timeout)

    def _fall_silent(self) -> list[SimPeer]:
        """Draw who falls silent in this try, and leave them out; return them."""
        silent = draw_silent(self._engine, self._block, self.members)
        self.silent += silent
        self._counts.failures += len(silent)
        self.members = [peer for peer in self.members if peer not in silent]
        return silent

    # ---------------------------------------------------------------- in groups

    def _rounds(self) -> Process:
        block, everybody = self._block, list(self.members)
        dimensions = num_rounds(len(everybody), block.group_size)
        silent = bool(self._fall_silent())
        shares = []
        for number in range(dimensions if block.rounds is None else block.rounds):
            places = grid_groups(range(len(everybody)), block.group_size, dimensions, number)
            for _ in range(block.attempts):
                groups = [
                    ([everybody[p] for p in group if everybody[p] in self.members], len(group)) for group in places
                ]
                is_whole = yield from self._collective([(group, size) for group, size in groups if group], silent)
                if is_whole:
                    shares.append(sum(len(group) for group, _ in groups) / len(everybody))
                    for (group, _), place in zip(groups, places, strict=True):
                        if group:
                            self._groups.append(_group(group, [everybody[p] for p in place]))
                    break
                yield from self._begin_anew()
            silent = False  # known from now on
        self.covered = sum(shares) / len(shares) if shares else 0.0

    def _gossip(self, decode_s: float) -> Process:
        everybody, clock = list(self.members), self._engine.clock
        pairs = random_partners(range(len(everybody)), self._engine.streams.get("merge/pairs"))
        self._fall_silent()
        done = [clock.process(self._pair([everybody[place] for place in pair], decode_s)) for pair in pairs]
        yield clock.all_of(done)
        num_averaged: int = sum([process.value or 0 for process in done])
        self.covered = num_averaged / len(everybody)

    def _pair(self, pair: list[SimPeer], decode_s: float) -> Generator[simpy.Event, Any, int]:
        """Let two exchange; return how many have averaged."""
        awake = [peer for peer in pair if peer in self.members]
        if len(pair) == len(awake) == 2:
            is_whole = yield from self._collective([(awake, 2)])
            if is_whole:
                yield from self._finish(awake, decode_s, [_group(awake, awake)])
                return 2
        if len(pair) == 2:
            yield self._engine.clock.timeout(self._block.failure_timeout)
        self._done(awake)
        return 0

    # ---------------------------------------------------------------- the parts of it

    def _collective(
        self,
        groups: Sequence[tuple[list[SimPeer], int]],
        silent: bool = False,  # noqa: FBT001, FBT002
    ) -> Generator[simpy.Event, Any, bool]:
        """Let groups exchange, each within itself; return whether nobody of them left meanwhile.

        With each group stands how many it would be with those who are silent: the others do not know before
        `failure_timeout` that nothing will come, and of servers' parts theirs are missing.
        """
        engine = self._engine
        began_s, events, under_way = engine.clock.now, [], []
        for group, size in groups:
            done = engine.clock.event()
            num_bytes = self._bytes * len(group) / size if self._kind is ShardedServer else self._bytes
            under_way.append(self._kind(self._wire, [peer.index for peer in group], num_bytes, done.succeed))
            events.append(done)
        self._collectives += under_way
        all_done = engine.clock.all_of(events)
        concerned = [peer for group, _ in groups for peer in group]
        while not all_done.processed:
            yield all_done | self._broken
            if self.over or any(peer not in self.members for peer in concerned):
                for collective in under_way:
                    collective.abandon()
                return False
        if self.over:
            return False
        passed_s = engine.clock.now - began_s
        if silent and passed_s < self._block.failure_timeout:
            yield engine.clock.timeout(self._block.failure_timeout - passed_s)
        for (group, _), collective in zip(groups, under_way, strict=True):
            for peer in group:
                if peer.status == "merging":
                    peer.charge(tracing.CAUSE_MERGE_TRANSFER, engine.clock.now)
                self._record(peer, tracing.KIND_UPLOAD, began_s, collective.sent_bytes / len(group))
        return True

    def _compute(self, seconds: float, peers: Sequence[SimPeer]) -> Process:
        if seconds <= 0.0:
            return
        began_s = self._engine.clock.now
        yield self._engine.clock.timeout(seconds)
        for peer in peers:
            if peer.status == "merging" and not self.over:
                peer.charge(tracing.CAUSE_MERGE_COMPUTE, self._engine.clock.now)
                self._record(peer, tracing.KIND_AVERAGE, began_s, 0.0)

    def _finish(self, peers: Sequence[SimPeer], decode_s: float, groups: list[Group]) -> Process:
        """Decode and average, then be through."""
        peers = list(peers)
        yield from self._compute(decode_s + self._block.compute / self._block.fragments, peers)
        if self._engine.scribe is not None and peers and not self.over:
            self._engine.scribe.merges.exchanged(peers[0].stage, groups)
        self._done(peers)

    def _done(self, peers: Sequence[SimPeer]) -> None:
        for peer in peers:
            if peer in self.members and not self.over:
                self._through(peer)

    def _record(self, peer: SimPeer, kind: int, began_s: float, num_bytes: float) -> None:
        recording = self._engine.recording
        if recording.active:
            cause = tracing.CAUSE_MERGE_COMPUTE if kind == tracing.KIND_AVERAGE else tracing.CAUSE_MERGE_TRANSFER
            recording.merge(peer, kind, cause, num_bytes, (began_s, self._engine.clock.now))


def _group(members: list[SimPeer], places: Sequence[SimPeer]) -> Group:
    return [peer.index for peer in members], [places.index(peer) for peer in members], len(places)


def _kind_of(block: Merge) -> Make:
    if block.algorithm == "grouped":
        return ShardedServer
    if block.algorithm == "gossip" or (block.algorithm == "gather" and not block.through_storage):
        return AllToAll
    return ALGORITHMS[block.algorithm]


def draw_silent(engine: Engine, block: Merge, peers: Sequence[SimPeer]) -> list[SimPeer]:
    """Draw who falls silent, each with the chance `merge.failure`."""
    if block.failure <= 0.0:
        return []
    drawn = engine.streams.get("merge/failures").random(len(peers))
    return [peer for peer, value in zip(peers, drawn, strict=True) if value < block.failure]
