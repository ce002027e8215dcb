"""Simulated time: SimPy's environment with plain callbacks beside its events, and a fast loop.

SimPy resumes a generator for every event, which costs microseconds. The hot paths of this backend (a transfer is
delivered, an operation ends) need no generator: they put a `Call` on the same heap. Both kinds run in one order, by
(time, priority, sequence), so processes and callbacks interleave in the same way on every run.

At one instant things happen in this order: transfers complete, capacities change, everything else (arrivals, ends of
operations, SimPy's own events), and last the network is solved once.
"""

from collections.abc import Callable, Iterator
from heapq import heappop, heappush
from itertools import count
from math import inf
from typing import Any, Final, cast

import simpy
from simpy.core import EmptySchedule, StopSimulation
from simpy.events import Event, EventPriority

COMPLETION: Final = -3
CAPACITY: Final = -2
URGENT: Final = int(simpy.events.URGENT)
NORMAL: Final = int(simpy.events.NORMAL)
SOLVE: Final = 2
_LAST: Final = 1 << 30


def nothing(_arg: object) -> None:
    """Stand in for the function of a cancelled call."""


class Scheduled:
    """What lies on the clock's heap: a function that will be called once with one argument.

    It has no `__init__`: whoever makes one sets `fn` and `arg`, which halves the cost of making it.
    """

    __slots__ = ("arg", "fn")

    fn: Callable[[Any], object]
    arg: Any


class Call(Scheduled):
    """A scheduled call that may be cancelled."""

    __slots__ = ()

    def cancel(self) -> None:
        """Make the call do nothing when its time comes; harmless when it has happened already."""
        self.fn = nothing

    @property
    def cancelled(self) -> bool:
        """Whether `cancel` was called."""
        return self.fn is nothing


class Clock(simpy.Environment):
    """SimPy environment with light calls, an inlined loop and a count of the events that happened.

    `now` is in seconds; `events` counts everything taken from the heap so far, cancelled calls included. `heap` and
    `next_number` are what `call_at` uses: code of this backend that schedules millions of events may push
    (time_s, priority, next_number(), call) itself. SimPy's events travel on the heap inside a call.
    """

    now: float = 0.0

    def __init__(self, initial_time_s: float = 0.0) -> None:
        super().__init__()
        self.now = initial_time_s
        self.events = 0
        self.heap = cast("list[tuple[float, int, int, Scheduled]]", self._queue)
        self.next_number = count().__next__

    def call_at(self, time_s: float, fn: Callable[[Any], object], arg: object = None, priority: int = NORMAL) -> Call:
        """Call `fn(arg)` at `time_s` seconds; ValueError if that is in the past or not a number."""
        if not time_s >= self.now:
            raise ValueError(f"cannot call at {time_s} s: the clock is at {self.now} s")
        call = Call()
        call.fn = fn
        call.arg = arg
        heappush(self.heap, (time_s, priority, self.next_number(), call))
        return call

    def call_in(self, delay_s: float, fn: Callable[[Any], object], arg: object = None, priority: int = NORMAL) -> Call:
        """Call `fn(arg)` after `delay_s` seconds; ValueError if that is negative or not a number."""
        if not delay_s >= 0.0:
            raise ValueError(f"cannot call after {delay_s} s")
        call = Call()
        call.fn = fn
        call.arg = arg
        heappush(self.heap, (self.now + delay_s, priority, self.next_number(), call))
        return call

    def until(self, time_s: float) -> Event:
        """Return an event that happens at `time_s` seconds, to the bit: a timeout would add its delay to now."""
        event = Event(self)
        event._ok, event._value = True, None  # noqa: SLF001 -- as SimPy's Timeout does
        self.call_at(time_s, self._happen, event)
        return event

    def schedule(self, event: Event, priority: EventPriority = simpy.events.NORMAL, delay: float = 0) -> None:
        """Put a SimPy event on the heap (SimPy's interface)."""
        self.call_in(delay, self._happen, event, priority)

    def scheduled(self) -> Iterator[Scheduled]:
        """Every call on the heap, in no particular order."""
        return (entry[3] for entry in self.heap)

    def step(self) -> None:
        """Let the next event happen; simpy.core.EmptySchedule when there is none."""
        if not self.heap:
            raise EmptySchedule
        self.now, _, _, call = heappop(self.heap)
        self.events += 1
        call.fn(call.arg)

    def run_to(self, until_s: float) -> None:
        """Let everything up to and including `until_s` seconds happen; then `now` is `until_s`.

        ValueError if `until_s` is in the past or not finite. A simpy.core.StopSimulation raised by a callback ends the
        run early, with `now` at that moment.
        """
        if not self.now <= until_s < inf:
            raise ValueError(f"cannot run to {until_s} s: the clock is at {self.now} s")
        end = self.call_at(until_s, _stop, priority=_LAST)
        try:
            self._loop()
        except StopSimulation:
            return
        finally:
            end.cancel()

    def run(self, until: float | Event | None = None) -> Any:
        """Run as `simpy.Environment.run` does: until the heap is empty, up to a time, or until an event's value.

        As in SimPy, what is scheduled at the time `until` itself does not happen (but URGENT events and the network's
        completions and capacity changes do); use `run_to` to include it.
        """
        event = until if isinstance(until, Event) else None
        if event is not None:
            if event.processed:
                return event.value
            event.callbacks.append(StopSimulation.callback)
        elif isinstance(until, float | int):
            if not self.now < until < inf:
                raise ValueError(f"until ({until}) must be finite and after the current time, {self.now} s")
            self.call_at(float(until), _stop, priority=URGENT)
        try:
            self._loop()
        except StopSimulation as stop:
            return stop.args[0]
        if event is not None:
            raise RuntimeError(f"nothing is scheduled any more, but this event was not triggered: {event}")
        return None

    def _loop(self) -> None:
        heap = self.heap
        pop = heappop
        # A for loop: `while heap` with a counter beside it takes 130 ns longer per event in CPython 3.11.
        first = self.events + 1
        for self.events in count(first):
            try:
                self.now, _, _, call = pop(heap)
            except IndexError:
                self.events -= 1  # noqa: PLW2901  (nothing was left to take)
                return
            call.fn(call.arg)

    def _happen(self, event: Event) -> None:
        """Call the callbacks of a SimPy event with SimPy's rules for failures and for stopping in the middle."""
        callbacks = event.callbacks
        event.callbacks = None  # type: ignore[assignment]  # SimPy's mark of an event that has happened
        for position, callback in enumerate(callbacks):
            try:
                callback(event)
            except StopSimulation:
                event.callbacks = callbacks[position + 1 :]
                self.schedule(event, EventPriority(-1))
                raise
        if not event.ok and not event.defused:
            cause = cast("BaseException", event.value)
            raise type(cause)(*cause.args) from cause


def _stop(_arg: object) -> None:
    raise StopSimulation(None)
