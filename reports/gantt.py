"""The part of a trace that a page can show: a window of a few thousand spans, a row per peer, as compact data."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from orionbed.tracing import Trace
from reports.palette import WORK_COLOURS, WORK_LABELS, cause_colour, cause_phrase
from reports.run_folder import Table

MAX_SPANS: Final = 5000
MAX_TRANSFERS: Final = 3000
MAX_ROWS: Final = 96
TICKS_PER_S: Final = 10_000
"""The script's unit of time: a tenth of a millisecond."""
_ABSENT: Final = ("down", "benched")


@dataclass(frozen=True)
class Style:
    """How a span looks: its words, its colour, and whether it is waiting or a transfer rather than work."""

    label: str
    colour: str
    form: str  # work | idle | transfer

    def as_dict(self) -> dict[str, str]:
        """Return the style as the script reads it."""
        return {"label": self.label, "colour": self.colour, "form": self.form}


@dataclass(frozen=True)
class Window:
    """Spans of a trace between two times, cut to them, by row; `style` indexes `styles`."""

    from_s: float
    until_s: float
    rows: tuple[str, ...]
    styles: tuple[Style, ...]
    row: NDArray[np.int64]
    style: NDArray[np.int64]
    start_s: NDArray[np.float64]
    end_s: NDArray[np.float64]
    microbatch: NDArray[np.int64]
    num_rows_left_out: int = 0

    def until(self, until_s: float) -> Window:
        """Return the part before a time."""
        keep = self.start_s < until_s
        return replace(
            self,
            until_s=until_s,
            row=self.row[keep],
            style=self.style[keep],
            start_s=self.start_s[keep],
            end_s=np.minimum(self.end_s[keep], until_s),
            microbatch=self.microbatch[keep],
        )

    def shares(self) -> dict[Style, float]:
        """Return the share of the rows' time in the window by style, transfers left out."""
        seconds = np.bincount(self.style, weights=self.end_s - self.start_s, minlength=len(self.styles))
        total = max((self.until_s - self.from_s) * len(self.rows), 1e-300)
        return {s: float(t) / total for s, t in zip(self.styles, seconds, strict=True) if s.form != "transfer"}

    def data(self) -> dict[str, Any]:
        """Return what the page's script draws: names, styles and five integers per span in one flat list."""
        start = np.round((self.start_s - self.from_s) * TICKS_PER_S).astype(np.int64)
        end = np.round((self.end_s - self.from_s) * TICKS_PER_S).astype(np.int64)
        flat = np.stack([self.row, start, end - start, self.style, self.microbatch], axis=1)
        return {
            "from_s": round(self.from_s, 4),
            "length": round((self.until_s - self.from_s) * TICKS_PER_S),
            "rows": list(self.rows),
            "styles": [style.as_dict() for style in self.styles],
            "spans": flat.ravel().tolist(),
        }


def with_absences(trace: Trace, marks: Table | None) -> Trace:
    """Return the trace with a span for each time that a peer was down, as the run's marks have it.

    Backends mark absences and do not trace them: the peer's row would be empty. A trace that has its own stays.
    """
    worked = trace["end_s"][_is(trace, "lane", "compute")]
    if marks is None or not len(worked) or _is(trace, "kind", "down").any() or "down" not in trace.kinds:
        return trace
    peer, start_s, end_s = (marks.numbers(name) for name in ("peer", "t_s", "end_s"))
    end_s = np.minimum(end_s, worked.max())
    down = (np.array(marks.text("kind")) == "down") & (peer >= 0) & (peer < len(trace.peers)) & (start_s < end_s)
    peers = peer[down].astype(np.int64)
    codes, first = np.unique(trace["peer"], return_index=True)
    stage, replica = np.full((2, max(len(trace.peers), int(codes.max()) + 1)), -1)
    stage[codes], replica[codes] = trace["stage"][first], trace["replica"][first]
    nothing, none = np.full(len(peers), -1), np.zeros(len(peers))
    added = {
        "step": nothing, "stage": stage[peers], "replica": replica[peers], "peer": peers,
        "lane": none + trace.lanes.index("compute"), "kind": none + trace.kinds.index("down"), "microbatch": nothing,
        "attempt": none, "start_s": start_s[down], "end_s": end_s[down], "bytes": none, "cause": none,
    }  # fmt: skip
    columns = {name: np.concatenate([trace[name], added[name].astype(trace[name].dtype)]) for name in trace}
    return Trace(columns, peers=trace.peers, lanes=trace.lanes, kinds=trace.kinds, causes=trace.causes)


def window(trace: Trace, max_spans: int = MAX_SPANS) -> Window | None:
    """Return the first `max_spans` things that peers did from the first forward pass on, and the uploads meanwhile."""
    main = _is(trace, "lane", "compute") | _is(trace, "kind", "down", "benched")
    if not main.any():
        return None
    names, row_of, left_out = _rows(trace, main)
    main &= row_of[trace["peer"]] >= 0
    forward = main & _is(trace, "kind", "F")
    from_s = float(trace["start_s"][forward if forward.any() else main].min())
    until_s = float(trace["end_s"][main].max())
    starts = np.sort(trace["start_s"][main & (trace["end_s"] > from_s)])
    if len(starts) > max_spans:
        until_s = float(starts[max_spans])
    touching = (trace["end_s"] > from_s) & (trace["start_s"] < until_s) & (row_of[trace["peer"]] >= 0)
    transfers = touching & _is(trace, "lane", "up") & _is(trace, "kind", "send")
    chosen = touching & main
    if 0 < transfers.sum() <= MAX_TRANSFERS:
        chosen = touching & (main | transfers)
    index = np.flatnonzero(chosen)
    index = index[np.lexsort((trace["start_s"][index], row_of[trace["peer"][index]]))]
    styles, style = _styles(trace, index)
    return Window(
        from_s,
        until_s,
        names,
        styles,
        row_of[trace["peer"][index]],
        style,
        np.maximum(trace["start_s"][index], from_s),
        np.minimum(trace["end_s"][index], until_s),
        trace["microbatch"][index].astype(np.int64),
        left_out,
    )


def _is(trace: Trace, column: str, *names: str) -> NDArray[np.bool_]:
    """Return which rows have one of the names in a column of codes."""
    table = {"lane": trace.lanes, "kind": trace.kinds}[column]
    return np.isin(trace[column], [code for code, name in enumerate(table) if name in names])


def _rows(trace: Trace, main: NDArray[np.bool_]) -> tuple[tuple[str, ...], NDArray[np.int64], int]:
    """Return the rows' names, the row of each peer (-1: none) and how many peers found no room."""
    peers, first = np.unique(np.where(main, trace["peer"], -1), return_index=True)
    peers, first = peers[peers >= 0], first[peers >= 0]
    stage, replica = trace["stage"][first], trace["replica"][first]
    order = np.lexsort((peers, replica, stage))
    row_of = np.full(max(len(trace.peers), int(peers.max()) + 1), -1, dtype=np.int64)
    shown = order[:MAX_ROWS]
    row_of[peers[shown]] = np.arange(len(shown))
    names = tuple(
        f"stage {stage[i]} · r{replica[i]}" if stage[i] >= 0 else str(trace.peers[peers[i]]) for i in shown.tolist()
    )
    return names, row_of, len(order) - len(shown)


def _styles(trace: Trace, index: NDArray[np.int64]) -> tuple[tuple[Style, ...], NDArray[np.int64]]:
    idle = trace.kinds.index("idle") if "idle" in trace.kinds else -1
    kind, cause = trace["kind"][index].astype(np.int64), trace["cause"][index].astype(np.int64)
    combined = np.where(kind == idle, len(trace.kinds) + cause, kind)
    codes, style = np.unique(combined, return_inverse=True)
    styles = []
    for code in codes.tolist():
        if code < len(trace.kinds):
            name = trace.kinds[code]
            form = "transfer" if name == "send" else "idle" if name in _ABSENT else "work"
            styles.append(Style(WORK_LABELS.get(name, name), WORK_COLOURS.get(name, "#9aa3ad"), form))
        else:
            name = trace.causes[code - len(trace.kinds)]
            words = cause_phrase(name)
            words = words if words.startswith("waiting") else f"waiting: {words}"
            styles.append(Style(words, cause_colour(name), "idle"))
    return tuple(styles), style.astype(np.int64)
