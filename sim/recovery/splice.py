"""Splicing a replacement into the pipeline: only the lost stage is computed again.

`splice` (GWTF) looks for the replacement when the gradient has come as far as the lost stage. `replicas` (ReCycle)
deals the lost peer's micro-batches in turn to the other peers of its stage and sends them the inputs ahead. In both the
replacement gets the input from the peer before and the gradient from the peer behind, which keep what they have sent;
it does the forward if activations are kept, and the backward. Nothing behind it is done again. What had not been handed
on is sent again as with `resend`, and so is everything whose gradient or input went with a neighbour.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from orionbed.schedule.actions import Action
from orionbed.schedule.queue_driven import QueueDrivenPolicy
from sim.recovery.inventory import Held, State, inventory
from sim.recovery.resend import Resend

if TYPE_CHECKING:
    from collections.abc import Callable

    from orionbed.ledger import MicrobatchRecord
    from sim.engine import Engine
    from sim.peer import SimPeer
    from sim.recovery.dropping import SendForward
    from sim.transfer import Transfer


@dataclass(slots=True, eq=False)
class Hole:
    """The lost stage of one micro-batch, and what its replacement has got so far."""

    number: int
    stage: int
    upstream: int
    lost: SimPeer
    known_s: float
    heir: SimPeer | None = None
    has_input: bool = False
    gradient_sent: bool = False
    has_gradient: bool = False
    num_tries: int = 0


@dataclass(slots=True, eq=False)
class Part:
    """An input or a gradient on its way to a replacement."""

    hole: Hole
    heir: SimPeer
    is_gradient: bool


class Splice(Resend):
    """The policy `splice`."""

    keeps_gradients: ClassVar[bool] = True

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        # (micro-batch, stage) -> its hole
        self._holes: dict[tuple[int, int], Hole] = {}
        # (micro-batch, peer) whose forward fills a hole: its gradient is there already
        self._refilling: set[tuple[int, int]] = set()
        schedule = engine.plan.scenario.pipeline.schedule
        self._needs_forward = schedule.recompute != "full"
        self._last_stage = engine.plan.num_stages - 1

    # ---------------------------------------------------------------- a peer is lost

    def lost(self, peer: SimPeer, action: Action | None, cut_off: list[Transfer]) -> None:
        """See what is to be sent again, and where holes are."""
        held = inventory(peer, action, cut_off, self.engine.ledger)
        peer.policy.restart()
        self._lose_parts(peer)
        for each in held:
            self._lose(peer, each)

    def _lose(self, peer: SimPeer, held: Held) -> None:
        number, upstream, state = held
        stage = peer.stage
        before = self._holes.get((number, stage - 1))
        if before is not None:
            self.begin_again(number, before.stage, before.upstream)
            return
        gradient = stage + 1 in self.engine.ledger.open[number].gradients
        if (number, stage + 1) in self._holes or not (gradient or state is State.BEYOND):
            self.begin_again(number, stage, upstream)
            return
        known_s = self.engine.clock.now + self.block.detect
        hole = self._holes[number, stage] = Hole(number, stage, upstream, peer, known_s)
        self.engine.clock.call_at(known_s, self._fill if gradient else self.known, hole)

    def _lose_parts(self, peer: SimPeer) -> None:
        """Lose the gradients that a peer kept, and what was on its way to it as a replacement."""
        for number, record in list(self.engine.ledger.open.items()):
            for stage in [stage for stage, index in record.gradients.items() if index == peer.index]:
                del record.gradients[stage]
                hole = self._holes.get((number, stage - 1))
                if hole is not None and not hole.has_gradient:
                    self.begin_again(number, hole.stage, hole.upstream)
        for hole in list(self._holes.values()):
            if hole.heir is peer:
                hole.heir, hole.has_input, hole.has_gradient = None, False, False
                if hole.gradient_sent:
                    hole.gradient_sent = False
                    self.engine.clock.call_in(self.block.detect, self._fill, hole)

    def known(self, hole: Hole) -> None:
        """The loss is known; the gradient has not come yet."""

    # ---------------------------------------------------------------- filling a hole

    def _keeper(self, hole: Hole) -> SimPeer | None:
        """Return the peer behind the hole that keeps the gradient."""
        record = self.engine.ledger.open.get(hole.number)
        index = None if record is None else record.gradients.get(hole.stage + 1)
        return None if index is None else self.engine.peers[index]

    def is_open(self, hole: Hole) -> bool:
        """Whether the hole is still to be filled."""
        return (
            self._holes.get((hole.number, hole.stage)) is hole
            and hole.number in self.engine.ledger.open
            and not self.is_due(hole.number)
        )

    def _fill(self, hole: Hole) -> None:
        """Send the gradient to the replacement, which is chosen now if there is none."""
        if not self.is_open(hole) or hole.gradient_sent:
            return
        keeper = self._keeper(hole)
        if keeper is None:
            self.begin_again(hole.number, hole.stage, hole.upstream)
        elif self.find_heir(hole, self._fill):
            assert hole.heir is not None
            hole.gradient_sent = True
            if self.engine.scribe is not None:
                self.engine.scribe.got_gradient(hole.heir, hole.number, keeper.index)
            self._send_part(Part(hole, hole.heir, is_gradient=True), keeper)

    def find_heir(self, hole: Hole, again: Callable[[Hole], object]) -> bool:
        """Choose a replacement and send it the input; without one, try again with `again` after a while."""
        if hole.heir is not None:
            return True
        engine = self.engine
        heir = self.choose(hole)
        if heir is None:
            hole.num_tries += 1
            if engine.handing_on.retries.gives_up(hole.num_tries, 0.0):
                self.give_up(hole.number, "no peer to send to")
            else:
                engine.clock.call_in(self.connect_timeout_s, again, hole)
            return False
        hole.heir = heir
        record = engine.ledger.open[hole.number]
        if not record.used >> hole.stage & 1:
            self.throw_away_where(record, lambda _, chunk, __: chunk == hole.stage)
        if hole.upstream < 0:
            hole.has_input = True  # its data
        else:
            self._send_part(Part(hole, heir, is_gradient=False), engine.peers[hole.upstream])
        return True

    def choose(self, hole: Hole) -> SimPeer | None:
        """Return a replacement that the peer before would choose."""
        if hole.upstream < 0:
            return self.in_turn(hole.stage)
        engine = self.engine
        action = Action("F", hole.stage - 1, hole.number)
        index = engine.peers[hole.upstream].policy.route(action, engine.status.views[hole.stage])
        heir = None if index is None else engine.peers[index]
        return heir if heir is not None and heir.status == "training" else None

    def _send_part(self, part: Part, source: SimPeer) -> None:
        engine = self.engine
        num_bytes = float(engine.plan.boundary_bytes)
        engine.bytes_boundary += num_bytes
        engine.network.send(source.index, part.heir.index, num_bytes, self._got, part)

    def _got(self, part: Part) -> None:
        hole = part.hole
        if hole.heir is not part.heir or not self.is_open(hole):
            return
        if part.is_gradient:
            hole.has_gradient = True
        else:
            hole.has_input = True
        if hole.has_input and hole.has_gradient:
            self._start(hole, part.heir)

    def _start(self, hole: Hole, heir: SimPeer) -> None:
        """The replacement has both: it takes the place of the lost peer."""
        del self._holes[hole.number, hole.stage]
        self.counts["spliced"] += 1
        self.engine.ledger.open[hole.number].attempts += 1
        policy = heir.policy
        assert isinstance(policy, QueueDrivenPolicy)
        if self._needs_forward:
            self._refilling.add((hole.number, heir.index))
            policy.on_message("F", hole.number, hole.upstream)
        else:
            policy.adopt(hole.number, hole.upstream)
            policy.on_message("B", hole.number, -1)
        self.engine.wake_if_ready(heir)

    def after_forward(self, send: SendForward) -> SendForward:
        """Keep the result of a forward that fills a hole: its gradient is there already."""

        def hand_on(peer: SimPeer, number: int, record: MicrobatchRecord) -> None:
            what = (number, peer.index)
            if what in self._refilling:
                self._refilling.remove(what)
                peer.policy.on_message("B", number, -1)
            else:
                send(peer, number, record)

        return hand_on

    # ---------------------------------------------------------------- what peers run into

    def sender_lost(self, peer: SimPeer, number: int) -> None:
        """What looked handed on was not: it is sent again by the peer before."""
        for hole in list(self._holes.values()):
            if hole.number == number and hole.lost is peer:
                self.begin_again(number, hole.stage, hole.upstream)
        super().sender_lost(peer, number)

    def no_way_back(self, holder: SimPeer, number: int, target: SimPeer) -> None:
        """The gradient has come to a hole: fill it as soon as the loss is known."""
        hole = self._holes.get((number, holder.stage - 1))
        if hole is None or not self.is_open(hole):
            super().no_way_back(holder, number, target)
        else:
            self.engine.clock.call_at(max(self.engine.clock.now, hole.known_s), self._fill, hole)

    def _again(self, number: int, stage: int) -> int:
        """Holes before the new attempt's first stage stay, under its number."""
        new = super()._again(number, stage)
        for key, hole in list(self._holes.items()):
            if hole.number == number:
                del self._holes[key]
                if hole.stage < stage:
                    hole.number = new
                    self._holes[new, hole.stage] = hole
        return new

    def before_merge(self) -> None:
        """Forget all holes."""
        super().before_merge()
        self._holes.clear()
        self._refilling.clear()


class Replicas(Splice):
    """The policy `replicas`."""

    def known(self, hole: Hole) -> None:
        """Send the input ahead."""
        if self.is_open(hole):
            self.find_heir(hole, self.known)

    def choose(self, hole: Hole) -> SimPeer | None:
        """Return the next peer of the stage in turn."""
        return self.in_turn(hole.stage)
