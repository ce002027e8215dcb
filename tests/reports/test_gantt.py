from pathlib import Path

import numpy as np
import pytest

from orionbed import tracing
from orionbed.tracing import Trace, TraceRecorder
from reports import gantt
from reports.run_folder import Table


@pytest.fixture
def trace(run_folder: Path) -> Trace:
    return Trace.load(run_folder / "trace.npz")


def test_rows_are_stages_then_replicas(trace: Trace) -> None:
    window = gantt.window(trace)
    assert window is not None
    assert window.rows[:4] == ("stage 0 · r0", "stage 0 · r1", "stage 1 · r0", "stage 1 · r1")
    assert window.num_rows_left_out == 0


def test_the_data_hold_every_span_in_whole_ticks(trace: Trace) -> None:
    window = gantt.window(trace)
    assert window is not None
    data = window.data()
    assert len(data["spans"]) == 5 * len(window.row)
    assert all(isinstance(number, int) for number in data["spans"])
    flat = np.array(data["spans"]).reshape(-1, 5)
    row, start, length, style, _ = flat.T
    assert (length >= 0).all()
    assert (start + length <= data["length"]).all()
    assert set(row) == set(range(len(data["rows"])))
    assert set(style) == set(range(len(data["styles"])))
    assert all(set(style) == {"label", "colour", "form"} for style in data["styles"])
    order = np.lexsort((start, row))
    np.testing.assert_array_equal(order, np.arange(len(row)))


def test_work_and_idle_fill_the_rows(trace: Trace) -> None:
    window = gantt.window(trace)
    assert window is not None
    shares = window.shares()
    assert sum(shares.values()) == pytest.approx(1.0, abs=0.15)
    assert {style.label for style in shares} >= {"forward", "backward", "waiting for a slow or busy peer"}
    assert all(style.form != "transfer" for style in shares)


def test_a_long_trace_is_shown_as_far_as_its_first_spans_go(trace: Trace) -> None:
    whole, part = gantt.window(trace), gantt.window(trace, max_spans=100)
    assert whole is not None
    assert part is not None
    work = np.array([style.form != "transfer" for style in part.styles])[part.style]
    assert 90 <= work.sum() <= 100
    assert part.from_s == whole.from_s
    assert part.until_s < whole.until_s


def test_peers_that_find_no_room_are_counted() -> None:
    recorder = TraceRecorder([f"p{i}" for i in range(gantt.MAX_ROWS + 5)])
    for peer in range(gantt.MAX_ROWS + 5):
        recorder.add(0, 0, peer, peer, tracing.LANE_COMPUTE, tracing.KIND_F, 1, 0, 0.0, 1.0, 0.0, 0)
    window = gantt.window(recorder.table())
    assert window is not None
    assert len(window.rows) == gantt.MAX_ROWS
    assert window.num_rows_left_out == 5
    assert window.row.max() == gantt.MAX_ROWS - 1


def test_absence_counts_on_any_lane_and_a_nameless_place_goes_by_the_peers_name() -> None:
    recorder = TraceRecorder(["alpha", "beta"])
    recorder.add(0, -1, -1, 1, tracing.LANE_CONTROL, tracing.KIND_DOWN, -1, 0, 0.0, 4.0, 0.0, tracing.CAUSE_DOWN)
    recorder.add(0, 0, 0, 0, tracing.LANE_COMPUTE, tracing.KIND_B, 3, 0, 1.0, 2.0, 0.0, 0)
    window = gantt.window(recorder.table())
    assert window is not None
    assert sorted(window.rows) == ["beta", "stage 0 · r0"]
    assert window.from_s == 0.0
    assert [style.label for style in window.styles] == ["backward", "down"]


def test_absences_come_from_the_marks_where_the_trace_has_none() -> None:
    recorder = TraceRecorder(["alpha", "beta"])
    for peer in (0, 1):
        recorder.add(0, peer, 2, peer, tracing.LANE_COMPUTE, tracing.KIND_F, 3, 0, 0.0, 1.0, 0.0, 0)
    recorder.add(0, 0, 2, 0, tracing.LANE_COMPUTE, tracing.KIND_F, 4, 0, 9.0, 10.0, 0.0, 0)
    trace = recorder.table()
    marks = Table(
        {
            "t_s": ["2.0", "3.0", "4.0", "12.0", "1.0"],
            "end_s": ["8.0", "30.0", "5.0", "13.0", "2.0"],
            "kind": ["down", "down", "merge", "down", "down"],
            "peer": ["1", "0", "-1", "1", "7"],
        }
    )
    window = gantt.window(gantt.with_absences(trace, marks))
    assert window is not None
    down = [style.label == "down" for style in window.styles]
    found = [
        (window.rows[row], start, end)
        for row, style, start, end in zip(window.row, window.style, window.start_s, window.end_s, strict=True)
        if down[style]
    ]
    assert found == [("stage 2 · r0", 3.0, 10.0), ("stage 2 · r1", 2.0, 8.0)]
    assert [style.form for style in window.styles] == ["work", "idle"]
    assert gantt.with_absences(trace, None) is trace
    assert gantt.with_absences(gantt.with_absences(trace, marks), marks).num_spans == trace.num_spans + 2


def test_a_trace_without_work_has_no_window() -> None:
    recorder = TraceRecorder(["a"])
    assert gantt.window(recorder.table()) is None
    recorder.add(0, 0, 0, 0, tracing.LANE_UP, tracing.KIND_SEND, 1, 0, 0.0, 1.0, 5.0, 0)
    assert gantt.window(recorder.table()) is None
