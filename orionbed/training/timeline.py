"""The events of one peer in the order of their stamps, whatever clock drives them."""

from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from math import inf
from typing import Any


class Event:
    """Something that happens to a peer at a second of the run, unless it is cancelled.

    One that is `exact` has happened at that second; others happen when the peer comes to them.
    """

    __slots__ = ("arg", "at_s", "exact", "fn")

    def __init__(self, at_s: float, fn: Callable[[Any], object], arg: Any, *, exact: bool = False) -> None:
        self.at_s = at_s
        self.fn: Callable[[Any], object] | None = fn
        self.arg = arg
        self.exact = exact

    def cancel(self) -> None:
        """Make it not happen; harmless when it has."""
        self.fn = None


class Timeline:
    """A peer's own events. `now_s` never goes back: what comes with an earlier stamp happens now."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.num_happened = 0
        self._heap: list[tuple[float, int, Event]] = []
        self._next_number = count().__next__

    def at(self, at_s: float, fn: Callable[[Any], object], arg: Any = None, *, exact: bool = False) -> Event:
        """Have `fn(arg)` called at `at_s`."""
        event = Event(at_s, fn, arg, exact=exact)
        heappush(self._heap, (at_s, self._next_number(), event))
        return event

    def next_s(self) -> float:
        """Return the stamp of the next event, infinite when there is none."""
        while self._heap and self._heap[0][2].fn is None:
            heappop(self._heap)
        return self._heap[0][0] if self._heap else inf

    def step(self, not_before_s: float = 0.0) -> Event:
        """Let the next event happen, unless it is exact not before a second; IndexError when there is none."""
        self.next_s()
        _, _, event = heappop(self._heap)
        fn = event.fn
        assert fn is not None
        self.now_s = max(self.now_s, event.at_s, 0.0 if event.exact else not_before_s)
        self.num_happened += 1
        fn(event.arg)
        return event
