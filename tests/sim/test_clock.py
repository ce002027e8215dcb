import math

import numpy as np
import pytest
import simpy

from sim.clock import CAPACITY, COMPLETION, NORMAL, SOLVE, URGENT, Clock


def test_calls_happen_by_time_then_priority_then_order():
    clock = Clock()
    seen = []
    for priority in (SOLVE, NORMAL, URGENT, CAPACITY, COMPLETION):
        clock.call_at(2.0, seen.append, priority, priority)
    clock.call_at(1.0, seen.append, "first")
    clock.call_in(2.0, seen.append, "after the other normal one")
    clock.run()
    assert seen == ["first", COMPLETION, CAPACITY, URGENT, NORMAL, "after the other normal one", SOLVE]


def test_processes_and_calls_interleave_in_order_of_scheduling():
    clock = Clock()
    seen = []

    def process(name):
        for i in range(3):
            yield clock.timeout(1.0)
            seen.append((name, i))

    clock.process(process("a"))
    for i in range(1, 4):
        clock.call_at(float(i), seen.append, i)
    clock.process(process("b"))
    clock.run()
    # The calls were put on the heap when the processes had not even begun.
    assert seen == [1, ("a", 0), ("b", 0), 2, ("a", 1), ("b", 1), 3, ("a", 2), ("b", 2)]


def test_run_to_includes_its_end():
    clock = Clock()
    seen = []
    for time_s in (1.0, 2.0, 3.0):
        clock.call_at(time_s, seen.append, time_s)
    clock.call_at(2.0, lambda _: clock.call_in(0.0, seen.append, "late"), None, SOLVE)
    clock.run_to(2.0)
    assert seen == [1.0, 2.0, "late"]
    assert clock.now == 2.0
    clock.run_to(2.5)
    assert clock.now == 2.5
    clock.run_to(2.5)
    clock.run()
    assert seen[-1] == 3.0


def test_run_until_a_time_excludes_it_as_in_simpy():
    clock = Clock()
    seen = []
    clock.call_at(2.0, seen.append, 2.0)
    clock.call_at(1.0, seen.append, 1.0)
    clock.run(until=2.0)
    assert seen == [1.0]
    assert clock.now == 2.0
    clock.run(np.float64(3.0))
    assert seen == [1.0, 2.0]


def test_run_until_an_event_returns_its_value():
    clock = Clock()

    def process():
        yield clock.timeout(4.0)
        return "done"

    assert clock.run(clock.process(process())) == "done"
    assert clock.now == 4.0
    event = clock.event().succeed("before")
    clock.run()
    assert clock.run(event) == "before"
    with pytest.raises(RuntimeError, match="not triggered"):
        clock.run(clock.event())


def test_a_process_waits_for_several_events_and_is_interrupted():
    clock = Clock()
    seen = []

    def sleeper():
        try:
            yield clock.timeout(100.0)
        except simpy.Interrupt as interrupt:
            seen.append((clock.now, interrupt.cause))

    def waiter(other):
        yield clock.timeout(1.0) & clock.timeout(3.0)
        other.interrupt("enough")

    clock.process(waiter(clock.process(sleeper())))
    clock.run_to(50.0)
    assert seen == [(3.0, "enough")]


def test_a_failure_that_nobody_handles_ends_the_run():
    clock = Clock()

    def process():
        yield clock.timeout(1.0)
        raise KeyError("lost")

    clock.process(process())
    with pytest.raises(KeyError, match="lost"):
        clock.run_to(10.0)
    clock.run_to(10.0)


def test_an_error_in_a_callback_is_not_mistaken_for_an_empty_heap():
    clock = Clock()
    clock.call_at(1.0, lambda _: [].pop())
    with pytest.raises(IndexError):
        clock.run()


def test_a_cancelled_call_does_nothing():
    clock = Clock()
    seen = []
    call = clock.call_at(1.0, seen.append, 1)
    assert not call.cancelled
    call.cancel()
    assert call.cancelled
    assert list(clock.scheduled()) == [call]
    clock.run()
    assert seen == []
    call.cancel()


@pytest.mark.parametrize("time_s", [0.5, -1.0, math.nan])
def test_the_past_is_refused(time_s):
    clock = Clock(1.0)
    with pytest.raises(ValueError, match="clock is at"):
        clock.call_at(time_s, print)
    with pytest.raises(ValueError, match="clock is at"):
        clock.run_to(time_s)
    with pytest.raises(ValueError, match="after the current time"):
        clock.run(time_s)
    with pytest.raises(ValueError, match="cannot call after"):
        clock.call_in(time_s - 1.0, print)


def test_stop_simulation_ends_a_run_early():
    clock = Clock()

    def stop(_):
        raise simpy.core.StopSimulation(None)

    clock.call_at(3.0, stop)
    clock.run_to(10.0)
    assert clock.now == 3.0
    clock.run_to(20.0)
    assert clock.now == 20.0


def test_a_stop_in_the_middle_of_an_event_keeps_its_other_callbacks():
    clock = Clock()
    seen = []
    event = clock.event()

    def stop(_):
        raise simpy.core.StopSimulation("half")

    event.callbacks += [stop, lambda _: seen.append("rest")]
    event.succeed()
    assert clock.run() == "half"
    assert seen == []
    clock.run()
    assert seen == ["rest"]


def test_events_are_counted():
    clock = Clock()
    counts = []
    for time_s in (1.0, 2.0, 3.0):
        clock.call_at(time_s, lambda _: counts.append(clock.events))
    clock.run()
    assert counts == [1, 2, 3]
    assert clock.events == 3
    with pytest.raises(simpy.core.EmptySchedule):
        clock.step()
    clock.call_in(1.0, print)
    assert clock.peek() == 4.0
    clock.step()
    assert clock.events == 4
