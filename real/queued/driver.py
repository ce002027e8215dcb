"""Real time for a peer's loop: events happen when they are due, work is done beside them by a thread of its own."""

import threading
from collections import deque
from collections.abc import Callable
from math import inf
from queue import SimpleQueue
from typing import Any, Final

from orionbed.fleet.clock import PacedClock
from orionbed.training.timeline import Event, Timeline

Happening = tuple[float, Callable[[Any], object], Any]
_IN_SMALL_PARTS_S: Final = 0.05
"""Longest sleep before a look at what has come in, so that a missed wake-up costs no more."""
_MOST_SAMPLES: Final = 50_000
_MOST_TOLD: Final = 5_000


class Driver:
    """Lets the events of a loop happen when their second comes. What comes from outside keeps its own second."""

    def __init__(self, timeline: Timeline, clock: PacedClock) -> None:
        self._timeline, self._clock = timeline, clock
        self._incoming: deque[Happening] = deque()
        self._bell = threading.Event()
        self._end_s = inf
        self._failure: BaseException | None = None
        self._over = False
        self.late_s: list[float] = []

    def happen(self, at_s: float, fn: Callable[[Any], object], arg: Any) -> None:
        """Put something that has happened at `at_s`, or will, on the timeline, from any thread."""
        self._incoming.append((at_s, fn, arg))
        self._bell.set()

    def end(self, at_s: float) -> None:
        """Have `run` return at a second of the run, and nothing happen after it; from any thread."""
        self._end_s = at_s
        self.happen(at_s, self._stop, None)

    def fail(self, error: BaseException) -> None:
        """Have `run` raise an error, from any thread."""
        self._failure = error
        self._bell.set()

    def _stop(self, _: object) -> None:
        self._over = True

    def run(self) -> None:
        """Go on until the end."""
        timeline, clock = self._timeline, self._clock
        while not self._over:
            if self._failure is not None:
                raise self._failure
            while self._incoming:
                at_s, fn, arg = self._incoming.popleft()
                timeline.at(at_s, fn, arg, exact=True)
            next_s = timeline.next_s()
            wait_s = clock.real_until(next_s) if next_s < inf else inf
            if wait_s > 0.0:
                self._bell.wait(min(wait_s, _IN_SMALL_PARTS_S))
                self._bell.clear()
                continue
            if len(self.late_s) < _MOST_SAMPLES:
                self.late_s.append(-wait_s)
            timeline.step(min(clock.now(), self._end_s))


class WorkerThread:
    """Does the work of one operation at a time; what goes wrong ends the driver. `label` hears what it is at."""

    def __init__(self, driver: Driver, clock: PacedClock, label: Callable[[str], None]) -> None:
        self._driver, self._clock, self._label = driver, clock, label
        self._orders: SimpleQueue[tuple[Callable[[], None], Callable[[Event], None], Event] | None] = SimpleQueue()
        self._idle = threading.Event()
        self._idle.set()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="operations", daemon=True)
        self._thread.start()

    def begin(self, what: str, work: Callable[[], None], ended: Callable[[Event], None], ending: Event) -> None:
        """Begin some work."""
        self._label(what)
        self._idle.clear()
        self._orders.put((work, ended, ending))

    def wait(self) -> float:
        """Wait until nothing is being worked on; return the second of the run at which that is."""
        self._idle.wait()
        if self._error is not None:
            raise self._error
        return self._clock.now()

    def close(self) -> None:
        """End the thread, when what it is at is done."""
        self._orders.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (order := self._orders.get()) is not None:
            work, ended, ending = order
            try:
                work()
            except BaseException as error:  # noqa: BLE001  (whatever it was, the peer's own thread ends by it)
                self._error = error
                self._driver.fail(error)
                return
            finally:
                self._idle.set()
            self._driver.happen(self._clock.now(), ended, ending)


def thinned(late_s: list[float]) -> list[float]:
    """Return latenesses in microseconds' precision, evenly thinned out where there are many, the largest kept."""
    if len(late_s) > _MOST_TOLD:
        late_s = [*sorted(late_s)[:: -(-len(late_s) // _MOST_TOLD)], max(late_s)]
    return [round(value, 6) for value in late_s]
