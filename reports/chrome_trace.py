"""A trace as Chrome-trace JSON, which Perfetto (ui.perfetto.dev) and chrome://tracing open.

One process per peer, one track per lane; spans of one lane that overlap (several transfers at once) go to further
tracks of that lane, so that every track nests strictly. Times are microseconds, rounded to the nanosecond. An arrow
leads from each send to its receive.
"""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from orionbed.tracing import Trace
from reports.palette import cause_label

MAX_SPANS: Final = 1_000_000
_TRACKS_PER_LANE: Final = 100
_NS_PER_S: Final = 1_000_000_000
_ROUNDING_NS: Final = 2


def events(trace: Trace) -> Iterator[dict[str, Any]]:
    """Yield metadata, then spans and arrows in the order of time; of equal starts the longer span first."""
    start = np.round(trace["start_s"] * _NS_PER_S).astype(np.int64)
    end = np.maximum(np.round(trace["end_s"] * _NS_PER_S).astype(np.int64), start)
    track = _tracks(trace, start, end)
    yield from _metadata(trace, track)
    arrows = _arrows(trace, start, end)
    columns = {
        name: trace[name].tolist() for name in ("step", "peer", "kind", "microbatch", "attempt", "bytes", "cause")
    }
    for row in np.lexsort((track, trace["peer"], -end, start)).tolist():
        peer, tid = columns["peer"][row], int(track[row])
        kind, cause = trace.kinds[columns["kind"][row]], trace.causes[columns["cause"][row]]
        arguments = {name: columns[name][row] for name in ("step", "microbatch", "attempt") if columns[name][row] >= 0}
        if columns["bytes"][row]:
            arguments["bytes"] = columns["bytes"][row]
        if cause != "none":
            arguments["cause"] = cause_label(cause)
        yield {
            "ph": "X",
            "name": _name(kind, cause, columns["microbatch"][row]),
            "cat": cause if kind == "idle" else kind,
            "pid": peer,
            "tid": tid,
            "ts": int(start[row]) / 1000,
            "dur": int(end[row] - start[row]) / 1000,
            "args": arguments,
        }
        for phase, number, at in arrows.get(row, ()):
            arrow = {
                "ph": phase,
                "id": number,
                "name": "transfer",
                "cat": "flow",
                "pid": peer,
                "tid": tid,
                "ts": at / 1000,
            }
            yield arrow | ({"bp": "e"} if phase == "f" else {})


def write(trace: Trace, path: Path | str, max_spans: int = MAX_SPANS) -> int:
    """Write the trace as gzipped Chrome-trace JSON and return how many spans are in it.

    Of a trace longer than `max_spans` the earliest part is written and `otherData` says so. The same trace gives the
    same bytes. Raises OSError.
    """
    left_out = max(0, trace.num_spans - max_spans)
    if left_out:
        trace = trace.select(np.sort(np.argsort(trace["start_s"], kind="stable")[:max_spans]))
    head = json.dumps({"spans": trace.num_spans, "spans_left_out": left_out})
    with Path(path).open("wb") as raw, gzip.GzipFile("", "wb", compresslevel=6, fileobj=raw, mtime=0) as file:
        file.write(f'{{"displayTimeUnit":"ms","otherData":{head},"traceEvents":[\n'.encode())
        separator = b""
        for event in events(trace):
            file.write(separator + json.dumps(event, separators=(",", ":")).encode())
            separator = b",\n"
        file.write(b"\n]}\n")
    return trace.num_spans


def _name(kind: str, cause: str, microbatch: int) -> str:
    if kind == "idle":
        return f"idle: {cause_label(cause)}"
    return f"{kind} {microbatch}" if microbatch >= 0 else kind


def _tracks(trace: Trace, start: NDArray[np.int64], end: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return a track number per span: its lane's first, or the first further one where it overlaps nothing.

    An overlap within rounding is cut off the earlier span's `end` instead.
    """
    lane = trace["lane"].astype(np.int64)
    track = lane * _TRACKS_PER_LANE
    peer = trace["peer"].astype(np.int64)
    order = np.lexsort((-end, start, lane, peer))
    groups = (peer * len(trace.lanes) + lane)[order].tolist()
    group, last = None, list[int]()
    for row, of in zip(order.tolist(), groups, strict=True):
        if of != group:
            group, last = of, []
        place = next((i for i, other in enumerate(last) if end[other] <= start[row] + _ROUNDING_NS), len(last))
        if place == len(last):
            last.append(row)
        elif end[last[place]] > start[row]:
            end[last[place]] = max(start[row], start[last[place]])
        last[place] = row
        track[row] += min(place, _TRACKS_PER_LANE - 1)
    return track


def _metadata(trace: Trace, track: NDArray[np.int64]) -> Iterator[dict[str, Any]]:
    pairs = sorted(set(zip(trace["peer"].tolist(), track.tolist(), strict=True)))
    stage: dict[int, int] = {}
    for peer, of in zip(trace["peer"].tolist(), trace["stage"].tolist(), strict=True):
        if of >= 0:
            stage.setdefault(peer, of)
    for peer in sorted({peer for peer, _ in pairs}):
        title = trace.peers[peer] if peer not in stage else f"stage {stage[peer]}: {trace.peers[peer]}"
        yield {"ph": "M", "name": "process_name", "pid": peer, "tid": 0, "args": {"name": title}}
        order = stage.get(peer, len(trace.peers)) * len(trace.peers) + peer
        yield {"ph": "M", "name": "process_sort_index", "pid": peer, "tid": 0, "args": {"sort_index": order}}
    for peer, tid in pairs:
        lane, further = divmod(tid, _TRACKS_PER_LANE)
        title = trace.lanes[lane] + (f" {further + 1}" if further else "")
        yield {"ph": "M", "name": "thread_name", "pid": peer, "tid": tid, "args": {"name": title}}
        yield {"ph": "M", "name": "thread_sort_index", "pid": peer, "tid": tid, "args": {"sort_index": tid}}


def _arrows(trace: Trace, start: NDArray[np.int64], end: NDArray[np.int64]) -> dict[int, list[tuple[str, int, int]]]:
    """Return the arrow ends at each row: a send and the earliest receive of its micro-batch one stage further.

    What arrives before it was sent, or at the sender itself, is never taken for its receive.
    """
    if "send" not in trace.kinds or "receive" not in trace.kinds:
        return {}
    kind = trace["kind"]
    sends = np.flatnonzero((kind == trace.kinds.index("send")) & (end > start))
    receives = np.flatnonzero((kind == trace.kinds.index("receive")) & (end > start))
    names = ("step", "microbatch", "attempt", "stage", "peer")
    columns = {name: trace[name].tolist() for name in names}
    waiting: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for row in receives[np.argsort(end[receives], kind="stable")].tolist():
        waiting[columns["step"][row], columns["microbatch"][row], columns["attempt"][row]].append(row)
    found: dict[int, list[tuple[str, int, int]]] = {}
    for number, row in enumerate(sends[np.argsort(start[sends], kind="stable")].tolist()):
        key = (columns["step"][row], columns["microbatch"][row], columns["attempt"][row])
        for receive in waiting[key]:
            adjacent = abs(columns["stage"][receive] - columns["stage"][row]) == 1
            elsewhere = columns["peer"][receive] != columns["peer"][row]
            if adjacent and elsewhere and end[receive] >= end[row] and end[receive] > start[row]:
                waiting[key].remove(receive)
                at = max(int(start[receive]), int(start[row]))
                found.setdefault(row, []).append(("s", number, int(start[row])))
                found.setdefault(receive, []).append(("f", number, at))
                break
    return found
