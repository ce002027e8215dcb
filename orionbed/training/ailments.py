"""What faults do to one peer itself: it is slow, it stands still, its clock is wrong."""

from collections.abc import Iterable

from orionbed.fault_effects import compute_factor
from orionbed.faults import ResolvedFault


class Ailments:
    """The faults of a run that hit one peer, as it feels them; seconds of the run."""

    def __init__(self, faults: Iterable[ResolvedFault], peer: int) -> None:
        self._peer = peer
        mine = [fault for fault in faults if peer in fault.peers]
        self._slow = [fault for fault in mine if fault.kind == "slow"]
        self._clock = [fault for fault in mine if fault.kind == "clock"]
        self.pauses_s = sorted((fault.start_s, fault.end_s) for fault in mine if fault.kind == "pause")

    def end_s(self, start_s: float, lasts_s: float) -> float:
        """Return when an operation ends that would last so long on a healthy peer: slow ones and pauses stretch it."""
        factor = compute_factor(self._slow, self._peer, start_s) if self._slow else 1.0
        end_s = start_s + lasts_s * factor
        for from_s, to_s in self.pauses_s:
            if from_s < end_s and start_s < to_s:
                end_s += to_s - max(from_s, start_s)
        return end_s

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
        found = at_s
        for fault in self._clock:
            if fault.hits(self._peer, at_s):
                drift = 1e-6 * fault.parameters.number("drift_ppm")
                found += fault.parameters.number("offset_s") + drift * (at_s - fault.start_s)
        return found
