"""Rules on the same arrivals: what they wait, whom they cut off, and what holds for all of them."""

from math import ceil, inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orionbed.deadlines import (
    Opening,
    everybody,
    fixed,
    longest_wait_s,
    mad,
    opening,
    quorum_grace,
    relaxing,
)
from orionbed.scenario.merging import FixedDeadline, GraceDeadline, Merge

ARRIVALS = st.lists(st.one_of(st.floats(0.0, 1e4), st.just(inf)), min_size=1, max_size=30)
TIMEOUT_S = 2e4


def test_each_rule_on_four_arrivals() -> None:
    arrivals = [10.0, 12.0, 14.0, 100.0]
    assert opening(arrivals, everybody()) == Opening(100.0, 4)
    assert opening(arrivals, everybody(), 50.0) == Opening(50.0, 3)
    assert opening(arrivals, fixed(12.0)) == Opening(12.0, 2)
    assert opening(arrivals, fixed(1e6)) == Opening(100.0, 4)
    # median 11, deviations 1 and 1: 11 + 3 is when the third comes; with it median 12, deviations 2, 0, 2: 18
    assert opening(arrivals, mad(3.0, 0.5)) == Opening(18.0, 3)
    assert opening(arrivals, quorum_grace(0.5, 1.0)) == Opening(13.0, 2)
    assert opening(arrivals, quorum_grace(0.5, 500.0)) == Opening(100.0, 4)
    # three quarters are enough when the quorum has relaxed 25 times
    assert opening(arrivals, relaxing(0.01, 6.0, 0.3)) == Opening(100.0, 4)
    assert opening(arrivals, relaxing(0.01, 1.0, 0.3)) == Opening(25.0, 3)
    assert opening(arrivals, relaxing(0.1, 1.0, 0.3)) == Opening(12.0, 2)


def test_iota_waits_seven_minutes_for_thirty_percent() -> None:
    block = Merge(every=3600.0)
    assert longest_wait_s(block) == 70 * 6.0
    assert longest_wait_s(block.model_copy(update={"quorum_floor": 0.0})) == 600.0
    assert longest_wait_s(block.model_copy(update={"timeout": 60.0})) == 60.0
    assert longest_wait_s(Merge(every=1.0, deadline=FixedDeadline(kind="fixed", wait=9.0))) == 9.0
    assert longest_wait_s(Merge(every=1.0, deadline=GraceDeadline(kind="quorum-grace"))) == 3 * 3600.0


@given(ARRIVALS, st.floats(0.0, 1e4), st.floats(0.0, 1e4))
def test_a_longer_timeout_never_includes_fewer(arrivals: list[float], one: float, other: float) -> None:
    shorter, longer = sorted((one, other))
    hasty, patient = (opening(arrivals, fixed(wait_s)) for wait_s in (shorter, longer))
    assert hasty.num_through <= patient.num_through
    assert hasty.wait_s <= patient.wait_s <= longer


@given(ARRIVALS, st.floats(0.0, 20.0), st.floats(0.0, 20.0), st.floats(0.01, 1.0))
def test_more_deviations_never_include_fewer(arrivals: list[float], one: float, other: float, after: float) -> None:
    fewer, more = (opening(arrivals, mad(k, after), TIMEOUT_S) for k in sorted((one, other)))
    assert fewer.num_through <= more.num_through
    assert fewer.wait_s <= more.wait_s


@given(ARRIVALS, st.floats(0.01, 1.0), st.floats(0.0, 1e3), st.floats(0.0, 1e3))
def test_more_grace_never_includes_fewer(arrivals: list[float], quorum: float, one: float, other: float) -> None:
    fewer, more = (opening(arrivals, quorum_grace(quorum, grace_s), TIMEOUT_S) for grace_s in sorted((one, other)))
    assert fewer.num_through <= more.num_through
    there_s = sorted(arrivals)[max(1, ceil(quorum * len(arrivals) - 1e-12)) - 1]
    assert more.wait_s <= min(there_s + max(one, other), TIMEOUT_S)


@given(ARRIVALS, st.floats(0.005, 0.5), st.floats(0.1, 30.0), st.floats(0.05, 0.95))
def test_a_relaxing_quorum_waits_no_longer_than_it_relaxes(
    arrivals: list[float], relax: float, every_s: float, floor: float
) -> None:
    found = opening(arrivals, relaxing(relax, every_s, floor), TIMEOUT_S)
    bound_s = ceil((1.0 - floor) / relax) * every_s
    there_s = sorted(arrivals)[max(1, ceil(floor * len(arrivals) - 1e-9)) - 1]
    assert found.wait_s <= min(TIMEOUT_S, max(bound_s, there_s)) * (1 + 1e-12)
    assert found.num_through >= floor * len(arrivals) - 1e-9 or found.wait_s == TIMEOUT_S


@given(ARRIVALS)
def test_nobody_is_cut_off_where_all_are_waited_for(arrivals: list[float]) -> None:
    found = opening(arrivals, everybody(), TIMEOUT_S)
    assert found == Opening(min(max(arrivals), TIMEOUT_S), sum(at_s <= TIMEOUT_S for at_s in arrivals))


@pytest.mark.parametrize(
    "rule", [everybody(), fixed(5.0), mad(3.0, 0.5), quorum_grace(0.8, 5.0), relaxing(0.1, 1.0, 0.3)]
)
@given(arrivals=ARRIVALS)
def test_who_arrived_before_it_opened_is_through(rule: object, arrivals: list[float]) -> None:
    found = opening(arrivals, rule, TIMEOUT_S)  # type: ignore[arg-type]
    assert found.num_through == sum(at_s <= found.wait_s for at_s in arrivals)
    assert 0.0 <= found.wait_s <= TIMEOUT_S
