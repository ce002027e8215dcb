"""Checks what Perfetto demands of Chrome-trace JSON: strict nesting per track, order of time, paired arrows, names."""

import gzip
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orionbed import tracing
from orionbed.tracing import Trace, TraceRecorder
from reports import chrome_trace

Event = dict[str, Any]


def problems(events: list[Event]) -> list[str]:
    """Our own checker; times are compared as whole nanoseconds."""
    found: list[str] = []
    slices = [event for event in events if event["ph"] == "X"]
    starts = [round(event["ts"] * 1000) for event in slices]
    if starts != sorted(starts):
        found.append("spans are not in the order of time")
    stacks: dict[tuple[int, int], list[int]] = defaultdict(list)
    inside: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    for event, start in zip(slices, starts, strict=True):
        track, end = (event["pid"], event["tid"]), start + round(event["dur"] * 1000)
        if end < start:
            found.append(f"{event['name']} ends before it starts")
        stack = stacks[track]
        while stack and stack[-1] <= start:
            stack.pop()
        if stack and end > stack[-1]:
            found.append(f"{event['name']} on track {track} is neither inside the span before it nor after it")
        stack.append(end)
        inside[track].append((start, end))
    named = {(e["name"], e["pid"], e["tid"] if e["name"].startswith("thread") else 0) for e in events if e["ph"] == "M"}
    for pid, tid in stacks:
        if ("process_name", pid, 0) not in named or ("thread_name", pid, tid) not in named:
            found.append(f"track {pid}/{tid} has no name")
    return found + arrow_problems(events, inside)


def arrow_problems(events: list[Event], inside: dict[tuple[int, int], list[tuple[int, int]]]) -> list[str]:
    """Each arrow has one start and one end, in spans of different processes, and does not go back in time."""
    found: list[str] = []
    arrows: dict[int, dict[str, Event]] = defaultdict(dict)
    for event in events:
        if event["ph"] in "sf":
            if event["ph"] in arrows[event["id"]]:
                found.append(f"arrow {event['id']} has two ends of one kind")
            arrows[event["id"]][event["ph"]] = event
            at, track = round(event["ts"] * 1000), (event["pid"], event["tid"])
            if not any(start <= at < end for start, end in inside[track]):
                found.append(f"arrow {event['id']} ends in no span")
    for number, ends in arrows.items():
        if set(ends) != {"s", "f"}:
            found.append(f"arrow {number} lacks an end")
        elif ends["s"]["ts"] > ends["f"]["ts"] or ends["s"]["pid"] == ends["f"]["pid"]:
            found.append(f"arrow {number} goes back in time or nowhere")
    return found


def read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(gzip.decompress(path.read_bytes()))
    return content


def test_a_pipeline_gives_a_sound_trace_with_an_arrow_per_hop(run_folder: Path, tmp_path: Path) -> None:
    trace = Trace.load(run_folder / "trace.npz")
    assert trace.problems() == []
    num_written = chrome_trace.write(trace, tmp_path / "trace.json.gz")
    content = read(tmp_path / "trace.json.gz")
    events = content["traceEvents"]
    assert problems(events) == []
    assert num_written == trace.num_spans == sum(event["ph"] == "X" for event in events)
    assert content["otherData"] == {"spans": num_written, "spans_left_out": 0}
    num_sends = int((trace["kind"] == tracing.KIND_SEND).sum())
    assert sum(event["ph"] == "s" for event in events) == num_sends > 50
    names = {event["args"]["name"] for event in events if event["ph"] == "M" and event["name"] == "process_name"}
    assert "stage 0: s00r0" in names
    total = sum(event["dur"] for event in events if event["ph"] == "X") / 1e6
    assert total == pytest.approx(float((trace["end_s"] - trace["start_s"]).sum()), rel=1e-6)
    idle = next(event for event in events if event.get("name", "").startswith("idle"))
    assert idle["name"] in ("idle: waiting for a slow or busy peer", "idle: window-limited")


def test_overlapping_transfers_go_to_further_tracks_of_their_lane() -> None:
    recorder = TraceRecorder(["a", "b"])
    for start, end in ((0.0, 3.0), (1.0, 2.0), (2.5, 4.0), (2.0, 2.2), (3.0, 3.0)):
        recorder.add(0, 0, 0, 0, tracing.LANE_UP, tracing.KIND_SEND, 1, 0, start, end, 1.0, tracing.CAUSE_NONE)
    events = list(chrome_trace.events(recorder.table()))
    assert problems(events) == []
    titles = {event["args"]["name"] for event in events if event["name"] == "thread_name"}
    assert titles == {"up", "up 2"}


def test_random_spans_always_nest() -> None:
    rng = np.random.default_rng(2)
    recorder = TraceRecorder([f"p{i}" for i in range(4)])
    for _ in range(3000):
        start = float(rng.uniform(0, 100))
        peer, lane, kind = int(rng.integers(4)), int(rng.integers(5)), int(rng.integers(len(tracing.KINDS)))
        length = float(rng.choice([0.0, 1e-10, 0.3, 5.0]))
        stage = peer if rng.random() < 0.9 else -1
        recorder.add(0, 0, stage, peer, lane, kind, int(rng.integers(20)), 0, start, start + length, 5.0, 1)
    assert problems(list(chrome_trace.events(recorder.table()))) == []


def test_neighbours_that_touch_within_rounding_share_a_track() -> None:
    recorder = TraceRecorder(["a"])
    edges = np.cumsum(np.full(200, 0.1)) + 123456.7
    for start, end in zip(edges[:-1].tolist(), (edges[1:] + 6e-10).tolist(), strict=True):
        recorder.add(0, 0, 0, 0, tracing.LANE_COMPUTE, tracing.KIND_F, 1, 0, start, end, 0.0, tracing.CAUSE_NONE)
    events = list(chrome_trace.events(recorder.table()))
    assert problems(events) == []
    assert {event["tid"] for event in events if event["ph"] == "X"} == {0}


def test_a_receive_of_another_micro_batch_or_attempt_is_not_paired() -> None:
    recorder = TraceRecorder(["a", "b"])
    recorder.add(0, 0, 0, 0, tracing.LANE_UP, tracing.KIND_SEND, 7, 0, 0.0, 1.0, 5.0, 0)
    recorder.add(0, 0, 1, 1, tracing.LANE_DOWN, tracing.KIND_RECEIVE, 7, 1, 0.5, 1.5, 5.0, 0)
    recorder.add(0, 0, 1, 1, tracing.LANE_DOWN, tracing.KIND_RECEIVE, 8, 0, 0.5, 1.5, 5.0, 0)
    assert not [event for event in chrome_trace.events(recorder.table()) if event["ph"] in "sf"]


def test_a_long_trace_is_cut_at_its_end_and_says_so(run_folder: Path, tmp_path: Path) -> None:
    trace = Trace.load(run_folder / "trace.npz")
    assert chrome_trace.write(trace, tmp_path / "t.gz", max_spans=100) == 100
    content = read(tmp_path / "t.gz")
    assert content["otherData"] == {"spans": 100, "spans_left_out": trace.num_spans - 100}
    assert problems(content["traceEvents"]) == []
    latest = max(event["ts"] for event in content["traceEvents"] if event["ph"] == "X") / 1e6
    assert (trace["start_s"] < latest - 1e-6).sum() <= 100


def test_the_same_trace_is_the_same_file_and_an_empty_one_works(run_folder: Path, tmp_path: Path) -> None:
    trace = Trace.load(run_folder / "trace.npz")
    for name in ("a", "b"):
        chrome_trace.write(trace, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    chrome_trace.write(TraceRecorder(["a"]).table(), tmp_path / "empty")
    assert read(tmp_path / "empty")["traceEvents"] == []


def test_the_checker_sees_what_is_wrong() -> None:
    base = {"ph": "X", "pid": 0, "tid": 0, "name": "x"}
    assert problems([base | {"ts": 0.0, "dur": 2.0}, base | {"ts": 1.0, "dur": 2.0}])[0].startswith("x on track")
    assert "order of time" in problems([base | {"ts": 1.0, "dur": 0.5}, base | {"ts": 0.0, "dur": 0.5}])[0]
    arrow = {"ph": "s", "pid": 0, "tid": 0, "id": 1, "ts": 0.5}
    assert "arrow 1 lacks an end" in problems([base | {"ts": 0.0, "dur": 2.0}, arrow])
