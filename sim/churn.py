"""Peers that leave and come back: one SimPy process per peer, led by its absences."""

from math import isfinite

from orionbed import tracing
from orionbed.absences import LIFETIME, Absences
from orionbed.results import Mark
from orionbed.schedule.queue_driven import QueueDrivenPolicy
from sim.engine import Engine
from sim.merging import Process
from sim.peer import SimPeer
from sim.rebalancing import Rebalancing


class Churn:
    """Takes peers away and brings them back, benched until the next epoch or, without merges, until they are ready."""

    def __init__(self, engine: Engine, rebalancing: Rebalancing) -> None:
        self._engine = engine
        self._rebalancing = rebalancing
        self._left: dict[int, tuple[float, str]] = {}
        self._shut: dict[int, tuple[QueueDrivenPolicy, int]] = {}

    def start(self) -> None:
        """Start every peer's life; absences count from now on."""
        engine = self._engine
        absences = Absences(engine.plan, engine.streams.seed, engine.clock.now)
        for peer in engine.peers:
            if peer.status != "down":  # one that is absent all along
                engine.clock.process(self._life(peer, absences))

    def _life(self, peer: SimPeer, absences: Absences) -> Process:
        clock = self._engine.clock
        for absence in absences.of(peer.index):
            if absence.notice_s:
                yield clock.until(max(clock.now, absence.start_s - absence.notice_s))
                self._give_notice(peer)
            yield clock.until(absence.start_s)
            self._forget_notice(peer)
            if peer.status == "down":  # a fault has taken it, and brings it back
                continue
            self._leave(peer, absence.reason)
            if not isfinite(absence.end_s):
                return
            yield clock.until(absence.end_s)
            peer.charge(tracing.CAUSE_DOWN, clock.now)
            peer.status = "benched"
            self._mark(peer.index)
            self._rebalancing.come_back(peer)

    def _give_notice(self, peer: SimPeer) -> None:
        """Let a peer know that it will be taken: it takes nothing new, and finishes what it has."""
        peer.is_leaving = True
        if peer.status == "training":
            self._engine.status.announce(peer)
        if isinstance(peer.policy, QueueDrivenPolicy) and peer.stage == 0:
            # What it holds goes on; nothing else begins, for a first stage takes its work from nobody.
            self._shut[peer.index] = (peer.policy, peer.policy.window)
            peer.policy.window = 0

    def _forget_notice(self, peer: SimPeer) -> None:
        peer.is_leaving = False
        if peer.index in self._shut:
            policy, window = self._shut.pop(peer.index)
            policy.window = window

    def _mark(self, index: int) -> None:
        left_s, reason = self._left.pop(index)
        detail = "" if reason == LIFETIME else reason
        self._engine.marks.append(Mark(left_s, self._engine.clock.now, "down", index, detail))

    def close(self) -> None:
        """Mark those who are still away when the run ends."""
        for index in sorted(self._left):
            self._mark(index)

    def _leave(self, peer: SimPeer, reason: str) -> None:
        self._left[peer.index] = (self._engine.clock.now, reason)
        self._rebalancing.take(peer)
