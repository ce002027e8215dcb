"""Data parallelism of schedules with a fixed batch: when the replicas of a stage exchange what, and who waits."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from orionbed.schedule.policy import Waiting
from sim.collectives import ALGORITHMS, Collective

if TYPE_CHECKING:
    from orionbed.scenario.sections import Sync
    from orionbed.schedule.actions import Action
    from sim.engine import Engine
    from sim.peer import SimPeer

Piece = tuple[int, int]
"""Step, and number of the piece within it."""


@dataclass(slots=True)
class _Member:
    """One peer: pieces it has released and not yet exchanged, and which step's exchange it waits for."""

    peer: SimPeer
    joined_step: int = 0
    released: deque[Piece] = field(default_factory=deque)
    num_done: dict[int, int] = field(default_factory=dict)
    began_s: dict[int, float] = field(default_factory=dict)
    waits_for: int = -1
    num_backwards: dict[int, int] = field(default_factory=dict)

    def forget(self) -> None:
        """Drop everything under way."""
        self.released.clear()
        self.num_done.clear()
        self.began_s.clear()
        self.num_backwards.clear()
        self.waits_for = -1


@dataclass(slots=True)
class _Exchange:
    """One piece on its way between those who take part."""

    piece: Piece
    members: list[_Member]
    began_s: float
    collective: Collective | None = None
    abandoned: bool = False


class _Group:
    """The replicas of one stage, and their exchange under way."""

    def __init__(self, members: list[_Member]) -> None:
        self.members = members
        self.exchange: _Exchange | None = None

    def next_piece(self) -> Piece | None:
        """Return the piece that everybody concerned has released, if there is one."""
        present = [member for member in self.members if member.peer.status == "training"]
        heads = [member.released[0] for member in present if member.released]
        if not heads:
            return None
        piece = min(heads)
        concerned = (member for member in present if member.joined_step <= piece[0])
        return piece if all(member.released for member in concerned) else None


class Syncing:
    """Runs the exchanges, one at a time per stage, and tells peers when they may do their optimizer step.

    An exchange begins when all replicas that are in training have released the piece. A replica that is lost leaves it,
    and the others begin it anew; one that comes back takes part from its first whole step on.
    """

    def __init__(self, engine: Engine, block: Sync) -> None:
        self._engine = engine
        self._block = block
        self._by_gradient = block.overlap and block.every == 1
        self._groups = [
            _Group([_Member(peer) for peer in engine.peers if peer.stage == stage])
            for stage in range(engine.plan.num_stages)
        ]
        self._member = {member.peer.index: member for group in self._groups for member in group.members}
        order = engine.plan.order
        assert order is not None
        self._num_microbatches = order.num_microbatches
        self._pieces_per_chunk = max(1, block.buckets // order.chunks_per_stage)
        self._pieces = self._pieces_per_chunk * order.chunks_per_stage if self._by_gradient else 1
        for peer in engine.peers:
            peer.sync_compute_s = block.compute
        self.num_exchanges = 0
        self.exchange_s = 0.0
        self.bytes_sent = 0.0

    # ---------------------------------------------------------------- what peers do

    def begun(self, peer: SimPeer, action: Action, start_s: float, duration_s: float) -> None:
        """A peer has begun an operation: the last backward of a chunk releases its gradients piece by piece."""
        if not self._by_gradient or action.kind not in {"B", "W"}:
            return
        member = self._member[peer.index]
        counts = member.num_backwards
        counts[action.chunk] = counts.get(action.chunk, 0) + 1
        if counts[action.chunk] < self._num_microbatches:
            return
        first = self._pieces_per_chunk * (sum(count == self._num_microbatches for count in counts.values()) - 1)
        for number in range(self._pieces_per_chunk):
            at_s = start_s + duration_s * (number + 1) / self._pieces_per_chunk
            piece = (peer.policy.num_steps, first + number)
            self._engine.clock.call_at(at_s, self._release_gradients, (member, piece))

    def finished(self, peer: SimPeer) -> None:
        """A peer has finished an operation: after the last one of the step it exchanges what is due, or may go on."""
        if peer.policy.waiting is not Waiting.SYNC:
            return
        member, step, block = self._member[peer.index], peer.policy.num_steps, self._block
        member.num_backwards.clear()
        if not self._by_gradient and self._is_due(step):
            self._release(member, (step, 0))
        awaited = step - block.behind if block.overlap and not self._by_gradient else step
        if awaited < member.joined_step or not self._is_due(awaited) or self._is_through(member, awaited):
            self._engine.synced(peer, step, self._engine.clock.now)
        else:
            member.waits_for = awaited
        for kept in (member.num_done, member.began_s):
            for old in [known for known in kept if known < awaited]:
                del kept[old]

    def lost(self, replica: int) -> None:
        """A replica has left: it forgets what it had to exchange, and the others go on without it."""
        for group in self._groups:
            member = group.members[replica]
            member.forget()
            if group.exchange is not None and member in group.exchange.members:
                self._abandon(group)
            self._begin_if_complete(group)

    def joined(self, replica: int) -> None:
        """A replica is complete again: it goes on at the step that the furthest of the others is at."""
        step = max(member.peer.policy.num_steps for member in self._member.values())
        for group in self._groups:
            member = group.members[replica]
            member.forget()
            member.joined_step = member.peer.policy.num_steps = step

    def reset(self) -> None:
        """The training phase ends for everybody."""
        for group in self._groups:
            for member in group.members:
                member.forget()
            if group.exchange is not None:
                self._abandon(group)

    # ---------------------------------------------------------------- exchanges

    def _is_due(self, step: int) -> bool:
        """Whether a sync follows `step`; with fragments each takes its turn."""
        return (step + 1) % (self._block.every // self._block.fragments) == 0

    def _is_through(self, member: _Member, step: int) -> bool:
        return member.num_done.get(step, 0) == self._pieces

    def piece_bytes(self, stage: int) -> float:
        """Bytes that one peer of a stage contributes to one exchange."""
        parts = self._pieces if self._by_gradient else self._block.fragments
        return self._engine.plan.stages[stage].parameters * self._block.bits / 8.0 / parts

    def _release_gradients(self, what: tuple[_Member, Piece]) -> None:
        member, piece = what
        if member.peer.policy.num_steps == piece[0] and member.peer.status == "training":
            self._release(member, piece)

    def _release(self, member: _Member, piece: Piece) -> None:
        member.released.append(piece)
        self._begin_if_complete(self._groups[member.peer.stage])

    def _begin_if_complete(self, group: _Group) -> None:
        piece = None if group.exchange is not None else group.next_piece()
        if piece is None:
            return
        members = [m for m in group.members if m.peer.status == "training" and m.released and m.released[0] == piece]
        exchange = group.exchange = _Exchange(piece, members, self._engine.clock.now)
        for member in members:
            member.began_s.setdefault(piece[0], exchange.began_s)
        self._engine.clock.call_in(0.0, self._start, (group, exchange))

    def _start(self, what: tuple[_Group, _Exchange]) -> None:
        group, exchange = what
        if exchange.abandoned:
            return
        peers = [member.peer.index for member in exchange.members]
        exchange.collective = ALGORITHMS[self._block.algorithm](
            self._engine.network, peers, self.piece_bytes(exchange.members[0].peer.stage),
            lambda: self._exchanged(group, exchange),
        )  # fmt: skip

    def _exchanged(self, group: _Group, exchange: _Exchange) -> None:
        self.num_exchanges += 1
        self.exchange_s += self._engine.clock.now - exchange.began_s
        self._engine.clock.call_in(self._block.compute, self._settle, (group, exchange))

    def _settle(self, what: tuple[_Group, _Exchange]) -> None:
        """Everybody who took part has the result; the next exchange may begin."""
        group, exchange = what
        if exchange.abandoned:
            return
        self._count_bytes(exchange)
        group.exchange = None
        step = exchange.piece[0]
        for member in exchange.members:
            member.released.popleft()
            member.num_done[step] = member.num_done.get(step, 0) + 1
            if member.waits_for == step and self._is_through(member, step):
                member.waits_for = -1
                began_s = member.began_s.pop(step)
                self._engine.synced(member.peer, member.peer.policy.num_steps, began_s)
        self._begin_if_complete(group)

    def _abandon(self, group: _Group) -> None:
        exchange = group.exchange
        assert exchange is not None
        exchange.abandoned = True
        if exchange.collective is not None:
            exchange.collective.abandon()
            self._count_bytes(exchange)
        group.exchange = None

    def _count_bytes(self, exchange: _Exchange) -> None:
        if exchange.collective is not None:
            self.bytes_sent += exchange.collective.sent_bytes
