"""Absences by the clock: every one of them is known in advance."""

from itertools import islice, pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orionbed.absences.hours import at_home
from orionbed.absences.presence import presence
from orionbed.scenario.churn import Diurnal
from orionbed.streams import Streams

HOUR_S = 3600.0


def test_a_window_is_exact_to_the_second(away: Any) -> None:
    window = {"at": 3 * HOUR_S, "for": 1800.0, "every": 24 * HOUR_S}
    found = away({"windows": [window]}, 240.0, start_s=100.0)
    assert len(found) == 8 * 10
    mine = [absence for peer, absence in found if peer == 5]
    assert [(a.start_s, a.end_s) for a in mine] == [
        (100.0 + (24 * day + 3) * HOUR_S, 100.0 + (24 * day + 3.5) * HOUR_S) for day in range(10)
    ]
    there = presence(found, [0] * 8, 100.0, 100.0 + 240 * HOUR_S)
    assert there.availability == pytest.approx(1.0 - 0.5 / 24, abs=1e-12)
    assert there.empty_stage_s == pytest.approx(10 * 1800.0)
    assert there.by_reason == {"windows": 80}


def test_a_rolling_restart_takes_one_peer_after_the_other(away: Any) -> None:
    window = {"at": 60.0, "for": 45.0, "stagger": 60.0, "who": "replica:1"}
    found = sorted(away({"windows": [window]}, 10.0), key=lambda pair: pair[1].start_s)
    assert [(peer, a.start_s, a.end_s) for peer, a in found] == [
        (2 * stage + 1, 60.0 + 60.0 * stage, 105.0 + 60.0 * stage) for stage in range(4)
    ]
    assert presence(found, [i // 2 for i in range(8)], 0.0, HOUR_S).min_present == 1


def test_windows_that_overlap_become_one_absence(away: Any) -> None:
    windows = [{"at": 100.0, "for": 50.0}, {"at": 120.0, "for": 100.0}, {"at": 220.0, "for": 5.0}]
    found = away({"windows": windows}, 1.0)
    assert {(a.start_s, a.end_s) for _, a in found} == {(100.0, 225.0)}


def test_peers_at_home_keep_local_hours(away: Any, planned: Any) -> None:
    # Training begins at 20 h UTC: 15 h in Virginia, 12 h in Oregon. Peers are there from 22 h to 8 h.
    diurnal = {
        "available_from": 22 * HOUR_S, "available_until": 8 * HOUR_S, "starts_at": 20 * HOUR_S,
        "utc_offset": {"virginia": -5 * HOUR_S, "oregon": -8 * HOUR_S},
    }  # fmt: skip
    found = away({"diurnal": diurnal}, 48.0)
    sites = {peer.index: peer.site for peer in planned("none").peers}
    for site, first_h in (("virginia", 7.0), ("oregon", 10.0)):
        spans = {(a.start_s / HOUR_S, a.end_s / HOUR_S) for peer, a in found if sites[peer] == site}
        inner = {(first_h + 10.0 + 24 * day, first_h + 24.0 + 24 * day) for day in (0, 1)}
        assert spans == {(0.0, first_h)} | {span for span in inner if span[0] < 48.0}
    # Midnights differ, hours per day do not.
    assert presence(found, [0] * 8, 24 * HOUR_S, 48 * HOUR_S).availability == pytest.approx(10 / 24)


def test_who_begins_within_its_hours_is_there_at_once(away: Any) -> None:
    diurnal = {"available_from": 22 * HOUR_S, "available_until": 8 * HOUR_S, "starts_at": 2 * HOUR_S}
    assert {(a.start_s, a.end_s) for _, a in away({"diurnal": diurnal}, 10.0)} == {(6 * HOUR_S, 20 * HOUR_S)}


def test_attendance_and_jitter(away: Any) -> None:
    diurnal = {"available_from": 0.0, "available_until": 12 * HOUR_S, "jitter": HOUR_S, "attendance": 0.75}
    hours = 24 * 400.0
    found = away({"diurnal": diurnal}, hours)
    assert presence(found, [0] * 8, 0.0, hours * HOUR_S).availability == pytest.approx(0.75 * 0.5, abs=0.015)
    off = [(a.end_s / HOUR_S + 12) % 24 - 12 for _, a in found if a.end_s < hours * HOUR_S]
    assert -1.0 <= min(off) < -0.9
    assert 0.9 < max(off) <= 1.0


@settings(max_examples=60, deadline=None)
@given(
    start=st.floats(0, 24), there=st.floats(0.2, 23.8), jitter=st.floats(0, 0.4), attendance=st.floats(0.05, 1),
    begins=st.floats(0, 24), offset=st.floats(-12, 14), seed=st.integers(0, 9),
)  # fmt: skip
def test_absences_are_in_order_and_apart(
    start: float, there: float, jitter: float, attendance: float, begins: float, offset: float, seed: int
) -> None:
    block = Diurnal(
        available_from=start * HOUR_S,
        available_until=(start + there) % 24 * HOUR_S,
        jitter=jitter * min(there, 24 - there) * HOUR_S,
        attendance=attendance,
        starts_at=begins * HOUR_S,
        utc_offset={"oregon": offset * HOUR_S},
    )
    peer: Any = SimpleNamespace(index=0, site="oregon")
    found = list(islice(at_home(block, peer, [peer], Streams(seed).get("churn/diurnal/0"), 50.0), 12))
    assert found[0].start_s >= 50.0
    assert all(one.start_s < one.end_s for one in found)
    assert all(one.end_s < other.start_s for one, other in pairwise(found))
