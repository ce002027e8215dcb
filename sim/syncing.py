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

AWAY = 1 << 62
"""The first step that a peer takes part in while its replica is not complete: none."""


@dataclass(slots=True, eq=False)
class _Member:
    """One peer: pieces it has released and not yet exchanged, and which step's exchange it waits for.

    It takes part from `joined_step` on; while its replica is halted, `next_step` is the step after the lost one.
    `life` tells what was released before the last loss from what came after.
    """

    peer: SimPeer
    joined_step: int = AWAY
    next_step: int = 0
    life: int = 0
    released: deque[Piece] = field(default_factory=deque)
    num_done: dict[int, int] = field(default_factory=dict)
    began_s: dict[int, float] = field(default_factory=dict)
    waits_for: int = -1
    num_backwards: dict[int, int] = field(default_factory=dict)

    def leave(self) -> None:
        """Drop everything under way, and take part no more until the replica has joined again."""
        if self.joined_step != AWAY:
            self.joined_step, self.next_step = AWAY, self.peer.policy.num_steps
        self.life += 1
        self.released.clear()
        self.num_done.clear()
        self.began_s.clear()
        self.num_backwards.clear()
        self.waits_for = -1


@dataclass(slots=True, eq=False)
class _Exchange:
    """One piece on its way between those who take part."""

    piece: Piece
    members: list[_Member]
    began_s: float
    collective: Collective | None = None
    abandoned: bool = False


class _Group:
    """The replicas of one stage, their exchange under way, and the step of the last one that began."""

    def __init__(self, members: list[_Member]) -> None:
        self.members = members
        self.exchange: _Exchange | None = None
        self.last_step = -1

    def next_piece(self) -> Piece | None:
        """Return the piece that everybody concerned has released, if there is one."""
        heads = [member.released[0] for member in self.members if member.released]
        if not heads:
            return None
        piece = min(heads)
        concerned = (member for member in self.members if member.joined_step <= piece[0])
        return piece if all(member.released for member in concerned) else None


class Syncing:
    """Runs the exchanges, one at a time per stage, and tells peers when they may do their optimizer step.

    An exchange begins when all replicas that are complete have released the piece. A replica that is lost leaves it,
    and the others begin it anew; one that comes back takes part from its first whole step on, at each stage from the
    first one whose exchange has not begun.
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
        self._pieces_per_chunk = engine.plan.pieces_per_chunk
        self._pieces = self._pieces_per_chunk * order.chunks_per_stage if self._by_gradient else 1
        self._compute_s = block.compute / self._pieces
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
            self._engine.clock.call_at(at_s, self._release_gradients, (member, member.life, piece))

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
            self._engine.fixed_batch.synced(peer, step, self._engine.clock.now)
        else:
            member.waits_for = awaited
        for kept in (member.num_done, member.began_s):
            for old in [known for known in kept if known < awaited]:
                del kept[old]

    def lost(self, replica: int) -> None:
        """A replica has left: it forgets what it had to exchange, and the others go on without it."""
        for group in self._groups:
            member = group.members[replica]
            member.leave()
            if group.exchange is not None and member in group.exchange.members:
                self._abandon(group)
            self._begin_if_complete(group)

    def joined(self, replica: int) -> None:
        """A replica is complete again: it goes on at the step that the furthest of the others is at."""
        members = self._member.values()
        at_work = [member.peer.policy.num_steps for member in members if member.joined_step != AWAY]
        step = max(at_work or [member.next_step for member in members])
        for group in self._groups:
            member = group.members[replica]
            member.peer.policy.num_steps = step
            member.joined_step = max(step, group.last_step + 1)
            if self._engine.scribe is not None:
                at_work_here = [each.peer for each in group.members if each is not member and each.joined_step != AWAY]
                self._engine.scribe.joined(member.peer, at_work_here)

    def reset(self) -> None:
        """The training phase ends for everybody."""
        for group in self._groups:
            for member in group.members:
                member.leave()
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

    def _release_gradients(self, what: tuple[_Member, int, Piece]) -> None:
        member, life, piece = what
        if member.life == life:
            self._release(member, piece)

    def _release(self, member: _Member, piece: Piece) -> None:
        if piece[0] >= member.joined_step:
            member.released.append(piece)
            self._begin_if_complete(self._groups[member.peer.stage])

    def _begin_if_complete(self, group: _Group) -> None:
        piece = None if group.exchange is not None else group.next_piece()
        if piece is None:
            return
        members = [member for member in group.members if member.released and member.released[0] == piece]
        group.last_step = piece[0]
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
        self._engine.clock.call_in(self._compute_s, self._settle, (group, exchange))

    def _settle(self, what: tuple[_Group, _Exchange]) -> None:
        """Everybody who took part has the result; the next exchange may begin."""
        group, exchange = what
        if exchange.abandoned:
            return
        self._count_bytes(exchange)
        group.exchange = None
        step = exchange.piece[0]
        self._write_down(step, [member.peer for member in exchange.members])
        for member in exchange.members:
            member.released.popleft()
            member.num_done[step] = member.num_done.get(step, 0) + 1
            if member.waits_for == step and self._is_through(member, step):
                member.waits_for = -1
                began_s = member.began_s.pop(step)
                self._engine.fixed_batch.synced(member.peer, member.peer.policy.num_steps, began_s)
        self._begin_if_complete(group)

    def _write_down(self, step: int, peers: list[SimPeer]) -> None:
        scribe, block = self._engine.scribe, self._block
        if scribe is not None and block.every == 1:
            scribe.merges.summed(peers)
        elif scribe is not None:
            turn = (step + 1) // (block.every // block.fragments) - 1
            scribe.merges.averaged(peers, turn % block.fragments, block.fragments)

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
