"""The scribe writes down what a run does to weights, line by line as it happens: see `orionbed.script`.

It follows the run and decides nothing. A line is written when its operation ends; what ends in vain has none. A
micro-batch that is begun again has the number that it was created with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from orionbed.ledger import ATTEMPT_BITS
from orionbed.schedule.queue_driven import QueueDrivenPolicy
from orionbed.script import Line
from sim.scribe_merges import MergeScribe

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from orionbed.ledger import MicrobatchRecord
    from orionbed.schedule.actions import Action
    from orionbed.script import Write
    from sim.engine import Engine
    from sim.peer import SimPeer

_NUMBER: Final = (1 << ATTEMPT_BITS) - 1


class _Microbatch:
    """Who keeps its forward, who sent whom its gradient last, and whose weights stood in for a lost peer's copy.

    It is void when nobody had weights to make its first gradient with.
    """

    __slots__ = ("gradient_from", "is_void", "kept", "stand_in")

    def __init__(self) -> None:
        self.kept: set[int] = set()
        self.gradient_from: dict[int, int] = {}
        self.stand_in: dict[int, int] = {}
        self.is_void = False


class Scribe:
    """What the engine and those around it tell, in the order in which it happens."""

    def __init__(self, engine: Engine, write: Write) -> None:
        self._engine = engine
        self._write = write
        plan = engine.plan
        self._replicas = plan.num_replicas
        self._stage_of = plan.stage_of
        self._first_chunk = [plan.chunks_of(stage.index)[0] for stage in plan.stages]
        self._last_chunk = plan.num_chunks - 1
        self._open: dict[int, _Microbatch] = {}
        self._accumulated: list[set[int]] = [set() for _ in plan.peers]
        # Micro-batches that each peer's weights have taken in since the last merge.
        self._work = [0] * len(plan.peers)
        # Steps of peers with a fixed batch since all of their replica were at the same one.
        self._num_steps = [0] * len(plan.peers)
        # Whose weights each peer holds, and who needs others before it may train.
        self._holds = [peer.stage for peer in plan.peers]
        self._lost: set[int] = set()
        self._from_disk: set[int] = set()
        self._rebuilt: dict[int, list[int]] = {}
        self._donors: dict[int, int] = {}
        # Replicas with a fixed batch that have been halted since the training phase began.
        self._halted: set[int] = set()
        self._has_merges = not isinstance(plan.scenario.merge, str)
        self.merges = MergeScribe(engine, write, self._work, self._step)
        self.num_flush_steps = 0

    def _line(self, does: str, peer: int, chunk: int = -1, microbatch: int = -1, source: int = -1) -> None:
        self._write(Line(self._engine.clock.now, does, peer, chunk, microbatch, source))

    # ---------------------------------------------------------------- operations

    def finished(self, peer: SimPeer, action: Action, record: MicrobatchRecord) -> None:
        """`peer` has finished a forward or a backward of an open micro-batch, and is about to hand on the result."""
        if peer.numbering is not None:
            self._finished_fixed(peer, action)
            return
        kind, chunk, number = action
        index, short = peer.index, number & _NUMBER
        if short not in self._open:
            self._open[short] = _Microbatch()
        microbatch = self._open[short]
        if kind == "F":
            self._forward(peer, chunk, number, microbatch)
            return
        if chunk == self._last_chunk:
            self._line("B", index, chunk, short, self._source(peer, number, microbatch))
        else:
            if index not in microbatch.kept:  # it does the forward again within the backward
                self._forward(peer, chunk, number, microbatch)
            source = microbatch.gradient_from.pop(index, -1)
            if (number, index) in self._engine.recovery.taken_over:
                used = bool(record.used >> (chunk + 1) & 1)
                source = self._backward_of_copy(peer, chunk + 1, short, source, used=used)
            microbatch.kept.discard(index)
            microbatch.is_void |= source < 0
            if microbatch.is_void:
                self._line("FORGET", index, microbatch=short)
                return
            self._line("B", index, chunk, short, source)
        if record.used >> chunk & 1:
            self._line("UNUSED", index, chunk, short)
        else:
            self._accumulated[index].add(short)

    def _source(self, peer: SimPeer, number: int, microbatch: _Microbatch) -> int:
        policy = peer.policy
        assert isinstance(policy, QueueDrivenPolicy)
        source = policy.came_from(number)
        return microbatch.stand_in.get(source, source)

    def _forward(self, peer: SimPeer, chunk: int, number: int, microbatch: _Microbatch) -> None:
        self._line("F", peer.index, chunk, number & _NUMBER, self._source(peer, number, microbatch))
        microbatch.kept.add(peer.index)

    def _finished_fixed(self, peer: SimPeer, action: Action) -> None:
        kind, chunk, number = action
        assert peer.numbering is not None
        short = peer.numbering[number]
        source = -1
        if kind == "F" and chunk > 0:
            source = self._stage_of[chunk - 1] * self._replicas + peer.replica
        elif kind in {"B", "I"} and chunk < self._last_chunk:
            source = self._stage_of[chunk + 1] * self._replicas + peer.replica
        self._line(kind, peer.index, chunk, short, source)
        if kind in {"B", "W"}:
            self._accumulated[peer.index].add(short)

    def stepped(self, peer: SimPeer) -> None:
        """`peer` has finished an optimizer step."""
        if peer.index in self.merges.stepped_early:
            self.merges.stepped_early.discard(peer.index)
        else:
            self._step(peer.index)

    def _step(self, index: int) -> None:
        accumulated = self._accumulated[index]
        self._write(Line(self._engine.clock.now, "STEP", index, number=len(accumulated)))
        self._work[index] += len(accumulated)
        self._num_steps[index] += 1
        accumulated.clear()

    # ---------------------------------------------------------------- messages and micro-batches

    def got_gradient(self, peer: SimPeer, number: int, source: int) -> None:
        """The gradient of a micro-batch that `peer` will use comes from `source`."""
        microbatch = self._open.get(number & _NUMBER)
        if microbatch is not None:
            microbatch.gradient_from[peer.index] = source

    def over(self, number: int) -> None:
        """A micro-batch is applied or given up: nobody does anything more with it."""
        microbatch = self._open.pop(number & _NUMBER, None)
        if microbatch is not None:
            for index in sorted(microbatch.kept):
                self._line("FORGET", index, microbatch=number & _NUMBER)

    def begun_again(self, number: int, stage: int) -> None:
        """A micro-batch begins again at `stage`: what is kept of it there and behind is of no use."""
        microbatch = self._open.get(number & _NUMBER)
        if microbatch is None:
            return
        for index in sorted(microbatch.kept):
            if self._engine.peers[index].stage >= stage:
                self._line("FORGET", index, microbatch=number & _NUMBER)
                microbatch.kept.discard(index)
                microbatch.gradient_from.pop(index, None)

    # ---------------------------------------------------------------- copies of a lost peer's layers

    def passed_by_copy(self, before: SimPeer, stage: int, number: int) -> None:
        """`before` hands on what its copy of the lost stage's layers made of a micro-batch."""
        short = number & _NUMBER
        microbatch, holder = self._open[short], self._holder(stage)
        if holder < 0 or stage == self._last_chunk:
            return
        self._line("F", holder, stage, short, before.index)
        self._line("FORGET", holder, microbatch=short)
        microbatch.stand_in[before.index] = holder

    def _backward_of_copy(self, before: SimPeer, stage: int, short: int, source: int, *, used: bool) -> int:
        """Write the lost stage's backward down; return whose gradient goes on to the stage before.

        Where nobody has weights for it, the gradient goes past the stage; if it is the last one there is none, and
        -1 is returned.
        """
        holder = self._holder(stage)
        if holder < 0:
            return source if stage < self._last_chunk else -1
        if stage < self._last_chunk:
            self._line("F", holder, stage, short, before.index)
        self._line("B", holder, stage, short, before.index if stage == self._last_chunk else source)
        if used or self._engine.peers[holder].status != "training":
            self._line("UNUSED", holder, stage, short)
        else:
            self._accumulated[holder].add(short)
        return holder

    def _holder(self, stage: int) -> int:
        """Return a peer with weights of a stage, if possible one that trains; -1 if there is none."""
        peers = self._engine.peers
        there = [index for index, held in enumerate(self._holds) if held == stage]
        return min(there, key=lambda index: (peers[index].status != "training", index), default=-1)

    # ---------------------------------------------------------------- losses, and ends of training phases

    def lost(self, peer: SimPeer) -> None:
        """`peer` is taken away with all it holds."""
        self._lost.add(peer.index)
        self._from_disk.discard(peer.index)
        self._donors.pop(peer.index, None)
        self.merges.lost(peer.index)
        self.reset([peer])

    def reset(self, peers: Iterable[SimPeer]) -> None:
        """Let peers drop all they keep, and what they have accumulated."""
        for peer in peers:
            self._line("RESET", peer.index)
            self._forget_all(peer.index)

    def _forget_all(self, index: int) -> None:
        self._accumulated[index].clear()
        self.merges.stepped_early.discard(index)
        for microbatch in self._open.values():
            microbatch.kept.discard(index)
            microbatch.gradient_from.pop(index, None)

    def flush(self, training: Sequence[SimPeer]) -> None:
        """The training phase ends: gradients at hand become a last step, or with a fixed batch steps are given up."""
        if self._engine.is_queue_driven:
            for peer in training:
                if self._accumulated[peer.index]:
                    self.num_flush_steps += 1
                    self._step(peer.index)
            return
        for replica in range(self._replicas):
            self.give_up_step([peer for peer in self._engine.peers if peer.replica == replica])
        self._halted.clear()
        self.merges.strange.clear()

    def give_up_step(self, members: Sequence[SimPeer]) -> None:
        """The peers of a replica with a fixed batch go back to the last step that all of them have done."""
        low = min(self._num_steps[peer.index] for peer in members)
        for peer in members:
            undone = self._num_steps[peer.index] - low
            self._num_steps[peer.index] = 0
            self._forget_all(peer.index)
            if undone or peer.index not in self._lost:
                self._write(Line(self._engine.clock.now, "UNDO", peer.index, number=undone))
        self._halted.add(members[0].replica)

    # ---------------------------------------------------------------- weights of others

    def restores(self, peer: SimPeer) -> None:
        """`peer` is back with what it had on its disk."""
        self._from_disk.add(peer.index)

    def rebuilds(self, peer: SimPeer, sources: Iterable[SimPeer]) -> None:
        """`peer` makes its weights anew from those of the stages beside its own."""
        self._rebuilt[peer.index] = [source.index for source in sources]

    def has_state_of(self, peer: SimPeer, donor: SimPeer) -> None:
        """`peer` has been given `donor`'s optimizer state."""
        self._donors[peer.index] = donor.index

    def begins(self, peer: SimPeer) -> None:
        """`peer` is about to join the training; if it comes from elsewhere, it has its stage's weights by now."""
        if peer.status != "benched":
            return
        index, stage = peer.index, peer.stage
        if index not in self._lost and self._holds[index] == stage:
            self.merges.as_last_merged(stage, [index])
            return
        donor = self._donors.pop(index, -1)
        beside = [other for other in self._rebuilt.pop(index, []) if abs(self._holds[other] - stage) == 1]
        source, with_state = (donor, True) if donor >= 0 else self._weights_for(peer)
        self._adopt(index, stage, source, with_state=with_state, beside=beside)
        if donor >= 0:
            self.merges.as_last_merged(stage, [index])
        self._lost.discard(index)

    def _weights_for(self, peer: SimPeer) -> tuple[int, bool]:
        """Return whose weights a peer has that comes back, and whether the optimizer's memory with them."""
        index, is_own = peer.index, self._holds[peer.index] == peer.stage
        if is_own and (index in self._from_disk or not (self._has_merges or self._engine.is_queue_driven)):
            self._from_disk.discard(index)
            return index, True
        if self._has_merges:
            return -1, False
        there = [p.index for p in self._engine.peers if p.stage == peer.stage and p.status == "training"]
        if there:
            return there[0], False
        return (index if is_own else self._holder(peer.stage)), False

    def _adopt(self, index: int, stage: int, source: int, *, with_state: bool, beside: Sequence[int] = ()) -> None:
        self._forget_all(index)
        self._work[index] = 0
        self._num_steps[index] = 0
        self._holds[index] = stage
        now, chunk = self._engine.clock.now, self._first_chunk[stage]
        self._write(Line(now, "ADOPT", index, chunk, -1, source, others=tuple(beside), with_state=with_state))

    def joined(self, peer: SimPeer, others: Sequence[SimPeer]) -> None:
        """The replica of `peer` is complete again, and goes on with `others` of its stage."""
        if others and peer.replica in self._halted:
            self._adopt(peer.index, peer.stage, others[0].index, with_state=True)
            self.merges.strange.add(peer.index)
