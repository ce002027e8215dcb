"""Policies that give up what a lost peer had to do with, and tell everybody: no retries, no slots that expire.

`not-counted` (Psyche, Templar) leaves the peer's work out of the round. `rebuild` (CheckFree) makes its weights anew
from the stages beside it. `local-steps` (DiLoCo) loses besides what the peer had learnt since the last merge.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from sim.recovery.dropping import Recovery
from sim.recovery.inventory import inventory

if TYPE_CHECKING:
    import simpy

    from orionbed.ledger import MicrobatchRecord
    from orionbed.schedule.actions import Action
    from sim.engine import Engine
    from sim.peer import SimPeer
    from sim.transfer import Transfer

TAKEN_BACK = "local steps lost"


class NotCounted(Recovery):
    """The policy `not-counted`."""

    may_be_void: ClassVar[bool] = True
    reason: ClassVar[str] = "not counted"

    def lost(self, peer: SimPeer, action: Action | None, cut_off: list[Transfer]) -> None:
        """Leave out every micro-batch that the peer had a part in and that is not through."""
        held = inventory(peer, action, cut_off, self.engine.ledger)
        peer.policy.restart()
        for number, _, _ in held:
            self.give_up(number, self.reason, by=peer)


class Rebuild(NotCounted):
    """The policy `rebuild`: a peer that comes back takes the weights of both neighbours, and trains at once.

    Their mean, weighted by gradient norms, becomes its weights (arXiv 2506.15461); averaging takes no time here. At
    either end of the pipeline there is only one neighbour. Where nobody is, the weights come from the store.
    """

    reason: ClassVar[str] = "peer lost"
    rejoins_at_once: ClassVar[bool] = True

    def fetch_weights(self, peer: SimPeer) -> simpy.Event:
        """Download from the stages beside the peer's over the peers' own links."""
        engine = self.engine
        sources = [self._neighbour(peer, stage) for stage in (peer.stage - 1, peer.stage + 1)]
        present = [source for source in sources if source is not None]
        if not present:
            return super().fetch_weights(peer)
        if engine.scribe is not None:
            engine.scribe.rebuilds(peer, present)
        fetched = engine.clock.event()
        left = len(present)

        def arrived(_: object) -> None:
            nonlocal left
            left -= 1
            if not left:
                self.counts["rebuilt"] += 1
                fetched.succeed()

        for source in present:
            weight_bytes = engine.plan.stages[source.stage].weight_bytes
            self.counts["rebuild_bytes"] += weight_bytes
            engine.network.send(source.index, peer.index, float(weight_bytes), arrived, None)
        return fetched

    def _neighbour(self, peer: SimPeer, stage: int) -> SimPeer | None:
        """Return a peer of `stage` that trains, of the same replica if it can be."""
        there = [other for other in self.engine.peers if other.stage == stage and other.status == "training"]
        return min(there, key=lambda other: (other.replica != peer.replica, other.index), default=None)


class LocalSteps(NotCounted):
    """The policy `local-steps`: gradients that the lost peer had used since the last merge are gone too.

    Micro-batches that were applied become dropped ones; those still under way can no longer be applied: given up too.
    """

    keeps_gradients: ClassVar[bool] = True
    reason: ClassVar[str] = "peer lost"

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        # applied since the last merge, in order: the end of `Engine.applied_s`
        self._applied: list[MicrobatchRecord] = []

    def applied(self, number: int, record: MicrobatchRecord) -> None:  # noqa: ARG002
        """Remember who used it."""
        self._applied.append(record)

    def lost(self, peer: SimPeer, action: Action | None, cut_off: list[Transfer]) -> None:
        """Give up what is in flight, and take back what only the peer's memory had."""
        super().lost(peer, action, cut_off)
        engine = self.engine
        for number, record in list(engine.ledger.open.items()):
            if peer.index in record.gradients.values():
                self.give_up(number, TAKEN_BACK, by=peer)
        since = len(engine.applied_s) - len(self._applied)
        kept, kept_s = [], []
        for record, applied_s in zip(self._applied, engine.applied_s[since:], strict=True):
            if peer.index in record.gradients.values():
                engine.ledger.take_back(record, TAKEN_BACK)
                self.throw_away(record)
                self.drops_by_peer[peer.name] += 1
            else:
                kept.append(record)
                kept_s.append(applied_s)
        self._applied = kept
        del engine.applied_s[since:]
        engine.applied_s.extend(kept_s)

    def before_merge(self) -> None:
        """What has been applied is about to be in everybody's weights."""
        self._applied.clear()
