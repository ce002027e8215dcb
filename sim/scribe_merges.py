"""What a scribe writes down of merges and syncs: who has whose weights or gradients now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orionbed.script import Line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from orionbed.script import Write
    from sim.engine import Engine
    from sim.peer import SimPeer

Group = tuple[list[int], list[int], int]
"""Peers that have merged, the place of each in its group, and how many places that has."""


class MergeScribe:
    """Writes lines for merges of stages, and for replicas with a fixed batch that agree.

    `work` counts the micro-batches that each peer has contributed since the last merge; `step` writes a step down.
    """

    def __init__(self, engine: Engine, write: Write, work: list[int], step: Callable[[int], None]) -> None:
        self._engine = engine
        self._write = write
        self._work = work
        self._step = step
        merge = engine.plan.scenario.merge
        self._outer = not isinstance(merge, str) and merge.outer == "nesterov"
        self._fragments = 1 if isinstance(merge, str) else merge.fragments
        self._merge = -1
        # Peers whose work of this phase does not count.
        self._discarded: set[int] = set()
        # Peers of replicas that came back to others and have yet to agree with them.
        self.strange: set[int] = set()
        # Peers that have done the step that is due, by an exchange that comes after it.
        self.stepped_early: set[int] = set()

    def lost(self, index: int) -> None:
        """A peer is taken away."""
        self._discarded.discard(index)
        self.strange.discard(index)

    def discards(self, index: int) -> None:
        """What a peer has learnt in the phase that ends does not count: its optimizer was warming up."""
        self._discarded.add(index)

    # ---------------------------------------------------------------- merges

    def begins(self) -> None:
        """A merge begins: those whose work does not count have the weights of the last one."""
        self._merge += 1
        for index in sorted(self._discarded):
            self.as_last_merged(self._engine.peers[index].stage, [index])
        self._discarded.clear()

    def merged(self, stage: int, members: Sequence[int], takers: Sequence[int], slices: Sequence[bool]) -> None:
        """Members have merged the slices that are true, and takers have or will have all before they train."""
        if all(slices):
            self._slice(stage, members, takers, 0, 1)
        else:
            for part, is_merged in enumerate(slices):
                self._slice(stage, members if is_merged else (), takers, part, len(slices))
        self._have_taken(takers)

    def exchanged(self, stage: int, groups: Sequence[Group]) -> None:
        """The peers of each group have merged the slices of those who are in it; rounds follow one another."""
        for members, places, size in groups:
            if len(members) == size:
                self._slice(stage, members, members, 0, 1)
            else:  # slices of those who fell silent stay with everybody as they are
                for place in places:
                    self._slice(stage, members, members, place, size)
            both = sum(self._work[index] for index in members)
            for index in members:
                self._work[index] = both  # what its weights stand for in the next round
        self._have_taken({index for members, _, _ in groups for index in members})

    def as_last_merged(self, stage: int, takers: Sequence[int]) -> None:
        """Takers go on with the stage's weights as the last merge left them."""
        self._line(stage, (), takers, (), (0, 1), -1)
        self._have_taken(takers)

    def _slice(self, stage: int, members: Sequence[int], takers: Sequence[int], part: int, parts: int) -> None:
        """Write down a slice of the fragment whose turn it is."""
        number = self._merge // self._fragments if self._outer and members else -1
        part += self._merge % self._fragments * parts
        works = [self._work[index] for index in members]
        self._line(stage, members, takers, works, (part, parts * self._fragments), number)

    def _have_taken(self, takers: Iterable[int]) -> None:
        """Count anew what peers contribute to the next merge."""
        for index in takers:
            self._work[index] = 0

    def _line(  # noqa: PLR0917
        self,
        stage: int,
        members: Sequence[int],
        takers: Sequence[int],
        works: Sequence[int],
        part: tuple[int, int],
        number: int,
    ) -> None:
        if not members and not takers:  # all of the stage are gone
            return
        now, chunk = self._engine.clock.now, self._engine.plan.chunks_of(stage)[0]
        lists = (tuple(members), tuple(works), tuple(takers))
        self._write(Line(now, "MERGE", -1, chunk, -1, -1, number, *lists, *part))

    # ---------------------------------------------------------------- syncs

    def summed(self, members: Sequence[SimPeer]) -> None:
        """Replicas have added up their gradients; who came back among them has the weights of the others."""
        indices = [peer.index for peer in members]
        if len(indices) < 2:
            return
        stage = members[0].stage
        known = [index for index in indices if index not in self.strange] or indices
        newcomers = [index for index in indices if index in self.strange and index != known[0]]
        if newcomers:
            self._line(stage, known[:1], newcomers, (1,), (0, 1), -1)
        self.strange.difference_update(indices)
        chunk = self._engine.plan.chunks_of(stage)[0]
        self._write(Line(self._engine.clock.now, "SUM", -1, chunk, others=tuple(indices)))

    def averaged(self, members: Sequence[SimPeer], part: int, parts: int) -> None:
        """Replicas that step by themselves have averaged a slice of their weights, after the step that is due now."""
        indices = [peer.index for peer in members]
        for index in indices:
            self._step(index)
            self.stepped_early.add(index)
        if len(indices) > 1:
            self._line(members[0].stage, indices, indices, (1,) * len(indices), (part, parts), -1)
