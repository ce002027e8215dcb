"""The bridge service as the source of what peers know: each writes its state now and then, and polls the others'.

What a sender knows of a peer is what its last poll found in the registry: old by up to the time between two writes, the
time between two polls and a request's delay. A peer that is gone without a word stays in the registry, and may be
chosen, until it has not written for `evict_after`. The peers of a stage poll together, so there is one view per stage.
"""

from collections import deque
from math import inf
from typing import Any, NamedTuple

from orionbed.bridge import Bridge
from orionbed.plan import Plan
from orionbed.scenario.orchestrator import BridgeBlock
from orionbed.schedule.queue_driven import QueueDrivenPolicy
from orionbed.streams import Streams
from sim.clock import Clock
from sim.peer import SimPeer
from sim.status import Board, StatusBoard

# In these a peer writes nothing: it is not there, or nobody asks it to.
_SILENT = frozenset({"down", "kicked", "startup"})


class State(NamedTuple):
    """What a peer writes of itself, and when it did."""

    sent_s: float
    is_training: bool
    num_free: int
    num_queued: int


class Registry(Board):
    """Views of the stages as they were polled from the bridge."""

    measures = True

    def __init__(self, plan: Plan, clock: Clock, streams: Streams, block: BridgeBlock) -> None:
        super().__init__(plan, clock, streams)
        self.bridge = Bridge()
        self.num_evicted = 0
        self._block = block
        self._peers: list[SimPeer] = []
        self._evicted: set[int] = set()
        self._keys = [f"peers/{peer.index}" for peer in plan.peers]
        # Writes that have yet to reach the bridge, and when the state that senders know was written.
        self._under_way: list[deque[State]] = [deque() for _ in plan.peers]
        self._known_s = [-inf] * len(plan.peers)
        self._expires_s = [inf] * len(plan.peers)
        self._num_chosen = 0
        self._age_sum_s = 0.0
        self._age_max_s = 0.0
        self._writes = streams.get("bridge/keep-alive")
        self._polls = streams.get("bridge/poll")
        for view in self.views:
            for position in range(len(view.peers)):
                view.drop(position)

    def start(self, peers: list[SimPeer], every_s: float, *, may_move: bool) -> None:  # noqa: ARG002
        """Start keep-alives, each peer at its own phase, and polls, each stage at its own."""
        block = self._block
        self._peers = peers
        for peer, phase in zip(peers, self._writes.uniform(0.0, block.keep_alive_every, len(peers)), strict=True):
            self._clock.call_in(float(phase), self._keep_alive, peer)
        for stage, phase in enumerate(self._polls.uniform(0.0, block.poll_every, len(self.views))):
            self._clock.call_in(float(phase), self._poll, stage)

    def announce(self, peer: SimPeer) -> None:
        """Write the state of `peer` now: it has changed."""
        self._write(peer)

    def forget(self, peer: SimPeer) -> None:
        super().forget(peer)
        self._under_way[peer.index].clear()
        self.bridge.delete(self._keys[peer.index])
        self._expires_s[peer.index] = inf

    def _keep_alive(self, peer: SimPeer) -> None:
        is_mute = self.is_silent is not None and self.is_silent(peer, self._block.evict_after)
        if peer.status not in _SILENT and not is_mute:
            self._write(peer)
        self._clock.call_in(self._block.keep_alive_every, self._keep_alive, peer)

    def _write(self, peer: SimPeer) -> None:
        policy = peer.policy
        if isinstance(policy, QueueDrivenPolicy):
            takes_work = peer.status == "training" and not peer.is_leaving
            state = State(self._clock.now, takes_work, policy.num_free, policy.num_queued)
            self._under_way[peer.index].append(state)

    def _land(self, index: int, now: float) -> None:
        """Let the bridge have what has reached it by now."""
        waiting = self._under_way[index]
        while waiting and waiting[0].sent_s + self._block.delay <= now:
            state = waiting.popleft()
            self.bridge.put(self._keys[index], state, state.sent_s)
            self._expires_s[index] = state.sent_s + self._block.evict_after

    def _poll(self, stage: int) -> None:
        """Those who send to `stage` read what is known of its peers."""
        now, view = self._clock.now, self.views[stage]
        sent_s = now - self._block.delay
        for position, index in enumerate(view.peers):
            waiting = self._under_way[index]
            if waiting and waiting[0].sent_s <= sent_s:
                self._land(index, now)
            elif now <= self._expires_s[index]:
                continue  # nothing new
            peer = self._peers[index]
            if peer.position == position and peer.stage == stage:
                self._see(peer, now)
        self._clock.call_in(self._block.poll_every, self._poll, stage)

    def _see(self, peer: SimPeer, now: float) -> None:
        index, view, key = peer.index, self.views[peer.stage], self._keys[peer.index]
        entry = self.bridge.get(key)
        if entry is None:
            view.drop(peer.position)
        elif not self.bridge.is_fresh(key, now, self._block.evict_after):
            self.bridge.delete(key)
            self._expires_s[index] = inf
            self._evicted.add(index)
            self.num_evicted += 1
            view.drop(peer.position)
        elif entry.value.is_training:
            view.update(peer.position, entry.value.num_free, entry.value.num_queued)
            self._known_s[index] = entry.value.sent_s
        else:
            view.drop(peer.position)

    def was_evicted(self, peer: SimPeer) -> bool:
        found = peer.index in self._evicted
        self._evicted.discard(peer.index)
        return found

    def chose(self, target: SimPeer) -> None:
        age_s = self._clock.now - self._known_s[target.index]
        self._num_chosen += 1
        self._age_sum_s += age_s
        self._age_max_s = max(self._age_max_s, age_s)

    def summary(self) -> dict[str, Any]:
        """Add how old what senders knew of the peers was that they sent to and that were there."""
        return super().summary() | {
            "evictions": self.num_evicted,
            "staleness_mean_s": self._age_sum_s / self._num_chosen if self._num_chosen else 0.0,
            "staleness_max_s": self._age_max_s,
            "staleness_bound_s": self._block.keep_alive_every + self._block.poll_every + self._block.delay,
        }


def make_board(plan: Plan, clock: Clock, streams: Streams) -> Board:
    """Return what peers know of one another in this scenario."""
    schedule = plan.scenario.pipeline.schedule
    if schedule.kind == "queue" and not isinstance(schedule.knowledge, str):
        return Registry(plan, clock, streams, schedule.knowledge)
    return StatusBoard(plan, clock, streams)
