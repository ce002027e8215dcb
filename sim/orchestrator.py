"""The orchestrator: registers peers, gives them stages, ends training phases and sends peers away.

    TRAINING -> WEIGHTS_UPLOADING -> MERGING_PARTITIONS -> TRAINING

A peer that comes back registers (request, speed test), is given a stage, is benched until the next epoch boundary and
then warms up. Rules after IOTA's public code of 2025 and 2026; what is assumed is said in docs/model.md.
"""

from collections.abc import Callable
from typing import Any, Final

import simpy

from orionbed.orchestration import (
    MERGING,
    TRAINING,
    UPLOADING,
    below,
    kicked,
    lowest,
    poorest_stages,
    stages_by_speed,
    training_is_over,
)
from orionbed.results import Mark
from orionbed.scenario.orchestrator import Orchestrator as Block
from sim.engine import Engine
from sim.merging import Merging, Process
from sim.newcomers import Newcomers
from sim.peer import SimPeer
from sim.rebalancing import Rebalancing
from sim.registering import Registering
from sim.store_traffic import StoreTraffic

KICKED: Final = "kicked"
# Peers that a stage cannot count on.
_ELSEWHERE: Final = frozenset({"down", KICKED, "registering"})


class Orchestrator:
    """One run's orchestrator. `place(peer, stage)` makes a peer one of another stage."""

    def __init__(self, engine: Engine, block: Block, place: Callable[[SimPeer, int], object]) -> None:
        self._engine = engine
        self._block = block
        self._place = place
        self.traffic = StoreTraffic(engine.network)
        self.registering = Registering(engine, block, self.traffic)
        self.newcomers = Newcomers(engine, self.traffic, block.warm_up, shares=block.share_optimizer_state)
        # Peers that were kicked, with the time; who trains from the epoch's beginning, with backwards done before.
        self._kicked_s: dict[int, float] = {}
        self._begun: dict[int, int] = {}
        self._scores: dict[int, float] = {}
        self._state, self._entered_s = "", 0.0
        self.num_kicked = self.num_assigned = self.num_timeouts = 0

    # ---------------------------------------------------------------- who joins

    def register_all(self) -> simpy.Event:
        """Register every peer that is there; the event happens when all are in."""
        there = [peer for peer in self._engine.peers if peer.status == "startup"]
        return self._engine.clock.all_of([self.registering.begin(peer, lambda _: None) for peer in there])

    def come_back(self, peer: SimPeer) -> None:
        """Take in a peer that is benched after it was away."""
        if self._engine.status.was_evicted(peer):
            self.registering.resets[peer.index] += 1
        if peer.index in self._kicked_s:
            # Back from another absence: what is left of this one begins.
            self._mark(peer.index, self._taken_s(peer.index))
            self._kicked_s[peer.index] = self._engine.clock.now
            peer.status = KICKED
            return
        peer.status = "registering"
        self.registering.begin(peer, self._registered)

    def _registered(self, peer: SimPeer) -> None:
        peer.charge_status(self._engine.clock.now)
        peer.status = "benched"
        self.newcomers.joined(peer)
        if not self._engine.in_training:
            self._assign([peer])  # the epoch's boundary is now

    def _assign(self, joiners: list[SimPeer]) -> None:
        """Give those who join the stages that the rule says."""
        rule, own = self._block.assign, [peer.stage for peer in joiners]
        if rule == "own" or not joiners:
            return
        members = [p for p in self._engine.peers if p.status not in _ELSEWHERE and p not in joiners]
        stages = range(self._engine.plan.num_stages)
        if rule == "poorest":
            chosen = poorest_stages(len(joiners), own, [sum(p.stage == stage for p in members) for stage in stages])
        else:
            capacity = [sum(1.0 / self._pace_s(p, stage) for p in members if p.stage == stage) for stage in stages]
            paces_s = [[self._pace_s(peer, stage) for stage in stages] for peer in joiners]
            chosen = stages_by_speed(paces_s, own, capacity)
        for peer, stage in zip(joiners, chosen, strict=True):
            if stage != peer.stage:
                self.num_assigned += 1
                self._place(peer, stage)

    def _pace_s(self, peer: SimPeer, stage: int) -> float:
        """Seconds that a peer needs per micro-batch at a stage: of its GPU or of its links, whatever takes longer."""
        plan = self._engine.plan
        pace_s = plan.pace_s(peer.plan, stage)
        rates = self.registering.rates[peer.index]
        if rates is None:
            return pace_s
        # One tensor each way over every boundary of the stage.
        num_tensors = (stage > 0) + (stage < plan.num_stages - 1)
        return max(pace_s, num_tensors * plan.boundary_bytes / min(rates))

    # ---------------------------------------------------------------- epochs

    def epoch_begins(self) -> None:
        """Remember who trains, and what they had done."""
        self._enter(TRAINING)
        self.newcomers.epoch_begins()
        self._begun = {p.index: p.num_done["B"] for p in self._engine.peers if p.status == "training"}

    def _enter(self, state: str) -> None:
        """Mark the state that ends now, if one does."""
        if self._state and self._engine.clock.now > self._entered_s:
            self._engine.marks.append(Mark(self._entered_s, self._engine.clock.now, "state", detail=self._state))
        self._state, self._entered_s = state, self._engine.clock.now

    def hear(self, phase: str) -> None:
        """A phase of a merge begins; what comes after the uploads is one state."""
        state = UPLOADING if phase == "upload" else MERGING
        if state != self._state:
            self._enter(state)

    def training(self, every_s: float) -> Process:
        """Wait until TRAINING is over: `every_s`, or what the trigger says, at most the timeout."""
        clock, trigger = self._engine.clock, self._block.trigger
        if isinstance(trigger, str):
            yield clock.timeout(every_s)
            return
        before = [peer.num_done["B"] for peer in self._engine.peers]
        until_s = clock.now + self._block.timeout
        while clock.now < until_s:
            yield clock.timeout(min(trigger.check_every, until_s - clock.now))
            done = [p.num_done["B"] - before[p.index] for p in self._engine.peers if p.status == "training"]
            if training_is_over(done, trigger.share, trigger.backwards):
                return
        self.num_timeouts += 1

    def training_is_about_to_end(self) -> None:
        """Score those who trained from beginning to end, before anything is flushed."""
        peers = self._engine.peers
        self._scores = {
            index: float(peers[index].num_done["B"] - before)
            for index, before in self._begun.items()
            if peers[index].status == "training"
        }
        for index in self._scores:
            self.registering.resets[index] = 0  # a whole epoch without a reset
        self.newcomers.training_ends()

    def boundary(self) -> None:
        """Give the peers that have joined during the epoch their stages, before they fetch weights."""
        self._assign([peer for peer in self._engine.peers if peer.status == "benched"])

    def epoch_ends(self, ready: list[SimPeer]) -> list[SimPeer]:
        """Send away whom the policy says; return those of `ready` that stay."""
        kick = self._block.kick
        if isinstance(kick, str):
            return ready
        here = {peer.index for peer in ready}
        scores = {index: score for index, score in self._scores.items() if index in here}
        lows = lowest(scores, kick.number) if kick.policy == "bottom-n" else below(scores, kick.below)
        peers = self._engine.peers
        counts = [0] * self._engine.plan.num_stages
        for peer in peers:
            counts[peer.stage] += peer.status not in _ELSEWHERE
        gone = kicked(lows, {index: peers[index].stage for index in lows}, counts)
        for index in gone:
            self._kick(peers[index], kick.lasts)
        return [peer for peer in ready if peer.index not in gone]

    def _kick(self, peer: SimPeer, lasts_s: float | None) -> None:
        engine = self._engine
        self.num_kicked += 1
        self._kicked_s[peer.index] = engine.clock.now
        peer.charge_status(engine.clock.now)
        peer.status = KICKED
        engine.status.forget(peer)
        if engine.scribe is not None:
            engine.scribe.lost(peer)
        if lasts_s is not None:
            engine.clock.call_in(lasts_s, self._pardon, peer)

    def _pardon(self, peer: SimPeer) -> None:
        now = self._engine.clock.now
        self._mark(peer.index, now if peer.status == KICKED else peer.accounted_s)
        if peer.status == KICKED:  # else it has left for another reason meanwhile, and comes back by itself
            peer.charge_status(now)
            peer.status = "benched"
            self.come_back(peer)

    def _taken_s(self, index: int) -> float:
        """When a kicked peer left for another reason, which has its own mark; else now."""
        marks, kicked_s = self._engine.marks, self._kicked_s[index]
        others = [m.start_s for m in marks if m.peer == index and m.kind == "down" and m.start_s >= kicked_s]
        return max(others, default=self._engine.clock.now)

    def _mark(self, index: int, end_s: float) -> None:
        """Mark that a peer was kicked until `end_s`: absences of a peer do not overlap."""
        self._engine.marks.append(Mark(self._kicked_s.pop(index), end_s, "down", index, KICKED))

    def close(self) -> None:
        """Mark those who are still away, and the state, when the run ends."""
        self._enter("")
        for index in sorted(self._kicked_s):
            self._mark(index, self._taken_s(index))

    def summary(self) -> dict[str, Any]:
        """Return the summary's part about the life of peers."""
        stored, read = self.traffic.moved()
        return {
            **self.registering.summary(),
            "assigned_elsewhere": self.num_assigned,
            **self.newcomers.summary(),
            "kicks": self.num_kicked,
            "training_timeouts": self.num_timeouts,
            "bytes_up": stored,
            "bytes_down": read,
        }


def make_orchestrator(engine: Engine, merging: Merging | None, rebalancing: Rebalancing) -> Orchestrator | None:
    """Return the scenario's orchestrator, who from now on takes in the peers that come back; `None` without one."""
    block = engine.plan.scenario.orchestrator
    if isinstance(block, str):
        return None
    orchestrator = Orchestrator(engine, block, rebalancing.place)
    rebalancing.welcome = orchestrator.come_back
    if merging is not None:
        merging.tell = orchestrator.hear
    return orchestrator
