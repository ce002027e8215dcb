"""Timing: operations done in turn, many times over, and what their times were."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from orionbed.scenario.measurements import Spread

if TYPE_CHECKING:
    import torch

FEWEST_REPETITIONS: Final = 3
"""Done whatever the time."""
LEAST_SHARE: Final = 0.9
"""A thread that has had less than this part of a core was held up by others."""

Mark = Callable[[], None]


class Clock(Protocol):
    """Takes the time between marks."""

    def mark(self) -> None:
        """Note that the device has come to this point."""

    def laps(self) -> list[float]:
        """Return the seconds between the marks since the last call, and forget them."""
        ...


class HostClock:
    """The time of day, for devices that are done when a call returns.

    With `own` it counts only the time in which this thread had a core, which is all the time where nothing else runs:
    others on the machine then lengthen no measurement but by what they take of caches. For work of one thread.
    `between` is called at every mark, and takes no time by this clock.
    """

    def __init__(self, *, own: bool = False, between: Callable[[], None] | None = None) -> None:
        self._own = own
        self.between = between
        # when the lap before ended, and when the next one began, in passed and in computed seconds
        self._marks: list[tuple[tuple[float, float], tuple[float, float]]] = []
        self._passed_s = 0.0
        self._computed_s = 0.0

    def mark(self) -> None:
        now_s = begins_s = self._now_s()
        if self.between is not None:
            self.between()
            begins_s = self._now_s()
        self._marks.append((now_s, begins_s))

    @staticmethod
    def _now_s() -> tuple[float, float]:
        return time.perf_counter(), time.thread_time()

    def laps(self) -> list[float]:
        marks, self._marks = self._marks, []
        laps = [(end[0] - begin[0], end[1] - begin[1]) for (_, begin), (end, _) in pairwise(marks)]
        self._passed_s += sum(passed for passed, _ in laps)
        self._computed_s += sum(computed for _, computed in laps)
        return [lap[self._own] for lap in laps]

    @property
    def share(self) -> float:
        """The part of all time between marks in which this thread had a core."""
        return self._computed_s / self._passed_s if self._passed_s else 1.0


class CudaClock:
    """Events in a GPU's queue of work: it is read once all of it is done, so that nothing waits in between."""

    def __init__(self) -> None:
        self._events: list[torch.cuda.Event] = []

    def mark(self) -> None:
        import torch

        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        self._events.append(event)

    def laps(self) -> list[float]:
        import torch

        torch.cuda.synchronize()
        events, self._events = self._events, []
        return [before.elapsed_time(after) / 1e3 for before, after in pairwise(events)]


def clock_of(device: str, threads: int = 1) -> Clock:
    """Return the clock for a device, on a CPU for work of so many threads."""
    return HostClock(own=threads == 1) if device == "cpu" else CudaClock()


def held_up(clock: Clock) -> str:
    """Return what to say where others have kept this process from its core; empty where they have not."""
    if not isinstance(clock, HostClock) or clock.share >= LEAST_SHARE:
        return ""
    return (
        f"others took {1 - clock.share:.0%} of this process's core while it was measured; without them times are surer"
    )


@dataclass(frozen=True, slots=True)
class Timed:
    """Something to time: `run` calls its argument before the first of its `sections` and after each of them."""

    name: str
    sections: tuple[str, ...]
    run: Callable[[Mark], None]


@dataclass(frozen=True, slots=True)
class Effort:
    """How often things are timed, after how many times that do not count.

    Past `until_s`, on the monotonic clock, one warm-up and the fewest repetitions have to do.
    """

    repetitions: int = 30
    warm_up: int = 5
    until_s: float | None = None


Times = dict[str, list[float]]
"""Seconds by section, one per repetition."""


def measure(timed: Sequence[Timed], clock: Clock, effort: Effort) -> dict[str, Times]:
    """Return the seconds of every section of every entry, by name.

    Entries take turns, so that what else goes on on the machine, and its clocks, bear on all of them alike.
    """
    found: dict[str, Times] = {each.name: {section: [] for section in each.sections} for each in timed}
    for repetition in range(-effort.warm_up, effort.repetitions):
        late = effort.until_s is not None and time.monotonic() > effort.until_s
        if late and repetition >= FEWEST_REPETITIONS:
            break
        if late and repetition < -1:
            continue
        for each in timed:
            each.run(clock.mark)
            laps = clock.laps()
            if repetition >= 0:
                for section, seconds in zip(each.sections, laps, strict=True):
                    found[each.name][section].append(seconds)
    return found


def spread_of(seconds: Sequence[float], *, per: float = 1.0) -> Spread:
    """Return median, 5th and 95th percentile of some times, each divided by `per`, to five digits."""
    low, middle, high = (rounded(float(at) / per) for at in np.percentile(np.asarray(seconds), (5, 50, 95)))
    return Spread(median=middle, p5=low, p95=high)


def median_of(seconds: Sequence[float]) -> float:
    """Return the median of some times."""
    return float(np.median(np.asarray(seconds)))


def rounded(value: float, digits: int = 5) -> float:
    """Return a number to so many significant digits."""
    return float(f"{value:.{digits}g}")
