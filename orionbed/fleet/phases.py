"""Waiting for enough peers to finish a phase of a merge: the quorum starts at all of them and relaxes with time."""

import asyncio
from collections.abc import Callable, Iterable
from math import floor

from orionbed.deadlines import relaxed_quorum
from orionbed.fleet.clock import PacedClock
from orionbed.scenario.merging import Merge


class Gate:
    """One phase of a merge. Seconds are those of the run; the gate opens at the second of what opened it."""

    def __init__(self, clock: PacedClock, peers: Iterable[int], began_s: float) -> None:
        self.pending = set(peers)
        self.lost: set[int] = set()
        self._num_peers = len(self.pending)
        self._clock = clock
        self._began_s = began_s
        self._last_s = began_s
        self._changed = asyncio.Event()

    def done(self, peer: int, at_s: float) -> bool:
        """A peer is through; return whether it was waited for."""
        if peer not in self.pending:
            return False
        self.pending.discard(peer)
        self._last_s = max(self._last_s, at_s)
        self._changed.set()
        return True

    def gone(self, peer: int, at_s: float) -> None:
        """A peer was lost, with all that it had."""
        self.lost.add(peer)
        self.done(peer, at_s)

    async def wait(self, block: Merge) -> float:
        """Wait for the quorum, at most the phase's timeout; return the second at which that was."""
        now_s = self._began_s
        while not self._is_open(block, now_s):
            ticks = floor((max(now_s, self._clock.now()) - self._began_s) / block.quorum_every + 1e-9) + 1
            tick_s = self._began_s + ticks * block.quorum_every
            await self._until(tick_s, lambda now_s=now_s: self._is_open(block, now_s))  # type: ignore[misc]
            if not self._is_open(block, now_s):
                now_s = tick_s
        return max(now_s, self._last_s) if self.pending else self._last_s

    def _is_open(self, block: Merge, now_s: float) -> bool:
        """Whether enough are through, by the quorum of a second of the run."""
        passed_s = now_s - self._began_s
        missing = len(self.pending)
        if not missing or passed_s >= block.timeout:
            return True
        return 1.0 - missing / self._num_peers >= relaxed_quorum(block, passed_s)

    async def _until(self, at_s: float, over: Callable[[], bool]) -> None:
        while not over():
            wait_s = self._clock.real_until(at_s)
            if wait_s <= 0.0:
                return
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), wait_s)
            except TimeoutError:
                return
