"""Rates that change in time, and links that processes share."""

import os
import signal
import time
from math import inf
from multiprocessing import get_context

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.throttle.rates import Rate
from emulator.throttle.shared_clock import SharedClock
from orionbed.bandwidth_trace import RecordedRate
from orionbed.fleet.clock import PacedClock


def test_a_constant_rate():
    rate = Rate.constant(100.0)
    assert rate.finish(2.0, 50.0) == 2.5
    assert rate.finish(-3.0, 0.0) == -3.0
    assert rate.at(7.0) == 100.0
    assert Rate.constant(inf).finish(1.0, 1e9) == 1.0
    assert Rate.constant(0.0).finish(1.0, 1.0) == inf
    assert Rate.constant(0.0).finish(1.0, 0.0) == 1.0


def test_steps_and_changes():
    rate = Rate([(0.0, 100.0), (1.0, 50.0)])
    assert rate.finish(0.5, 100.0) == 2.0
    rate.change(2.0, factor=0.0)
    rate.change(4.0)
    assert rate.finish(1.5, 50.0) == 4.5
    assert rate.amount(0.0, 5.0) == 200.0
    rate.change(2.0, ceiling=10.0)  # of two at one second the later made counts
    assert rate.at(3.0) == 10.0
    rate.change(-1.0, factor=2.0)
    assert rate.at(-5.0) == 100.0
    assert rate.at(-0.5) == 200.0


def test_a_recorded_rate():
    rate = Rate.recorded(RecordedRate([(0.0, 800.0), (3.0, 80.0)]), 10.0, 1 / 8)
    assert rate.finish(2.0, 110.0) == 4.0


@pytest.mark.parametrize("steps", [[], [(1.0, 1.0), (0.0, 1.0)], [(0.0, 1.0), (0.0, 2.0)], [(0.0, -1.0)]])
def test_rates_that_make_no_sense(steps):
    with pytest.raises(ValueError, match="rate"):
        Rate(steps)


@given(
    st.lists(st.tuples(st.integers(1, 20), st.integers(0, 5)), min_size=1, max_size=6),
    st.lists(st.tuples(st.integers(0, 60), st.sampled_from([0.0, 0.5, 1.0, 2.0])), max_size=4),
    st.integers(0, 50),
    st.integers(0, 200),
)
def test_a_finish_is_when_the_amount_has_passed(steps, changes, start, num_bytes):
    at_s, base = 0, []
    for length, value in steps:
        base.append((float(at_s), float(value)))
        at_s += length
    rate = Rate(base)
    for change_s, factor in changes:
        rate.change(float(change_s), factor)
    finish_s = rate.finish(float(start), float(num_bytes))
    if finish_s < inf:
        assert rate.amount(float(start), finish_s) == pytest.approx(num_bytes, abs=1e-6)
        if num_bytes:
            assert rate.amount(float(start), finish_s - 1e-3) < num_bytes
    else:
        assert rate.amount(float(start), 1e4) < num_bytes


def test_a_paced_clock():
    clock = PacedClock(time.monotonic(), 2.0)
    assert 0.0 <= clock.now() < 1.0
    assert clock.real_until(5.0) == pytest.approx(10.0, abs=0.5)
    with pytest.raises(ValueError, match="more than 0"):
        PacedClock(0.0, 0.0)


def test_reservations_of_a_shared_link_come_one_after_the_other():
    clock = SharedClock(Rate.constant(100.0))
    assert clock.reserve(1.0, 50.0) == 1.5
    assert clock.reserve(1.2, 50.0) == 2.0
    assert clock.reserve(3.0, 10.0) == 3.1
    clock.close()
    clock.close()


def test_a_reservation_for_earlier_fills_what_was_left_idle():
    clock = SharedClock(Rate.constant(100.0))
    assert clock.reserve(5.0, 100.0) == 6.0
    assert clock.reserve(1.0, 100.0) == 2.0
    assert clock.reserve(1.5, 250.0) == 4.5
    assert clock.reserve(4.0, 100.0) == 6.5  # half before, half behind the first
    assert clock.passed(9.5, 10.5, 100.0) == 10.5  # bytes pass while they come in
    clock.close()


def test_a_shared_link_must_go_on():
    with pytest.raises(ValueError, match="end at rate 0"):
        SharedClock(Rate.constant(0.0))


def _reserve(clock, count):
    for _ in range(count):
        clock.reserve(0.0, 1.0)


def _hold(clock, pipe):
    import fcntl

    fcntl.lockf(clock._fd, fcntl.LOCK_EX)
    pipe.send("held")
    time.sleep(60.0)


def _in_process(code):
    """Fork without multiprocessing's hooks, from a fresh process, so that no thread of pytest's is in the way."""
    child = os.fork()
    if child == 0:
        try:
            code()
        finally:
            os._exit(0)
    return child


def _share(pipe):
    clock = SharedClock(Rate.constant(1000.0))
    children = [_in_process(lambda: _reserve(clock, 500)) for _ in range(4)]
    for child in children:
        os.waitpid(child, 0)
    pipe.send(clock.reserve(0.0, 1.0))


def _kill_the_holder(pipe):
    clock = SharedClock(Rate.constant(1000.0))
    here, there = get_context("fork").Pipe()
    child = _in_process(lambda: _hold(clock, there))
    assert here.recv() == "held"
    os.kill(child, signal.SIGKILL)
    started = time.monotonic()
    finish_s = clock.reserve(0.0, 100.0)
    os.waitpid(child, 0)
    pipe.send((finish_s, time.monotonic() - started))


def _adopt(clock, pipe):
    pipe.send(clock.reserve(0.0, 100.0))


def in_fresh_process(target, *args):
    context = get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=target, args=(*args, there))
    process.start()
    there.close()
    try:
        return here.recv()
    finally:
        process.join()
        process.close()
        here.close()


def test_processes_share_without_losing_a_reservation():
    assert in_fresh_process(_share) == pytest.approx(2.001)  # behind 4 x 500 reservations of a byte


def test_a_killed_holder_of_the_lock_stops_nobody():
    finish_s, took_s = in_fresh_process(_kill_the_holder)
    assert finish_s == pytest.approx(0.1)
    assert took_s < 5.0


def test_a_spawned_process_shares_the_same_link():
    clock = SharedClock(Rate.constant(100.0))
    clock.reserve(0.0, 100.0)
    assert in_fresh_process(_adopt, clock) == pytest.approx(2.0)
    assert clock.reserve(0.0, 100.0) == pytest.approx(3.0)
    clock.close()
