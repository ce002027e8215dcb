"""SWARM's rule: the peer before the lost one keeps its input and sends it again, and all goes on from there.

The new attempt has a number of its own. When it begins, queues and slots of the old one are cleared from the lost stage
on; what is just being computed or sent for the old one comes late, is refused and counted as duplicated. A stage that
has used the gradient of the old attempt computes it again for those before it, but does not use it twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from orionbed.schedule.queue_driven import QueueDrivenPolicy
from sim.recovery.dropping import Recovery
from sim.recovery.inventory import inventory

if TYPE_CHECKING:
    from orionbed.schedule.actions import Action
    from sim.engine import Engine
    from sim.peer import SimPeer
    from sim.transfer import Transfer


class Resend(Recovery):
    """The policy `resend`, and what `splice` and `replicas` fall back on."""

    may_be_void: ClassVar[bool] = True

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        # micro-batch -> (lost stage, peer before it) of those that will be begun again
        self._due: dict[int, tuple[int, int]] = {}
        self._void: set[int] = set()
        self._turn = 0

    def lost(self, peer: SimPeer, action: Action | None, cut_off: list[Transfer]) -> None:
        """Have everything sent again once the loss is known."""
        held = inventory(peer, action, cut_off, self.engine.ledger)
        peer.policy.restart()
        for number, upstream, _ in held:
            self.begin_again(number, peer.stage, upstream)

    def begin_again(self, number: int, stage: int, upstream: int) -> None:
        """Begin a micro-batch again at `stage` when the loss is known; of several lost stages the first one counts."""
        due = self._due.get(number)
        if due is None or due[0] > stage:
            self._due[number] = (stage, upstream)
            self.engine.clock.call_in(self.block.detect, self._detected, (number, stage, upstream))

    def is_due(self, number: int) -> bool:
        """Whether a micro-batch is about to be begun again."""
        return number in self._due

    def _detected(self, what: tuple[int, int, int]) -> None:
        number, stage, upstream = what
        if self._due.get(number) != (stage, upstream):
            return  # a stage before this one was lost meanwhile
        del self._due[number]
        if number not in self.engine.ledger.open:
            return
        if upstream < 0:
            self._from_data(self._again(number, stage))
            return
        sender = self.engine.peers[upstream]
        if sender.status != "training" or not sender.policy.holds(number):
            self.drop(sender, number, "sender lost", by=sender)
            return
        new = self._again(number, stage)
        self.engine.handing_on.forward(sender, new, self.engine.ledger.open[new])

    def _again(self, number: int, stage: int) -> int:
        """Give a micro-batch a new number, under which those before `stage` keep waiting for its gradient."""
        engine = self.engine
        new = engine.ledger.again(number)
        if engine.scribe is not None:
            engine.scribe.begun_again(number, stage)
        record = engine.ledger.open[new]
        self.counts["begun_again"] += 1
        self._void.add(number)
        slots = []
        for index, forwarded_s in record.slots:
            holder = engine.peers[index]
            if holder.stage < stage and holder.policy.holds(number):
                assert isinstance(holder.policy, QueueDrivenPolicy)
                holder.policy.rename(number, new)
                slots.append((index, forwarded_s))
        record.slots = slots
        record.gradients = {at: index for at, index in record.gradients.items() if at < stage}
        used = record.used
        self.throw_away_where(record, lambda _, chunk, __: chunk >= stage and not used >> chunk & 1)
        self.clear(number, [peer for peer in engine.peers if peer.stage >= stage])
        return new

    def _from_data(self, number: int) -> None:
        """Begin a micro-batch anew at the first stage, whose peers can all have its data."""
        engine = self.engine
        record = engine.ledger.open.get(number)
        if record is None:
            return
        peer = self.in_turn(0)
        if peer is not None:
            peer.policy.on_message("F", number, -1)
            engine.wake_if_ready(peer)
            return
        record.attempts += 1
        if engine.handing_on.gives_up(record):
            self.give_up(number, "no peer to send to")
        else:
            engine.clock.call_in(self.connect_timeout_s, self._from_data, number)

    def in_turn(self, stage: int) -> SimPeer | None:
        """Return the next peer of a stage, one after the other, `None` if nobody is there."""
        there = [peer for peer in self.engine.peers if peer.stage == stage and peer.status == "training"]
        self._turn += 1
        return there[self._turn % len(there)] if there else None

    def sender_lost(self, peer: SimPeer, number: int) -> None:
        """Whoever is before the sender has seen that it is lost."""
        if number not in self._due:
            super().sender_lost(peer, number)

    def no_way_back(self, holder: SimPeer, number: int, target: SimPeer) -> None:
        """Throw the gradient away: it comes of an old attempt, or a new one is about to begin."""
        if number not in self.engine.ledger.open:
            self.refuse(number)
        elif number not in self._due:
            super().no_way_back(holder, number, target)

    def refuse(self, number: int) -> None:
        """Count what comes late of an old attempt."""
        self.engine.ledger.duplicated += number in self._void

    def before_merge(self) -> None:
        """Forget who is due."""
        self._due.clear()
        self._void.clear()
