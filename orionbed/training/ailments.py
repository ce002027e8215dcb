"""What faults do to one peer itself: it is slow, it stands still, its clock is wrong."""

from collections.abc import Iterable

from orionbed.fault_effects import clock_offset_s, compute_factor, end_of
from orionbed.faults import ResolvedFault


class Ailments:
    """The faults of a run that hit one peer, as it feels them; seconds of the run."""

    def __init__(self, faults: Iterable[ResolvedFault], peer: int) -> None:
        self._peer = peer
        mine = [fault for fault in faults if peer in fault.peers]
        self._slow = [fault for fault in mine if fault.kind == "slow"]
        self._stretching = [fault for fault in mine if fault.kind in {"slow", "pause"}]
        self._clock = [fault for fault in mine if fault.kind == "clock"]
        self.pauses_s = sorted((fault.start_s, fault.end_s) for fault in mine if fault.kind == "pause")

    def end_s(self, start_s: float, lasts_s: float) -> float:
        """Return when an operation ends that would last so long on a healthy peer: slow ones and pauses stretch it."""
        return end_of(self._stretching, self._peer, start_s, lasts_s) if self._stretching else start_s + lasts_s

    def slowed_s(self, start_s: float, done_s: float) -> float:
        """Return when an operation ends whose work was really done at `done_s`; a pause has delayed that already."""
        factor = compute_factor(self._slow, self._peer, start_s) if self._slow else 1.0
        return start_s + (done_s - start_s) * factor

    def awake_s(self, at_s: float) -> float:
        """Return when the peer takes note of what happens at `at_s`: not while it stands still."""
        for from_s, to_s in self.pauses_s:
            if from_s <= at_s < to_s:
                return self.awake_s(to_s)
        return at_s

    def clock_s(self, at_s: float) -> float:
        """Return what the peer's own clock shows at `at_s`."""
        return at_s + clock_offset_s(self._clock, self._peer, at_s)
