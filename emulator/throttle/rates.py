"""How many bytes per run second a link carries, and when a number of them has passed."""

from bisect import bisect_right, insort
from collections.abc import Iterable
from math import inf
from typing import Final

from orionbed.bandwidth import Profile
from orionbed.bandwidth_trace import record

_Step = tuple[float, float]
_NEVER: Final = (inf, -inf)


class Rate:
    """A rate in bytes per run second that is constant between its changes; 0 stands still, infinity takes no time.

    `steps` are (from second, rate) in order of time; before the first the rate is that of the first. Later `change`s
    multiply the rate and bound it. Not for use by several threads at once. ValueError: no steps, wrong order, negative.
    """

    def __init__(self, steps: Iterable[_Step]) -> None:
        self._base = [(float(at_s), float(rate)) for at_s, rate in steps]
        if not self._base:
            raise ValueError("a rate needs at least one step")
        if any(later[0] <= earlier[0] for earlier, later in zip(self._base, self._base[1:], strict=False)):
            raise ValueError("the steps of a rate must be in order of time, one at a time")
        if not all(rate >= 0.0 for _, rate in self._base):
            raise ValueError("a rate must not be below 0")
        self._changes: list[tuple[float, int, float, float]] = []
        self._merge()

    @classmethod
    def constant(cls, bytes_per_s: float) -> "Rate":
        """Return a rate that never changes by itself."""
        return cls([(0.0, bytes_per_s)])

    @classmethod
    def recorded(cls, profile: Profile, duration_s: float, factor: float = 1.0) -> "Rate":
        """Return the first `duration_s` of a profile, times `factor`; afterwards the last rate stays."""
        return cls(record(profile, duration_s, factor))

    def change(self, at_s: float, factor: float = 1.0, ceiling: float = inf) -> None:
        """From `at_s` until the next change the rate is min(factor * its own, ceiling); this replaces earlier changes.

        Of two changes at one second the one made later counts.
        """
        if not (factor >= 0.0 and ceiling >= 0.0):
            raise ValueError(f"factor {factor} and ceiling {ceiling} must not be below 0")
        insort(self._changes, (at_s, len(self._changes), factor, ceiling))
        self._merge()

    def at(self, time_s: float) -> float:
        """Return the rate from `time_s` on."""
        begin_s, end_s, rate = self._segment
        if begin_s <= time_s < end_s:
            return rate
        return self._find(time_s)

    def finish(self, start_s: float, num_bytes: float) -> float:
        """Return when that many bytes have passed that begin at `start_s`; infinite if they never do."""
        begin_s, end_s, rate = self._segment
        left = num_bytes
        at_s = start_s
        while True:
            if not begin_s <= at_s < end_s:
                self._find(at_s)
                begin_s, end_s, rate = self._segment
            if left <= 0.0:
                return at_s
            done_s = at_s + left / rate if rate > 0.0 else inf
            if done_s <= end_s:
                return done_s
            left -= rate * (end_s - at_s)
            at_s = end_s

    def amount(self, begin_s: float, end_s: float) -> float:
        """Return the bytes that pass between two run seconds."""
        total = 0.0
        at_s = begin_s
        while at_s < end_s:
            rate = self._find(at_s)
            until_s = min(self._segment[1], end_s)
            if rate > 0.0:
                total += rate * (until_s - at_s)
            at_s = until_s
        return total

    def entry(self, begin_s: float, arrival_s: float, num_bytes: float) -> float:
        """Return when bytes can begin to pass whose first comes in at `begin_s` and whose last at `arrival_s`.

        A link passes bytes on while they come in: from `begin_s` on if it is slower than they come, else just late
        enough that the last can leave when it has come.
        """
        rate = self.at(arrival_s)
        return max(begin_s, arrival_s - num_bytes / rate) if rate > 0.0 else arrival_s

    def _find(self, time_s: float) -> float:
        after = bisect_right(self._times, time_s)
        rate = self._rates[max(after - 1, 0)]
        begin_s = self._times[after - 1] if after else -inf
        end_s = self._times[after] if after < len(self._times) else inf
        self._segment = (begin_s, end_s, rate)
        return rate

    def _merge(self) -> None:
        """Work out the steps that result from the base and the changes."""
        times = sorted({at_s for at_s, _ in self._base} | {change[0] for change in self._changes})
        base_s = [at_s for at_s, _ in self._base]
        changed_s = [change[0] for change in self._changes]
        self._times = times
        self._rates: list[float] = []
        for at_s in times:
            rate = self._base[max(bisect_right(base_s, at_s) - 1, 0)][1]
            change = bisect_right(changed_s, at_s) - 1
            if change >= 0:
                _, _, factor, ceiling = self._changes[change]
                rate = min(rate * factor if factor > 0.0 else 0.0, ceiling)
            self._rates.append(rate)
        self._segment = (*_NEVER, 0.0)
        # Before the first step the base's first rate holds, whatever changes later.
        if self._changes and self._changes[0][0] <= self._base[0][0]:
            self._times.insert(0, -inf)
            self._rates.insert(0, self._base[0][1])
