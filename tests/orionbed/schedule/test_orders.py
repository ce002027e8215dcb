"""Laws that every schedule keeps, and closed forms, for any number of stages and micro-batches and any times."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orionbed.schedule.actions import Action
from orionbed.schedule.catalogue import ENTRIES, Wanted
from orionbed.schedule.classic import gpipe, interleaved, one_forward_one_backward
from orionbed.schedule.order import ScheduleError, check_order, make_order, one_each
from orionbed.schedule.play import opportunistic_order
from orionbed.schedule.timing import Hops, Times, equal_times, peak_activations, peak_held, time_order
from orionbed.schedule.v_shaped import dualpipe_v, zb_v
from orionbed.schedule.zero_bubble import zb_h1, zb_h2

SECONDS = st.floats(0.1, 3.0)
HOP = st.floats(0.0, 3.0)


@st.composite
def wanted(draw: Any) -> tuple[str, Wanted]:
    """Any schedule for unequal stages and any hops."""
    name = draw(st.sampled_from(sorted(ENTRIES)))
    stages, chunks = draw(st.integers(1, 7)), draw(st.integers(1, 3))
    pieces = stages * (ENTRIES[name].chunks or chunks)
    times = Times(*(tuple(draw(SECONDS) for _ in range(pieces)) for _ in range(3)))
    hops = Hops(draw(HOP), draw(HOP), synchronous=draw(st.booleans()) and name != "opportunistic")
    limit, splits = draw(st.integers(1, 9)), draw(st.booleans())
    return name, Wanted(stages, draw(st.integers(1, 14)), times, hops, chunks, limit, splits)


@settings(max_examples=300, deadline=None)
@given(wanted())
def test_any_schedule_is_complete_in_order_free_of_deadlock_and_within_its_memory(case: tuple[str, Wanted]) -> None:
    name, want = case
    order = ENTRIES[name].make(want)
    check_order(order)  # every F, and its B or its I and W, once; each after what it needs
    timed = time_order(order, want.times, want.hops)  # raises on deadlock
    _starts_only_with_its_input(timed)
    peak = max(peak_activations(order))
    assert peak <= bound(name, want) + 1e-9


def test_a_slow_stage_in_the_middle_of_a_searched_schedule() -> None:
    times = Times((1.0, 1.0, 2.0, 1.0, 1.0, 1.0), (1.0,) * 6, (1.0,) * 6)
    order = ENTRIES["zb-1p"].make(Wanted(6, 5, times))
    check_order(order)
    time_order(order, times)


def bound(name: str, want: Wanted) -> float:
    """Most activations a stage may hold, in those of one micro-batch on one stage."""
    p, m, v = want.num_stages, want.num_microbatches, want.chunks
    largest_group = -(-m // max(1, m // p))
    return {
        "gpipe": m,
        "1f1b": min(m, p),
        "interleaved-1f1b": min(m, (2 * (p - 1) + (v - 1) * largest_group + 1) / v),
        "zb-h1": min(m, p),
        "zb-h2": min(m, 2 * p - 1),
        "zb-1p": p,
        "zb-2p": 2 * p,
        "zb-v": min(m, p),
        "dualpipe-v": min(m, p + 0.5),
        "opportunistic": min(m, want.limit or m),
    }[name]


def _starts_only_with_its_input(timed: Any) -> None:
    order, ends = timed.order, {}
    for actions, starts in zip(order.lists, timed.starts_s, strict=True):
        for action, start in zip(actions, starts, strict=True):
            ends[action] = start + timed.times.of(action)
    for actions, starts in zip(order.lists, timed.starts_s, strict=True):
        for action, start in zip(actions, starts, strict=True):
            kind, chunk, m = action
            if kind == "F" and chunk:
                assert start >= ends[Action("F", chunk - 1, m)] - 1e-9
            if kind in {"B", "I"} and chunk < order.num_chunks - 1:
                after = [ends[a] for a in (Action("B", chunk + 1, m), Action("I", chunk + 1, m)) if a in ends]
                assert start >= after[0] - 1e-9


SHAPE = {"p": st.integers(1, 8), "k": st.integers(1, 5), "f": SECONDS, "b": SECONDS, "w": SECONDS}


@given(**SHAPE, extra=st.integers(0, 7), c=HOP)
def test_gpipe_pays_each_hop_once_each_way(p: int, k: int, f: float, b: float, w: float, extra: int, c: float) -> None:
    m = k * p + extra
    timed = time_order(gpipe(p, m), equal_times(p, f, b, w), Hops(c))
    assert timed.makespan_s == pytest.approx((m + p - 1) * (f + b + w) + 2 * (p - 1) * c, rel=1e-12)
    assert peak_activations(timed.order) == [m] * p


@given(**SHAPE, c=HOP)
def test_1f1b_pays_hops_again_and_again(p: int, k: int, f: float, b: float, w: float, c: float) -> None:
    m = k * p
    timed = time_order(one_forward_one_backward(p, m), equal_times(p, f, b, w), Hops(c))
    hops = 2 * (p - 1) * (k + 1) - 2 if p > 1 else 0
    assert timed.makespan_s == pytest.approx((m + p - 1) * (f + b + w) + hops * c, rel=1e-12)
    assert peak_activations(timed.order) == [min(m, p - stage) for stage in range(p)]


@given(**SHAPE, v=st.integers(1, 4))
def test_interleaving_divides_the_bubble(p: int, k: int, f: float, b: float, w: float, v: int) -> None:
    m = k * p
    order = interleaved(p, m, v)
    timed = time_order(order, equal_times(p * v, f / v, b / v, w / v))
    assert timed.makespan_s == pytest.approx(m * (f + b + w) + (p - 1) * (f + b + w) / v, rel=1e-12)
    assert max(peak_activations(order)) == pytest.approx(min(m, p * (1 + (p - 1) / (p * v))), rel=1e-12)


@given(**SHAPE)
def test_zb_h1_and_zb_h2_leave_a_third_and_nothing(p: int, k: int, f: float, b: float, w: float) -> None:
    m, rest = (k + 1) * p, (p - 1) * (f + b - w)
    h1 = time_order(zb_h1(p, m), equal_times(p, f, b, w))
    if rest >= 0 and f >= w:  # below that the form does not hold: weight gradients are longer than what they fill
        assert h1.span_s == pytest.approx(max(m * (f + b + w) + rest, m * (f + b + w)), rel=1e-9)
    assert peak_activations(h1.order) == pytest.approx([p - stage + 0.5 * stage for stage in range(p)])
    h2 = zb_h2(p, m)
    expected = [2 * (p - stage) - 1 + stage for stage in range(p)]
    assert peak_activations(h2) == pytest.approx(expected)


@given(p=st.integers(1, 8), extra=st.integers(0, 9), t=SECONDS)
def test_the_v_has_no_bubble_when_all_operations_take_as_long(p: int, extra: int, t: float) -> None:
    m = 2 * p + extra
    timed = time_order(zb_v(p, m), equal_times(2 * p, t, t, t))
    assert timed.span_s == pytest.approx(6 * m * t, rel=1e-12)
    assert max(peak_activations(timed.order)) <= p + 1e-9


@given(p=st.integers(1, 8), extra=st.integers(0, 9), t=SECONDS)
def test_dualpipe_v_has_the_bubble_of_its_authors(p: int, extra: int, t: float) -> None:
    """(P/2 - 1) (F&B + B - 3W) with P = 2p stages in their words, F&B = 3, B = 2 and W = 1 when all take as long."""
    m = 2 * p + extra
    timed = time_order(dualpipe_v(p, m), equal_times(2 * p, t, t, t))
    assert timed.makespan_s == pytest.approx(6 * m * t + (p - 1) * (3 + 2 - 3) * t, rel=1e-12)
    assert max(peak_activations(timed.order)) == pytest.approx(p + 0.5)


@given(p=st.integers(2, 7), m=st.integers(1, 7), f=SECONDS, b=SECONDS, w=SECONDS)
def test_few_micro_batches(p: int, m: int, f: float, b: float, w: float) -> None:
    m = min(m, p)
    times = equal_times(p, f, b, w)
    assert time_order(one_forward_one_backward(p, m), times).makespan_s == pytest.approx((m + p - 1) * (f + b + w))
    split = time_order(zb_h1(p, m), times)
    assert split.makespan_s <= (m + p - 1) * (f + b + w) + 1e-9


@given(p=st.integers(1, 6), k=st.integers(1, 5), f=SECONDS, b=SECONDS, w=SECONDS, c=HOP)
def test_an_opportunistic_pipeline_with_memory_pays_hops_as_gpipe_does(
    p: int, k: int, f: float, b: float, w: float, c: float
) -> None:
    m = k * p
    times, hops = equal_times(p, f, b, w), Hops(c)
    free = time_order(opportunistic_order(m, times, hops), times, hops).makespan_s
    assert free <= time_order(gpipe(p, m), times, hops).makespan_s + 1e-9


@given(p=st.integers(1, 6), m=st.integers(1, 12), kept=st.lists(st.floats(0.0, 2.0), min_size=12, max_size=12))
def test_memory_is_what_forwards_have_left(p: int, m: int, kept: list[float]) -> None:
    order = gpipe(p, m)
    assert peak_held(order, kept[:p], [0.0] * p) == pytest.approx([m * kept[stage] for stage in range(p)])


def test_interleaved_in_zero_bubbles_accounting() -> None:
    """Table 5's 1F1B-I lets a piece after the first wait for its group's first micro-batch alone: p hops fewer."""
    p, m, v, c = 8, 24, 3, 0.601
    f, b, w = 18.522, 18.086, 9.337
    seconds = f + b + w
    timed = time_order(interleaved(p, m, v), equal_times(p * v, f / v, b / v, w / v), Hops(c))
    ours = m * seconds + (p - 1) * seconds / v + (2 * p * v - 2) * c
    assert timed.makespan_s == pytest.approx(ours, rel=1e-12)
    assert 1 - m * seconds / (ours - p * c) == pytest.approx(0.1055, abs=5e-5)


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ([["F0", "B0"], ["F0"]], "stage 1 must do either 1B0 or both 1I0 and 1W0"),
        ([["B0", "F0"], ["F0", "B0"]], "stage 0 lists 0B0 before 0F0"),
        ([["F0", "F0", "B0"], ["F0", "B0"]], "lists 0F0 twice"),
        ([["F1", "B1"], ["F1", "B1"]], "numbered 0 to 0"),
        ([["F0", "W0", "I0"], ["F0", "B0"]], "lists 0W0 before 0I0"),
        ([["F0", "B0"], ["F0", "B0", "I0", "W0"]], "stage 1 must do either"),
        ([[], ["F0", "B0"]], "stage 0 never does 0F0"),
        ([[], []], "no actions"),
    ],
)
def test_incomplete_orders_are_refused(lists: list[list[str]], message: str) -> None:
    order = make_order(
        [[Action(text[0], stage, int(text[1:])) for text in texts] for stage, texts in enumerate(lists)],  # type: ignore[arg-type]
        one_each(len(lists)),
    )
    with pytest.raises(ScheduleError, match=message):
        check_order(order)


def test_a_deadlock_is_named() -> None:
    first = [Action("F", 0, 1), Action("F", 0, 0), Action("B", 0, 0), Action("B", 0, 1)]
    second = [Action("F", 1, 0), Action("B", 1, 0), Action("F", 1, 1), Action("B", 1, 1)]
    time_order(make_order([first, second], one_each(2)), equal_times(2, 1, 1, 1))
    crossed = [Action("F", 0, 0), Action("B", 0, 0), Action("F", 0, 1), Action("B", 0, 1)]
    waiting = [Action("F", 1, 1), Action("B", 1, 1), Action("F", 1, 0), Action("B", 1, 0)]
    with pytest.raises(ScheduleError, match="deadlock: stage 0 at 0B0, stage 1 at 1F1 wait"):
        time_order(make_order([crossed, waiting], one_each(2)), equal_times(2, 1, 1, 1))
