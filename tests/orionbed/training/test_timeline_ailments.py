"""A peer's events in the order of their stamps, and what faults do to its own time."""

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orionbed.faults import Parameters, ResolvedFault
from orionbed.training.ailments import Ailments
from orionbed.training.timeline import Timeline


def ailing(*faults: ResolvedFault, peer: int = 0) -> Ailments:
    return Ailments(faults, peer)


def fault(kind: str, start_s: float, end_s: float, peer: int = 0, **parameters: float) -> ResolvedFault:
    return ResolvedFault("f", kind, start_s, end_s, (peer,), parameters=Parameters(**parameters))


# ---------------------------------------------------------------- timeline


@given(st.lists(st.floats(0.0, 100.0)))
def test_events_happen_in_the_order_of_their_stamps_and_equal_ones_as_they_were_made(stamps: list[float]) -> None:
    timeline, happened = Timeline(), list[tuple[float, int]]()
    for number, at_s in enumerate(stamps):
        timeline.at(at_s, happened.append, (at_s, number))
    while timeline.next_s() < inf:
        timeline.step()
    assert happened == sorted((at_s, number) for number, at_s in enumerate(stamps))
    assert timeline.num_happened == len(stamps)


def test_time_never_goes_back() -> None:
    timeline, seen = Timeline(), list[float]()
    timeline.at(5.0, lambda _: timeline.at(3.0, lambda _: seen.append(timeline.now_s)))
    timeline.step()
    assert timeline.next_s() == 3.0
    timeline.step()
    assert seen == [5.0]


def test_what_is_cancelled_does_not_happen() -> None:
    timeline, happened = Timeline(), list[str]()
    first = timeline.at(1.0, happened.append, "first")
    timeline.at(2.0, happened.append, "second")
    first.cancel()
    assert timeline.next_s() == 2.0
    timeline.step()
    first.cancel()
    assert happened == ["second"]
    assert timeline.next_s() == inf
    with pytest.raises(IndexError):
        timeline.step()


def test_an_event_can_be_held_back() -> None:
    timeline = Timeline()
    timeline.at(1.0, lambda _: None)
    event = timeline.step(not_before_s=4.0)
    assert (event.at_s, timeline.now_s) == (1.0, 4.0)


# ---------------------------------------------------------------- ailments


def test_a_healthy_peer_takes_its_time_and_no_more() -> None:
    well = ailing(fault("slow", 0.0, 100.0, peer=1, compute_factor=3.0), fault("pause", 0.0, 100.0, peer=2))
    assert well.end_s(5.0, 2.0) == 7.0
    assert well.awake_s(5.0) == 5.0
    assert well.clock_s(5.0) == 5.0


def test_an_operation_is_as_slow_as_when_it_began() -> None:
    slow = ailing(fault("slow", 10.0, 20.0, compute_factor=3.0), fault("slow", 15.0, 20.0, compute_factor=2.0))
    assert slow.end_s(9.0, 2.0) == 11.0
    assert slow.end_s(10.0, 2.0) == 16.0
    assert slow.end_s(15.0, 2.0) == 27.0
    assert slow.end_s(20.0, 2.0) == 22.0


@pytest.mark.parametrize(
    ("start_s", "end_s"),
    [(7.0, 9.0), (8.0, 10.0), (9.0, 16.0), (10.0, 17.0), (13.0, 17.0), (15.0, 17.0), (16.0, 18.0)],
)
def test_a_pause_is_added_as_far_as_the_operation_has_not_ended(start_s: float, end_s: float) -> None:
    assert ailing(fault("pause", 10.0, 15.0)).end_s(start_s, 2.0) == end_s


def test_a_long_operation_goes_through_several_pauses() -> None:
    pauses = (fault("pause", 30.0, 31.0), fault("pause", 10.0, 15.0), fault("pause", 16.0, 17.0))
    # 1 s before the first, 1 s between the two, 2 s after
    assert ailing(*pauses).end_s(9.0, 4.0) == 19.0


def test_pauses_that_overlap_count_once() -> None:
    pauses = (fault("pause", 10.0, 20.0), fault("pause", 15.0, 25.0), fault("pause", 12.0, 13.0))
    assert ailing(*pauses).end_s(8.0, 5.0) == 28.0
    assert ailing(*pauses).end_s(16.0, 5.0) == 30.0


def test_nothing_is_noticed_during_a_pause() -> None:
    paused = ailing(fault("pause", 10.0, 15.0), fault("pause", 15.0, 20.0))
    assert [paused.awake_s(at_s) for at_s in (9.9, 10.0, 14.9, 15.0, 20.0)] == [9.9, 20.0, 20.0, 20.0, 20.0]
    assert paused.awake_s(inf) == inf


def test_a_clock_is_off_and_drifts_while_the_fault_lasts() -> None:
    wrong = ailing(fault("clock", 10.0, 20.0, offset_s=2.0, drift_ppm=1000.0))
    assert wrong.clock_s(9.0) == 9.0
    assert wrong.clock_s(10.0) == 12.0
    assert wrong.clock_s(15.0) == pytest.approx(17.005)
    assert wrong.clock_s(20.0) == 20.0


def test_clocks_that_are_wrong_twice_add_up() -> None:
    wrong = ailing(*[fault("clock", 0.0, 9.0, offset_s=offset_s, drift_ppm=0.0) for offset_s in (2.0, -0.5)])
    assert wrong.clock_s(1.0) == 2.5
