"""When a failed send is tried again: the exact pauses, and the end of patience."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orionbed.schedule.retries import Retries

IOTA = Retries(attempts=5, first_s=0.25, cap_s=5.0, push_timeout_s=60.0, drop_after_s=1800.0, backward=True)


def test_pauses_double_from_a_quarter_of_a_second_to_five() -> None:
    assert [IOTA.pause_s(failures) for failures in range(1, 9)] == [0.25, 0.5, 1.0, 2.0, 4.0, 5.0, 5.0, 5.0]


def test_without_a_back_off_there_is_no_pause() -> None:
    assert [Retries().pause_s(failures) for failures in (1, 2, 100)] == [0.0, 0.0, 0.0]


def test_five_failures_are_the_end_and_so_are_thirty_minutes() -> None:
    assert [IOTA.gives_up(failures, 0.0) for failures in range(1, 7)] == [False] * 4 + [True] * 2
    assert not IOTA.gives_up(1, 1799.9)
    assert IOTA.gives_up(1, 1800.0)
    assert not Retries().gives_up(4, 1e9)


@given(st.integers(1, 10**6), st.floats(0.0, 10.0), st.floats(0.0, 100.0))
def test_pauses_never_shrink_and_never_pass_the_cap(failures: int, first_s: float, cap_s: float) -> None:
    rule = Retries(first_s=first_s, cap_s=cap_s)
    assert rule.pause_s(failures) <= rule.pause_s(failures + 1) <= max(cap_s, 0.0)


def test_all_pauses_of_a_micro_batch_together() -> None:
    # Four pauses between five tries.
    assert sum(IOTA.pause_s(failures) for failures in range(1, 5)) == pytest.approx(3.75)
