"""Real time: what is due happens, what has happened keeps its second, and work goes on beside it."""

import threading
import time
from collections.abc import Callable, Iterator
from math import inf

import pytest

from orionbed.fleet.clock import PacedClock
from orionbed.training.timeline import Event, Timeline
from real.queued.driver import Driver, WorkerThread, thinned


class Bench:
    """A driver with its timeline and thread of work."""

    def __init__(self) -> None:
        self.timeline = Timeline()
        self.clock = PacedClock(time.monotonic())
        self.driver = Driver(self.timeline, self.clock)
        self.labels: list[str] = []
        self.hands = WorkerThread(self.driver, self.clock, self.labels.append)
        self.seconds: list[tuple[str, float]] = []

    def note(self, name: str) -> Callable[[object], None]:
        return lambda _: self.seconds.append((name, self.timeline.now_s))


@pytest.fixture(name="bench")
def _bench() -> Iterator[Bench]:
    found = Bench()
    yield found
    found.hands.close()


def test_what_comes_from_outside_keeps_its_second_and_what_is_due_has_the_present_one(bench: Bench) -> None:
    bench.clock.origin_s -= 10.0
    bench.timeline.at(1.0, bench.note("due"))
    bench.driver.happen(0.5, bench.note("came"), None)
    bench.driver.end(20.0)
    bench.clock.origin_s -= 10.0
    bench.driver.run()
    assert [name for name, _ in bench.seconds] == ["came", "due"]
    assert bench.seconds[0][1] == 0.5
    assert bench.seconds[1][1] >= 10.0


def test_nothing_happens_after_the_end_and_no_second_lies_beyond_it(bench: Bench) -> None:
    bench.timeline.at(0.01, bench.note("due"))
    bench.timeline.at(0.06, bench.note("too late"))
    bench.driver.end(0.05)
    time.sleep(0.1)  # late, as after a long copy
    bench.driver.run()
    assert bench.seconds == [("due", 0.05)]
    assert bench.timeline.now_s == 0.05


def test_messages_are_heard_while_work_is_done(bench: Bench) -> None:
    may_end = threading.Event()

    def ended(ending: Event) -> None:
        assert ending.fn is not None
        ending.fn(ending.arg)

    def message(_: object) -> None:
        bench.note("message")(None)
        may_end.set()

    bench.hands.begin("F of micro-batch 3", lambda: may_end.wait(5.0), ended, Event(inf, bench.note("worked"), None))
    bench.driver.happen(bench.clock.now(), message, None)
    bench.driver.end(bench.clock.now() + 0.3)
    bench.driver.run()
    assert [name for name, _ in bench.seconds] == ["message", "worked"]
    assert bench.labels == ["F of micro-batch 3"]
    assert bench.hands.wait() >= bench.seconds[1][1]


def test_waiting_lasts_until_the_work_is_done(bench: Bench) -> None:
    bench.hands.begin("STEP", lambda: time.sleep(0.1), lambda _: None, Event(inf, bench.note("worked"), None))
    began_s = bench.clock.now()
    assert bench.hands.wait() - began_s > 0.05


def test_what_goes_wrong_in_the_work_ends_the_peer(bench: Bench) -> None:
    def work() -> None:
        raise ValueError("no such chunk")

    bench.hands.begin("B of micro-batch 1", work, lambda _: None, Event(inf, bench.note("worked"), None))
    with pytest.raises(ValueError, match="no such chunk"):
        bench.driver.run()
    with pytest.raises(ValueError, match="no such chunk"):
        bench.hands.wait()


def test_latenesses_are_thinned_out_and_the_largest_is_kept() -> None:
    few = thinned([index * 1e-6 for index in range(20_000)])
    assert len(few) <= 5_001
    assert max(few) == pytest.approx(0.019999)
