"""IOTA's rule, and what all policies have in common: dropping, slots that expire, work thrown away.

What is on its way to a lost peer is sent again to another peer of the stage; what the lost peer holds is dropped; those
who wait for a gradient learn of it only when their slot expires. A replica of a schedule with a fixed batch loses its
step.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, ClassVar

from orionbed.schedule.queue_driven import QueueDrivenPolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import simpy

    from orionbed.ledger import MicrobatchRecord
    from orionbed.schedule.actions import Action
    from sim.engine import Engine
    from sim.peer import SimPeer
    from sim.transfer import Transfer

    SendForward = Callable[[SimPeer, int, MicrobatchRecord], None]


class Recovery:
    """The policy `drop`, and the base of all others."""

    may_be_void: ClassVar[bool] = False
    """Whether results of micro-batches may turn up that have been given up, or begun again."""
    keeps_gradients: ClassVar[bool] = False
    """Whether peers keep the gradients that they have sent."""
    rejoins_at_once: ClassVar[bool] = False
    """Whether a peer that comes back trains before the next merge."""

    reason: ClassVar[str] = "peer lost"

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.block = engine.plan.scenario.recovery
        schedule = engine.plan.scenario.pipeline.schedule
        self.cache_ttl_s = schedule.cache_ttl if schedule.kind == "queue" else 0.0
        self.connect_timeout_s = schedule.connect_timeout if schedule.kind == "queue" else 0.0
        # (micro-batch, peer) -> seconds that the peer's backward takes longer because it does a lost stage's too
        self.taken_over: dict[tuple[int, int], float] = {}
        self.counts: Counter[str] = Counter()
        self.extra_compute_s = 0.0
        self.drops_by_peer: Counter[str] = Counter()

    # ---------------------------------------------------------------- a peer is lost

    def crash(self, peer: SimPeer) -> None:
        """Take `peer` out of training."""
        self.counts["losses"] += 1
        if not self.engine.is_queue_driven:
            self.engine.ending.stop(peer, self.reason)
            peer.status = "down"
            self.halt_replica(peer)
            return
        action, cut_off = self.engine.ending.halt(peer, self.reason)
        peer.status = "down"
        self.lost(peer, action, cut_off)

    def lost(self, peer: SimPeer, action: Action | None, cut_off: list[Transfer]) -> None:
        """Do what is to be done about what a lost peer held, was at, and what was on its way from or to it."""
        policy = peer.policy
        assert isinstance(policy, QueueDrivenPolicy)
        if action is not None:
            self.drop(peer, action.microbatch, self.reason, by=peer)
        for number in policy.queued():
            self.drop(peer, number, self.reason, by=peer)
        policy.restart()
        for transfer in cut_off:
            kind, number, _, source, _, _ = transfer.arg
            if kind == "F" and source is not peer:
                self.engine.handing_on.again_in(self.connect_timeout_s, source, number)
            else:
                self.drop(source, number, self.reason, by=peer)

    def halt_replica(self, lost: SimPeer) -> None:
        """A schedule with a fixed batch loses the step of a replica with one of its peers; the others wait for it."""
        engine = self.engine
        members = [p for p in engine.peers if p.replica == lost.replica]
        for peer in members:
            if peer.status == "training":
                engine.ending.stop(peer, self.reason)
        numbering = lost.numbering
        assert numbering is not None
        for number in list(numbering):
            self.drop(lost, number, self.reason, by=lost)
        engine.fixed_batch.next_step_of(members)
        if engine.scribe is not None:
            engine.scribe.give_up_step(members)
        for peer in members:
            if peer.status == "training":
                engine.fixed_batch.hold(peer)
        if engine.syncing is not None:
            engine.syncing.lost(lost.replica)

    # ---------------------------------------------------------------- what peers run into

    def sender_lost(self, peer: SimPeer, number: int) -> None:
        """`peer` was to send the activation of `number` once more, but has it no longer."""
        self.drop(peer, number, "sender lost", by=peer)

    def unreachable(self, peer: SimPeer, number: int) -> None:
        """No peer of the next stage has answered, often enough."""
        self.drop(peer, number, "no peer to send to")

    def no_way_back(self, holder: SimPeer, number: int, target: SimPeer) -> None:
        """`holder` has a gradient for `target`, which has no use for it (any more)."""
        self.drop(holder, number, "way back lost", by=target)

    def in_vain(self, peer: SimPeer, action: Action, duration_s: float) -> None:
        """`peer` finished an operation on a micro-batch that is no longer open."""
        peer.thrown_s[action.kind] += duration_s
        self.refuse(action.microbatch)

    def refuse(self, number: int) -> None:
        """A result of a micro-batch came that is no longer open."""

    def used_before(self, peer: SimPeer, action: Action, record: MicrobatchRecord) -> None:
        """`peer` finished a backward whose gradient its stage has used in an earlier attempt: only its input's counts.

        Its forward and backward are thrown away.
        """
        policy = peer.policy
        assert isinstance(policy, QueueDrivenPolicy)
        policy.not_used()
        self.engine.ledger.duplicated += 1
        mine = (peer.index, action.chunk, action.microbatch)
        self.throw_away_where(record, lambda index, chunk, number: (index, chunk, number) == mine)

    def used_for_lost(self, peer: SimPeer, number: int, record: MicrobatchRecord) -> None:
        """`peer` finished a backward, perhaps with that of a lost stage."""

    def after_forward(self, send: SendForward) -> SendForward:
        """Return what is to be done with the result of a forward; `send` hands it on."""
        return send

    def applied(self, number: int, record: MicrobatchRecord) -> None:
        """A micro-batch was applied (told only where gradients are kept)."""

    # ---------------------------------------------------------------- the training goes on

    def holds_back(self, peer: SimPeer) -> bool:  # noqa: ARG002
        """Whether `peer` has to wait before it may train."""
        return False

    def before_merge(self) -> None:
        """The training phase ends: all that is in flight is about to be flushed."""

    def fetch_weights(self, peer: SimPeer) -> simpy.Event:
        """Let a peer that comes back fetch the weights of its stage; the event is when it has them."""
        engine = self.engine
        fetched = engine.clock.event()
        weight_bytes = float(engine.plan.stages[peer.stage].weight_bytes)
        engine.network.from_storage(peer.index, weight_bytes, lambda event: event.succeed(), fetched)
        return fetched

    # ---------------------------------------------------------------- giving up

    def drop(self, peer: SimPeer, number: int, reason: str, *, by: SimPeer | None = None) -> None:
        """Give a micro-batch up, because of `by`; slots for its gradient stay until they expire."""
        engine = self.engine
        record = engine.ledger.drop(engine.ledger_number(peer, number), reason)
        if record is None:
            return
        if by is not None:
            self.drops_by_peer[by.name] += 1
        if peer.numbering is not None:
            peer.numbering.pop(number, None)
        self.throw_away(record)
        if not engine.is_queue_driven:
            return
        if engine.scribe is not None:
            engine.scribe.over(number)
        now = engine.clock.now
        for index, forwarded_s in record.slots:
            expires_s = forwarded_s + self.cache_ttl_s * (engine.plan.num_stages - engine.peers[index].stage)
            engine.clock.call_at(max(now, expires_s), self._expire, (engine.peers[index], number))

    def _expire(self, what: tuple[SimPeer, int]) -> None:
        peer, number = what
        peer.policy.on_lost(number)
        self.engine.wake_if_ready(peer)

    def give_up(self, number: int, reason: str, *, by: SimPeer | None = None) -> None:
        """Give a micro-batch up and tell everybody: queues and slots are cleared at once."""
        engine = self.engine
        record = engine.ledger.drop(number, reason)
        if record is None:
            return
        if by is not None:
            self.drops_by_peer[by.name] += 1
        self.throw_away(record)
        if engine.scribe is not None:
            engine.scribe.over(number)
        self.clear(number, engine.peers)

    def flush(self, training: list[SimPeer], reason: str) -> None:
        """Drop every micro-batch under way, and empty the queues of those in training."""
        engine = self.engine
        for peer in training:
            engine.ending.stop(peer, reason)
        for number in list(engine.ledger.open):
            record = engine.ledger.drop(number, reason)
            if record is not None:
                self.throw_away(record)
                if engine.scribe is not None:
                    engine.scribe.over(number)
        for peer in training:
            peer.policy.reset()
            if peer.numbering is not None:
                peer.numbering.clear()

    def clear(self, number: int, peers: Iterable[SimPeer]) -> None:
        """Take a micro-batch out of the queues and windows of `peers`. What one computes just now, it ends."""
        for peer in peers:
            policy = peer.policy
            assert isinstance(policy, QueueDrivenPolicy)
            if peer.status == "training" and policy.forget(number):
                self.engine.wake_if_ready(peer)

    def throw_away(self, record: MicrobatchRecord) -> None:
        """Count all work on a micro-batch as thrown away."""
        for index, kind, _, _, seconds in record.spent:
            self.engine.peers[index].thrown_s[kind] += seconds

    def throw_away_where(self, record: MicrobatchRecord, is_lost: Callable[[int, int, int], bool]) -> None:
        """Count part of the work on a micro-batch as thrown away, by peer, chunk and number."""
        kept = []
        for spent in record.spent:
            index, kind, chunk, number, seconds = spent
            if is_lost(index, chunk, number):
                self.engine.peers[index].thrown_s[kind] += seconds
            else:
                kept.append(spent)
        record.spent[:] = kept

    # ---------------------------------------------------------------- what it came to

    def summary(self) -> dict[str, Any]:
        """Return the summary's `recovery` block."""
        ledger = self.engine.ledger
        names = ("losses", "begun_again", "spliced", "taken_over", "rebuilt", "rebuild_bytes", "pauses")
        return {
            "in_flight": self.block.in_flight,
            **{name: self.counts[name] for name in names},
            "extra_compute_s": self.extra_compute_s,
            "with_skipped_stages": ledger.with_skipped,
            "taken_back": ledger.taken_back,
            "drops_by_peer": dict(sorted(self.drops_by_peer.items())),
        }
