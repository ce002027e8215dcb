"""Timing with clocks that are made up."""

import time
from pathlib import Path

import pytest

from real.calibration.caches import UNKNOWN_BYTES, emptying, largest_cache_bytes
from real.calibration.measure import (
    FEWEST_REPETITIONS,
    Effort,
    HostClock,
    Mark,
    Timed,
    held_up,
    measure,
    rounded,
    spread_of,
)


class Scripted:
    """A clock whose laps are given: one list per round, over and over."""

    def __init__(self, *laps: list[float]) -> None:
        self.rounds = list(laps)
        self.num_marks = 0
        self.num_rounds = 0

    def mark(self) -> None:
        self.num_marks += 1

    def laps(self) -> list[float]:
        found = self.rounds[self.num_rounds % len(self.rounds)]
        assert self.num_marks == len(found) + 1, "a mark before the first section and one after each"
        self.num_marks, self.num_rounds = 0, self.num_rounds + 1
        return found


def timed(name: str, log: list[str], *sections: str) -> Timed:
    def run(mark: Mark) -> None:
        log.append(name)
        mark()
        for _ in sections:
            mark()

    return Timed(name, sections, run)


def test_entries_take_turns_and_the_warm_up_does_not_count() -> None:
    log: list[str] = []
    clock = Scripted([9.0, 9.0], [9.0], [1.0, 2.0], [3.0], [4.0, 5.0], [6.0])
    found = measure([timed("a", log, "x", "y"), timed("b", log, "z")], clock, Effort(2, warm_up=1))
    assert found == {"a": {"x": [1.0, 4.0], "y": [2.0, 5.0]}, "b": {"z": [3.0, 6.0]}}
    assert log == ["a", "b"] * 3


def test_past_its_time_it_does_the_fewest_repetitions() -> None:
    log: list[str] = []
    effort = Effort(50, warm_up=20, until_s=time.monotonic() - 1.0)
    found = measure([timed("a", log, "x")], Scripted([1.0]), effort)
    assert len(found["a"]["x"]) == FEWEST_REPETITIONS
    assert len(log) == FEWEST_REPETITIONS + 1


def test_a_spread_is_median_and_percentiles() -> None:
    found = spread_of([float(value) for value in range(101)], per=10.0)
    assert (found.p5, found.median, found.p95) == (0.5, 5.0, 9.5)
    assert rounded(123456.789) == 123460.0


def test_the_hosts_clock_takes_what_passes_between_marks() -> None:
    clock = HostClock()
    clock.mark()
    time.sleep(0.01)
    clock.mark()
    clock.mark()
    slept, nothing = clock.laps()
    assert slept >= 0.01
    assert 0.0 <= nothing < slept
    assert clock.laps() == []


def test_a_clock_of_ones_own_stands_still_while_others_have_the_core() -> None:
    clock = HostClock(own=True)
    clock.mark()
    time.sleep(0.05)
    clock.mark()
    total = 0
    while clock._marks[-1][1][1] + 0.01 > time.thread_time():
        total += 1
    clock.mark()
    slept, computed = clock.laps()
    assert slept < 0.02
    assert 0.01 <= computed < 0.05
    assert total > 0


def test_what_is_done_between_two_laps_is_in_neither() -> None:
    clock = HostClock(between=lambda: time.sleep(0.02))
    for _ in range(3):
        clock.mark()
    assert max(clock.laps()) < 0.02


def test_caches_are_emptied_by_something_larger(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    assert largest_cache_bytes(tmp_path) == UNKNOWN_BYTES
    for index, size in enumerate(("48K", "1024K", "32M", "?")):
        (tmp_path / f"index{index}").mkdir()
        (tmp_path / f"index{index}" / "size").write_text(f"{size}\n", encoding="ascii")
    assert largest_cache_bytes(tmp_path) == 32 * 2**20
    emptying()()


def test_a_process_that_was_held_up_says_so() -> None:
    clock = HostClock()
    assert held_up(clock) == ""
    clock.mark()
    time.sleep(0.02)
    clock.mark()
    clock.laps()
    assert clock.share < 0.5
    assert held_up(clock).startswith("others took ")
    assert held_up(Scripted([1.0])) == ""


def test_a_gpus_clock_reads_events() -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
    from real.calibration.measure import CudaClock

    clock, square = CudaClock(), torch.randn(2048, 2048, device="cuda")
    clock.mark()
    for _ in range(20):
        square @ square
    clock.mark()
    (seconds,) = clock.laps()
    assert 1e-5 < seconds < 5.0
