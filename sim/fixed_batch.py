"""Schedules with a fixed batch: what becomes of the results, and replicas that wait until they are complete."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orionbed.ledger import MicrobatchRecord
    from orionbed.schedule.actions import Action
    from sim.engine import Engine
    from sim.peer import SimPeer


class FixedBatch:
    """What the engine does for such schedules alone."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._all = (1 << engine.plan.num_chunks) - 1

    def finish(self, peer: SimPeer, action: Action, record: MicrobatchRecord) -> None:
        """Hand on the result of an operation; that of a pair when both are through."""
        if peer.policy.opens_pair(action):
            peer.held_back = action
            return
        held, peer.held_back = peer.held_back, None
        if held is not None:
            self._hand_on(peer, held)
        self._hand_on(peer, action)
        if action.kind in {"B", "W"}:
            record.use(action.chunk)
            if record.used == self._all:
                self._engine.apply(peer, action.microbatch)
        if self._engine.syncing is not None:
            self._engine.syncing.finished(peer)

    def _hand_on(self, peer: SimPeer, action: Action) -> None:
        target = peer.policy.route(action, None)
        if target is not None:
            forward = action.kind == "F"
            chunk = action.chunk + 1 if forward else action.chunk - 1
            self._engine.send("F" if forward else "B", action.microbatch, chunk, peer, self._engine.peers[target])

    def synced(self, peer: SimPeer, step: int, began_s: float) -> None:
        """The replicas of `peer`'s stage have agreed on the gradients of `step`; the exchange began at `began_s`."""
        peer.policy.on_message("SYNC", step, -1)
        if peer.idle and peer.wake is None and peer.policy.ready():
            self._engine.wake_soon(peer, self._engine.clock.now, began_s)

    def hold(self, peer: SimPeer) -> None:
        """Let a peer of a static schedule wait until its replica is complete."""
        peer.idle = True
        peer.ready_s = -1.0
        peer.idle_by_window = peer.idle_by_sync = False
        peer.blocked_share = 0.0

    def release_if_complete(self, replica: int) -> None:
        """Let a replica of a static schedule go on, if all its peers are there."""
        engine = self._engine
        members = [p for p in engine.peers if p.replica == replica]
        if all(p.status == "training" for p in members):
            if engine.syncing is not None:
                engine.syncing.joined(replica)
            for peer in members:
                engine.charge_idle(peer, engine.clock.now)
                engine.look(peer, engine.clock.now, 0.0)

    def next_step_of(self, peers: list[SimPeer]) -> None:
        """Reset the peers of fixed schedules to the start of one and the same new step."""
        next_step = 1 + max(peer.policy.num_steps for peer in peers)
        for peer in peers:
            peer.held_back = None
            if self._engine.outboxes is not None:
                self._engine.outboxes.clear(peer)
            peer.policy.reset()
            peer.policy.num_steps = next_step
