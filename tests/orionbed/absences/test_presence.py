"""Figures of absences, by hand; and rows that become one."""

from itertools import islice, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orionbed.absences import Absence
from orionbed.absences.absence import united
from orionbed.absences.presence import presence, presence_in
from orionbed.results import Mark

# Three peers in two stages, an hour from 100 s on.
STAGE_OF = [0, 0, 1]
AWAY = [
    (0, Absence(50.0, 460.0, "lifetime")),  # left before, back 360 s into the hour
    (0, Absence(1000.0, 1100.0, "bulk")),
    (1, Absence(1000.0, 1300.0, "bulk")),
    (2, Absence(3000.0, 9999.0, "trace")),
    (1, Absence(2000.0, 2000.5, "bulk")),
    (2, Absence(4000.0, 5000.0, "trace")),  # too late
]


def test_figures_by_hand() -> None:
    found = presence(AWAY, STAGE_OF, 100.0, 3700.0)
    away_s = 360.0 + 100.0 + 300.0 + 700.0 + 0.5
    assert found.departures == 4
    assert found.by_reason == {"bulk": 3, "trace": 1}
    assert found.availability == pytest.approx(1.0 - away_s / (3 * 3600.0), abs=1e-15)
    assert found.losses_per_peer_hour == pytest.approx(4 / ((3 * 3600.0 - away_s) / 3600.0))
    assert (found.num_bulk, found.mean_bulk_size) == (2, 1.5)
    assert (found.worst_stage, found.min_present) == (0, 0)
    # Stage 0 had nobody from 1000 to 1100, stage 1 from 3000 to the end.
    assert found.empty_stage_s == pytest.approx(100.0 + 700.0)


def test_marks_say_the_same() -> None:
    marks = [Mark(a.start_s, min(a.end_s, 3700.0), "down", peer, a.reason) for peer, a in AWAY[:5]]
    marks += [Mark(0.0, 50.0, "merge")]
    assert presence_in(marks, STAGE_OF, 100.0, 3700.0) == presence(AWAY, STAGE_OF, 100.0, 3700.0)


def test_nobody_away() -> None:
    found = presence([], STAGE_OF, 0.0, 10.0)
    assert (found.availability, found.departures, found.mean_bulk_size) == (1.0, 0, 0.0)
    assert (found.worst_stage, found.min_present, found.empty_stage_s) == (1, 1, 0.0)
    assert presence([], STAGE_OF, 5.0, 5.0).availability == 1.0


ROWS = st.lists(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 10)), max_size=8), max_size=4)


@settings(max_examples=100, deadline=None)
@given(ROWS)
def test_away_while_any_row_says_so(drawn: list[list[tuple[int, int]]]) -> None:
    rows = [[Absence(float(a), float(a + n), str(number)) for a, n in sorted(row)] for number, row in enumerate(drawn)]
    found = list(united(rows))
    assert all(one.end_s < other.start_s for one, other in pairwise(found))
    for second in range(75):
        by_rows = any(a.start_s <= second < a.end_s for row in rows for a in row)
        assert by_rows == any(a.start_s <= second < a.end_s for a in found)


def test_rows_without_end_are_read_as_far_as_needed() -> None:
    def every(seconds: float, reason: str):  # type: ignore[no-untyped-def]
        now_s = seconds
        while True:
            yield Absence(now_s, now_s + 1.0, reason)
            now_s += seconds

    found = list(islice(united([every(10.0, "a"), every(15.0, "b")]), 4))
    assert [(a.start_s, a.reason) for a in found] == [(10.0, "a"), (15.0, "b"), (20.0, "a"), (30.0, "a")]
