"""Speed of the whole simulator beside a bare event loop.

    python -m benchmarks.event_speed

Prints events per second of a training phase of Orion-100B, of the simulator's clock with empty callbacks, of SimPy's
own timeouts, and of a heap with a function call per entry, which no simulator in Python can beat. All in one run, so
that the ratios hold whatever the machine is doing. One event of the simulator is the end of an operation (charge the
time, ask the policy, route, send) or the arrival of a message; the exact count is asserted by the tests, not the speed.
"""

import time
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count

import simpy

from orionbed.plan import make_plan
from orionbed.scenario import load
from sim.backend import run
from sim.clock import Clock

NUM_EVENTS = 300_000
WAITING = 200


def bare_heap() -> float:
    """Events per second of heappop, call, heappush with `WAITING` entries on the heap."""
    number = count().__next__
    heap = [(0.01 * i, 1, number(), _nothing) for i in range(WAITING)]
    started = time.perf_counter()
    for _ in range(NUM_EVENTS):
        at, _, _, fn = heappop(heap)
        fn()
        heappush(heap, (at + 2.0, 1, number(), fn))
    return NUM_EVENTS / (time.perf_counter() - started)


def _nothing() -> None:
    """Do what an empty event does."""


def empty_clock() -> float:
    """Events per second of the simulator's clock when every callback only schedules itself again."""
    clock = Clock()

    def again(_: object) -> None:
        clock.call_in(2.0, again)

    for i in range(WAITING):
        clock.call_at(0.01 * i, again)
    started = time.perf_counter()
    clock.run_to(2.0 * NUM_EVENTS / WAITING)
    return clock.events / (time.perf_counter() - started)


def simpy_timeouts() -> float:
    """Events per second of SimPy processes that only wait."""
    environment = simpy.Environment()

    def process(first_s: float) -> simpy.events.ProcessGenerator:
        yield environment.timeout(first_s)
        while True:
            yield environment.timeout(2.0)

    for i in range(WAITING):
        environment.process(process(0.01 * i))
    started = time.perf_counter()
    environment.run(until=2.0 * NUM_EVENTS / WAITING)
    return NUM_EVENTS / (time.perf_counter() - started)


def orion(hours: float) -> tuple[float, float]:
    """Events per second, and seconds per simulated hour, of Orion-100B."""
    plan = make_plan(load("orion-100b", ["run.tokens=null", f"run.duration={hours} h", "run.trace=summary"]))
    started = time.perf_counter()
    result = run(plan)
    wall_s = time.perf_counter() - started
    return result.events / wall_s, wall_s / hours


def best(measure: Callable[[], float], times: int = 3) -> float:
    """Return the highest of several rates."""
    return max(measure() for _ in range(times))


def main() -> None:
    """Measure and print."""
    bare = best(bare_heap)
    orion_rate, wall_s_per_hour = orion(3.0)
    rows = [
        ("bare heap and function call", bare),
        ("simulator's clock, empty callbacks", best(empty_clock)),
        ("SimPy processes that wait", best(simpy_timeouts)),
        ("Orion-100B, everything in", orion_rate),
    ]
    print(f"{'':<38} {'events/s':>12} {'of bare heap':>13}")
    for name, rate in rows:
        print(f"{name:<38} {rate:>12,.0f} {rate / bare:>12.0%}")
    print(f"Orion-100B: {wall_s_per_hour:.2f} s per simulated hour")


if __name__ == "__main__":
    main()
