"""Where results of a queue-driven pipeline go: forwards to a peer that the router chooses, gradients the way back.

What does not arrive is tried again as `attempts` and `retry` say. When that is of no use, the policy for micro-batches
in flight decides (`sim.recovery`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orionbed.schedule.actions import Action
from sim.sending import make_sending, retries_of

if TYPE_CHECKING:
    from orionbed.ledger import MicrobatchRecord
    from sim.engine import Engine, Message
    from sim.peer import SimPeer
    from sim.transfer import Transfer


class HandingOn:
    """Hands results on, and again."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        schedule = engine.plan.scenario.pipeline.schedule
        self._connect_timeout_s = schedule.connect_timeout if schedule.kind == "queue" else 0.0
        self._keeps_gradients = engine.recovery.keeps_gradients
        self.retries = retries_of(engine.plan)
        self.sending = make_sending(engine, engine.arrive, self._send_again)

    def forward(self, peer: SimPeer, number: int, record: MicrobatchRecord) -> None:
        """Send the result of a forward to a peer of the next stage that the router chooses."""
        engine = self._engine
        status = engine.status
        index = peer.policy.route(Action("F", peer.stage, number), status.views[peer.stage + 1])
        target = None if index is None else engine.peers[index]
        if target is None or target.status != "training":
            # Nobody answers: the attempt costs a connection timeout.
            record.attempts += 1
            status.missed(index)
            wait_s = self._connect_timeout_s + self.retries.pause_s(record.attempts)
            engine.clock.call_in(wait_s, self._resend, (peer, number))
            return
        if status.measures:
            status.chose(target)
        engine.send("F", number, 0, peer, target)

    def again_in(self, after_s: float, peer: SimPeer, number: int) -> None:
        """Let `peer` send the activation of `number` once more; the last time it did not arrive."""
        engine = self._engine
        record = engine.ledger.open.get(number)
        if record is not None:
            record.attempts += 1
            engine.clock.call_in(after_s, self._resend, (peer, number))

    def _resend(self, what: tuple[SimPeer, int]) -> None:
        engine = self._engine
        peer, number = what
        record = engine.ledger.open.get(engine.ledger_number(peer, number))
        if record is None:
            return
        if peer.status != "training" or not peer.policy.holds(number):
            engine.recovery.sender_lost(peer, number)
        elif self.gives_up(record):
            engine.recovery.unreachable(peer, number)
        else:
            self.forward(peer, number, record)

    def gives_up(self, record: MicrobatchRecord) -> bool:
        """Whether a micro-batch has been tried often enough."""
        engine = self._engine
        since_s = engine.clock.now - record.slots[-1][1] if record.slots else 0.0
        return self.retries.gives_up(record.attempts, since_s)

    def _send_again(self, message: Message) -> None:
        """Send what has failed once more, a gradient to the same peer, or give it up."""
        engine = self._engine
        kind, number, _, source, target, _ = message
        if kind == "F":
            self._resend((source, number))
            return
        record = engine.ledger.open.get(number)
        if record is None:
            return
        if source.status != "training":
            engine.drop(source, number, "sender lost")
        elif not self.retries.backward or self.gives_up(record):
            engine.drop(source, number, "way back lost")
        else:
            self._give_back(source, number, target, record)

    def sends(self, transfer: Transfer) -> bool:
        """Whether a transfer is a message of a queue-driven peer, which can be sent again."""
        engine = self._engine
        if not engine.is_queue_driven or engine.outboxes is not None:
            return False
        return transfer.callback == engine.arrive or (self.sending is not None and self.sending.is_pushing(transfer))

    def failed(self, transfer: Transfer) -> None:
        """Send again, after a while, a message that was cut off although both of its ends are there."""
        if self.sending is not None:
            self.sending.broke_off(transfer)
        record = self._engine.ledger.open.get(transfer.arg[1])
        if record is not None:
            record.attempts += 1
            wait_s = self._connect_timeout_s + self.retries.pause_s(record.attempts)
            self._engine.clock.call_in(wait_s, self._reconnect, transfer.arg)

    def _reconnect(self, message: Message) -> None:
        """Send again what a connection broke with: a gradient too, since its receiver is there and waits for it."""
        kind, number, _, source, target, _ = message
        record = self._engine.ledger.open.get(number)
        if kind == "F" or record is None or source.status != "training" or self.gives_up(record):
            self._send_again(message)
        else:
            self._give_back(source, number, target, record)

    def _give_back(self, peer: SimPeer, number: int, target: SimPeer, record: MicrobatchRecord) -> None:
        """Send a gradient to the peer that the activation came from."""
        engine = self._engine
        if target.status != "training" and self.retries.backward:
            record.attempts += 1
            wait_s = self._connect_timeout_s + self.retries.pause_s(record.attempts)
            engine.clock.call_in(wait_s, self._send_again, ("B", number, 0, peer, target, engine.clock.now))
        elif target.status != "training" or not target.policy.holds(number):
            engine.recovery.no_way_back(peer, number, target)
        else:
            engine.send("B", number, 0, peer, target)

    def backward(self, peer: SimPeer, action: Action, record: MicrobatchRecord) -> None:
        """Count that a stage has used a gradient, and give back that of its input."""
        engine = self._engine
        number = action.microbatch
        stage = peer.stage
        bit = 1 << stage
        if record.used & bit:
            engine.recovery.used_before(peer, action, record)
        else:
            record.staleness += peer.policy.staleness(number)
            record.used |= bit  # as record.use(stage) does, in the innermost loop
        if self._keeps_gradients:
            engine.recovery.used_for_lost(peer, number, record)
            record.gradients[stage] = peer.index
        index = peer.policy.route(action, None)
        if index is None:
            engine.apply(peer, number)
            return
        target = engine.peers[index]
        if target.status == "training" and target.policy.holds(number):
            engine.send("B", number, 0, peer, target)
        else:
            self._give_back(peer, number, target, record)
