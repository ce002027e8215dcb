"""Going past the lost stage: the peer before it and the peer behind it deal with one another.

With `neighbour` (Bamboo) the peer before holds the lost stage's layers too. It has done their forward on top of its own
all along, so it hands on the result, and does their backward besides its own. With `skip-stage` (SkipPipe) nobody does
either: the micro-batch goes past the stage, and is counted as one with a skipped stage. Peers keep what they have sent
until the gradient is through. Two lost neighbours are too many: the micro-batch is given up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, NamedTuple

from orionbed.policies import durations_of, redundant_forward_s
from orionbed.schedule.actions import Action
from sim.recovery.dropping import Recovery
from sim.recovery.inventory import Held, State, inventory

if TYPE_CHECKING:
    from orionbed.ledger import MicrobatchRecord
    from sim.engine import Engine
    from sim.peer import SimPeer
    from sim.recovery.dropping import SendForward
    from sim.transfer import Transfer

TOO_MANY = "neighbours lost"


class Gap(NamedTuple):
    """A micro-batch that has to get past a lost stage, and who is before it; known from `known_s` on."""

    number: int
    stage: int
    upstream: int
    known_s: float


class Bypass(Recovery):
    """What `neighbour` and `skip-stage` have in common."""

    may_be_void: ClassVar[bool] = True
    keeps_gradients: ClassVar[bool] = True

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._last_stage = engine.plan.num_stages - 1
        # Forward, handed on before the loss: by (micro-batch, lost peer), until the gradient comes.
        self._gaps: dict[tuple[int, int], Gap] = {}
        # On the point of getting past it.
        self._passing: dict[int, Gap] = {}

    # ---------------------------------------------------------------- a peer is lost

    def lost(self, peer: SimPeer, action: Action | None, cut_off: list[Transfer]) -> None:
        """Get everything past the lost peer that can."""
        held = inventory(peer, action, cut_off, self.engine.ledger)
        peer.policy.restart()
        for record in self.engine.ledger.open.values():
            for stage in [stage for stage, index in record.gradients.items() if index == peer.index]:
                del record.gradients[stage]
        self._lose_gaps(peer)
        for each in held:
            if each.number in self.engine.ledger.open:
                self._lose(peer, each)

    def _lose_gaps(self, peer: SimPeer) -> None:
        """Give up what the lost peer was about to get past another one."""
        for gap in [*self._gaps.values(), *self._passing.values()]:
            if gap.upstream == peer.index:
                self._give_up(gap.number, peer)

    def _lose(self, peer: SimPeer, held: Held) -> None:
        number, upstream, state = held
        if upstream < 0:
            self._give_up(number, peer, "peer lost")
            return
        before = self.engine.peers[upstream]
        is_there = before.status == "training" and before.policy.holds(number)
        if not is_there or not self.can_pass(peer, before, number):
            self._give_up(number, peer)
            return
        gap = Gap(number, peer.stage, upstream, self.engine.clock.now + self.block.detect)
        gradient = self._gradient_behind(gap) is not None
        if state is State.BEYOND and not gradient:
            self._gaps[number, peer.index] = gap
        elif state is State.GRADIENT and not gradient and peer.stage < self._last_stage:
            self._give_up(number, peer)
        else:
            self._passing[number] = gap
            self.engine.clock.call_at(gap.known_s, self._pass_back if gradient else self._pass_on, gap)

    def can_pass(self, peer: SimPeer, before: SimPeer, number: int) -> bool:
        """Whether `before` can get a micro-batch past the lost `peer`."""
        raise NotImplementedError

    def _give_up(self, number: int, peer: SimPeer, reason: str = TOO_MANY) -> None:
        self.give_up(number, reason, by=peer)
        self._forget(number)

    def _forget(self, number: int) -> None:
        self._passing.pop(number, None)
        for key in [key for key in self._gaps if key[0] == number]:
            del self._gaps[key]
        for key in [key for key in self.taken_over if key[0] == number]:
            del self.taken_over[key]

    # ---------------------------------------------------------------- getting past

    def _is_current(self, gap: Gap) -> bool:
        return self._passing.get(gap.number) is gap and gap.number in self.engine.ledger.open

    def _gradient_behind(self, gap: Gap) -> SimPeer | None:
        """Return the peer that keeps the gradient of the next stage that was not skipped."""
        record = self.engine.ledger.open[gap.number]
        stage = gap.stage + 1
        while record.skipped >> stage & 1:
            stage += 1
        index = record.gradients.get(stage)
        return None if index is None else self.engine.peers[index]

    def _pass_on(self, gap: Gap) -> None:
        """Hand the activation on to the stage behind the lost one."""
        if not self._is_current(gap):
            return
        engine = self.engine
        before = engine.peers[gap.upstream]
        if gap.stage == self._last_stage:
            self._finish(gap, before)
            return
        record = engine.ledger.open[gap.number]
        index = before.policy.route(Action("F", gap.stage, gap.number), engine.status.views[gap.stage + 1])
        if index is not None and engine.peers[index].status == "training":
            self._passed(gap, before, record)
            engine.send("F", gap.number, 0, before, engine.peers[index])
            return
        record.attempts += 1
        if engine.handing_on.gives_up(record):
            self._give_up(gap.number, before, "no peer to send to")
        else:
            engine.clock.call_in(self.connect_timeout_s, self._pass_on, gap)

    def _finish(self, gap: Gap, before: SimPeer) -> None:
        """The lost stage was the last one."""
        self._passed(gap, before, self.engine.ledger.open[gap.number])
        before.policy.on_message("B", gap.number, -1)
        self.engine.wake_if_ready(before)

    def _pass_back(self, gap: Gap) -> None:
        """Give the gradient to the stage before the lost one."""
        if not self._is_current(gap):
            return
        engine = self.engine
        keeper = self._gradient_behind(gap)
        if keeper is None:
            self._give_up(gap.number, engine.peers[gap.upstream])
            return
        before = engine.peers[gap.upstream]
        self._passed(gap, before, engine.ledger.open[gap.number])
        engine.send("B", gap.number, 0, keeper, before)

    def _passed(self, gap: Gap, before: SimPeer, record: MicrobatchRecord) -> None:
        del self._passing[gap.number]
        self.passed(gap, before, record)

    def passed(self, gap: Gap, before: SimPeer, record: MicrobatchRecord) -> None:
        """`before` has just got a micro-batch past the lost stage."""
        raise NotImplementedError

    # ---------------------------------------------------------------- what peers run into

    def sender_lost(self, peer: SimPeer, number: int) -> None:
        """What looked handed on was not: the peer before does it."""
        gap = self._gaps.pop((number, peer.index), None)
        if gap is not None:
            self._passing[number] = gap
            self.engine.clock.call_at(max(self.engine.clock.now, gap.known_s), self._pass_on, gap)
        elif number not in self._passing:
            super().sender_lost(peer, number)

    def no_way_back(self, holder: SimPeer, number: int, target: SimPeer) -> None:
        """The gradient has come to the gap."""
        gap = self._gaps.pop((number, target.index), None)
        if gap is not None and number in self.engine.ledger.open:
            self._passing[number] = gap
            self.engine.clock.call_at(max(self.engine.clock.now, gap.known_s), self._pass_back, gap)
        elif number not in self._passing:
            super().no_way_back(holder, number, target)

    def before_merge(self) -> None:
        """Forget all gaps."""
        self._gaps.clear()
        self._passing.clear()
        self.taken_over.clear()


class SkipStage(Bypass):
    """The policy `skip-stage`: never for the first stage, which has the data, or the last, which has the loss."""

    def can_pass(self, peer: SimPeer, before: SimPeer, number: int) -> bool:  # noqa: ARG002
        """Whether the stage can be skipped."""
        return peer.stage < self._last_stage

    def passed(self, gap: Gap, before: SimPeer, record: MicrobatchRecord) -> None:  # noqa: ARG002
        """Note the skipped stage; whether it counts as one is known at the end."""
        record.skipped |= 1 << gap.stage

    def unreachable(self, peer: SimPeer, number: int) -> None:
        """Nobody is there in the next stage: go past it."""
        stage = peer.stage + 1
        if stage >= self._last_stage:
            super().unreachable(peer, number)
            return
        self.engine.ledger.open[number].attempts = 1
        gap = self._passing[number] = Gap(number, stage, peer.index, self.engine.clock.now)
        self._pass_on(gap)


class Neighbour(Bypass):
    """The policy `neighbour`."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        plan = engine.plan
        # Share of a forward's time that is the redundant forward of the next stage.
        self._share = [
            redundant_forward_s(plan, stage) / durations_of(plan, stage, 1.0)[stage]["F"]
            for stage in range(plan.num_stages - 1)
        ]

    def can_pass(self, peer: SimPeer, before: SimPeer, number: int) -> bool:
        """Only the very stage before holds the layers, and not when it does others' work on this one already."""
        return before.stage == peer.stage - 1 and (number, peer.index) not in self.taken_over

    def passed(self, gap: Gap, before: SimPeer, record: MicrobatchRecord) -> None:
        """From now on the peer before does the lost stage's backward too."""
        record.attempts += 1
        self.counts["taken_over"] += 1
        durations = durations_of(self.engine.plan, gap.stage, before.plan.speed, before.plan.hardware)
        self.taken_over[gap.number, before.index] = durations[gap.stage]["B"]
        if self.engine.scribe is not None and self._gradient_behind(gap) is None:
            self.engine.scribe.passed_by_copy(before, gap.stage, gap.number)

    def used_for_lost(self, peer: SimPeer, number: int, record: MicrobatchRecord) -> None:
        """The peer before used the gradient for the lost stage too, unless that had used it before it was lost."""
        lost_s = self.taken_over.pop((number, peer.index), None)
        if lost_s is None:
            return
        if not record.used >> (peer.stage + 1) & 1:
            record.use(peer.stage + 1)
            return
        self.engine.ledger.duplicated += 1
        self._throw_away_last(peer, record, lost_s)

    def after_forward(self, send: SendForward) -> SendForward:
        """Count the redundant part of every forward as thrown away."""

        def hand_on(peer: SimPeer, number: int, record: MicrobatchRecord) -> None:
            extra_s = self._share[peer.stage] * record.spent[-1][-1]
            self._throw_away_last(peer, record, extra_s)
            self.extra_compute_s += extra_s
            send(peer, number, record)

        return hand_on

    def _throw_away_last(self, peer: SimPeer, record: MicrobatchRecord, lost_s: float) -> None:
        """Count so much of what the peer has just done as thrown away."""
        index, kind, chunk, number, seconds = record.spent[-1]
        record.spent[-1] = (index, kind, chunk, number, seconds - lost_s)
        peer.thrown_s[kind] += lost_s
