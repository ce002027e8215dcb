"""How training ends: of one peer that is halted or lost, of everybody at a merge, of the whole run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orionbed import tracing

if TYPE_CHECKING:
    from orionbed.schedule.actions import Action
    from sim.engine import Engine
    from sim.peer import SimPeer
    from sim.transfer import Transfer


class Ending:
    """Ends what peers of an engine do, and accounts for it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def halt(self, peer: SimPeer, reason: str) -> tuple[Action | None, list[Transfer]]:
        """End what `peer` does now and account for it; return what it was at, and the transfers cut off."""
        engine = self._engine
        now = engine.clock.now
        action = None
        if peer.running is not None:
            peer.running.cancel()
            peer.running = None
            peer.charge(tracing.CAUSE_POLLING, min(now, peer.action_s))
            peer.charge(tracing.CAUSE_THROWN_AWAY, now)
            if peer.action is not None and peer.action.kind != "STEP":
                action = peer.action
        elif peer.idle:
            engine.stand_by(peer)
        cut_off = engine.network.cancel_peer(peer.index)
        if engine.sending is not None:
            engine.sending.cut_off(peer, cut_off, reason)
        # Only messages: peers may also move weights and optimizer states.
        return action, [transfer for transfer in cut_off if isinstance(transfer.arg, tuple)]

    def stop(self, peer: SimPeer, reason: str) -> list[Transfer]:
        """End what `peer` does now, and drop the micro-batch that it was at; return the transfers cut off."""
        action, cut_off = self.halt(peer, reason)
        if action is not None:
            self._engine.drop(peer, action.microbatch, reason)
        return cut_off

    def crash(self, peer: SimPeer) -> None:
        """Take `peer` out of training at once, and do with what it held as the scenario's `recovery` says."""
        engine = self._engine
        if peer.status == "merging":
            peer.charge(tracing.CAUSE_MERGE_WAIT, engine.clock.now)
        if engine.scribe is not None:
            engine.scribe.lost(peer)
        engine.recovery.crash(peer)

    def lose(self, peer: SimPeer) -> None:
        """Take `peer` away at once, whatever it does."""
        engine = self._engine
        if engine.holds_work(peer):
            self.crash(peer)
            return
        if engine.scribe is not None:
            engine.scribe.lost(peer)
        engine.network.cancel_peer(peer.index)
        peer.charge_status(engine.clock.now)
        peer.status = "down"

    def end_training(self) -> None:
        """End the training phase for everybody: queues, caches and messages in flight are flushed."""
        engine = self._engine
        engine.recovery.before_merge()
        training = [peer for peer in engine.peers if peer.status == "training"]
        if engine.scribe is not None:
            engine.scribe.flush(training)
        engine.recovery.flush(training, "flushed at merge")
        if not engine.is_queue_driven:
            engine.fixed_batch.next_step_of(engine.peers)
        if engine.sending is not None:
            engine.sending.reset()
        if engine.syncing is not None:
            engine.syncing.reset()

    def close(self) -> None:
        """Account for every peer's time up to now. What still runs is unfinished: the pipeline ends filled."""
        engine = self._engine
        now = engine.clock.now
        for peer in engine.peers:
            if peer.status == "training" and peer.running is not None:
                peer.charge(tracing.CAUSE_POLLING, min(now, peer.action_s))
                peer.charge(tracing.CAUSE_FILL, now)
            elif peer.status == "training" and peer.idle:
                engine.charge_idle(peer, now)
            else:
                peer.charge_status(now)
