"""The record every backend writes: one row per span of time that a peer spent on something.

A trace is columnar: `step, replica, stage, peer, lane, kind, microbatch, attempt, start_s, end_s, bytes, cause`.
Lanes, kinds and causes are small integer codes, the constants below; the tables of names travel in the file, so that
a trace explains itself. -1 in an integer column means "does not apply".
"""

from __future__ import annotations

import csv
import struct
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

LANES: Final = ("compute", "up", "down", "merge", "control")
LANE_COMPUTE, LANE_UP, LANE_DOWN, LANE_MERGE, LANE_CONTROL = range(len(LANES))

KINDS: Final = (
    *("F", "B", "I", "W", "step", "idle"),
    *("send", "receive", "upload", "average", "download", "down", "benched"),
)
KIND_F, KIND_B, KIND_I, KIND_W, KIND_STEP, KIND_IDLE = range(6)
KIND_SEND, KIND_RECEIVE, KIND_UPLOAD, KIND_AVERAGE, KIND_DOWNLOAD, KIND_DOWN, KIND_BENCHED = range(6, len(KINDS))

CAUSE_LABELS: Final[Mapping[str, str]] = {
    "useful": "useful FLOPs",
    "kernel": "kernel inefficiency",
    "recompute": "recompute",
    "boundary": "boundary encode/decode",
    "optimizer": "optimizer steps",
    "imbalance": "stage imbalance",
    "fill": "pipeline fill and drain",
    "window": "window-limited",
    "polling": "polling delay",
    "transfer": "waiting for transfer",
    "encryption": "waiting for encryption",
    "upstream": "waiting for a slow or busy peer",
    "merge_transfer": "merge transfer",
    "merge_wait": "waiting for others' merge",
    "merge_compute": "merge compute",
    "startup": "start-up",
    "benched": "benched",
    "down": "down",
    "thrown_away": "work thrown away",
}
"""Where a GPU-second can go, in the order of the waterfall, with the words a reader sees."""

CAUSES: Final = ("none", *CAUSE_LABELS)
(
    CAUSE_NONE,
    CAUSE_USEFUL,
    CAUSE_KERNEL,
    CAUSE_RECOMPUTE,
    CAUSE_BOUNDARY,
    CAUSE_OPTIMIZER,
    CAUSE_IMBALANCE,
    CAUSE_FILL,
    CAUSE_WINDOW,
    CAUSE_POLLING,
    CAUSE_TRANSFER,
    CAUSE_ENCRYPTION,
    CAUSE_UPSTREAM,
    CAUSE_MERGE_TRANSFER,
    CAUSE_MERGE_WAIT,
    CAUSE_MERGE_COMPUTE,
    CAUSE_STARTUP,
    CAUSE_BENCHED,
    CAUSE_DOWN,
    CAUSE_THROWN_AWAY,
) = range(len(CAUSES))

ROW: Final = np.dtype(
    [
        ("step", "<i4"),
        ("replica", "<i2"),
        ("stage", "<i2"),
        ("peer", "<i4"),
        ("lane", "i1"),
        ("kind", "i1"),
        ("microbatch", "<i4"),
        ("attempt", "i1"),
        ("start_s", "<f8"),
        ("end_s", "<f8"),
        ("bytes", "<f8"),
        ("cause", "i1"),
    ]
)
"""One span, packed: 44 bytes."""

COLUMNS: Final = tuple(ROW.names or ())
NAME_TABLES: Final = ("peers", "lanes", "kinds", "causes")
_PACKED: Final = struct.Struct("<ihhibbibdddb")
_SPANS_PER_CHUNK: Final = 65_536
_OVERLAP_TOLERANCE_S: Final = 1e-9


class TraceError(ValueError):
    """A file that is not a trace, or columns that do not make one."""


class Trace(Mapping[str, NDArray[Any]]):
    """Columns of equal length by name, with the names their codes stand for. Treat it as immutable.

    `lanes`, `kinds`, `causes` and `peers` are the names by code. Raises TraceError when a column is missing or the
    columns differ in length.
    """

    def __init__(
        self,
        columns: Mapping[str, NDArray[Any]],
        *,
        peers: Sequence[str],
        lanes: Sequence[str] = LANES,
        kinds: Sequence[str] = KINDS,
        causes: Sequence[str] = CAUSES,
    ) -> None:
        missing = [name for name in COLUMNS if name not in columns]
        if missing:
            raise TraceError(f"not a trace: no column {', '.join(missing)}")
        self._columns = {name: np.asarray(columns[name], dtype=ROW[name]) for name in COLUMNS}
        lengths = {name: column.shape for name, column in self._columns.items()}
        if len(set(lengths.values())) > 1 or self._columns["peer"].ndim != 1:
            raise TraceError(f"not a trace: columns differ in shape: {lengths}")
        self.peers, self.lanes, self.kinds, self.causes = (tuple(map(str, n)) for n in (peers, lanes, kinds, causes))

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self._columns[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)

    def __repr__(self) -> str:
        return f"<Trace of {self.num_spans} spans on {len(self.peers)} peers>"

    @property
    def num_spans(self) -> int:
        """How many rows the trace has."""
        return len(self._columns["peer"])

    def select(self, rows: NDArray[Any] | slice) -> Trace:
        """Return the trace of the given rows: a boolean mask, indices or a slice."""
        columns = {name: column[rows] for name, column in self._columns.items()}
        return Trace(columns, peers=self.peers, lanes=self.lanes, kinds=self.kinds, causes=self.causes)

    def window(self, from_s: float, until_s: float) -> Trace:
        """Return the spans that touch `[from_s, until_s)`, uncut."""
        return self.select((self["end_s"] > from_s) & (self["start_s"] < until_s))

    def problems(self) -> list[str]:
        """Return what is wrong with the record, a sentence each with the first offending row; an empty list: nothing.

        Checked: finite times, no span ends before it starts, no negative bytes, codes with a name, an idle span has a
        cause, and no peer does two things at once on its compute lane.
        """
        start, end = self["start_s"], self["end_s"]
        found = [
            *_where(~(np.isfinite(start) & np.isfinite(end)), "time is not finite"),
            *_where(end < start, "ends before it starts"),
            *_where(~(self["bytes"] >= 0), "bytes are negative or missing"),
        ]
        for column, names in (("peer", self.peers), ("lane", self.lanes), ("kind", self.kinds), ("cause", self.causes)):
            codes = self[column]
            found += _where((codes < 0) | (codes >= len(names)), f"{column} code has no name")
        if "idle" in self.kinds and "none" in self.causes:
            idle = self["kind"] == self.kinds.index("idle")
            found += _where(idle & (self["cause"] == self.causes.index("none")), "idle without a cause")
        return found or self._overlaps()

    def _overlaps(self) -> list[str]:
        if "compute" not in self.lanes:
            return []
        rows = np.flatnonzero(self["lane"] == self.lanes.index("compute"))
        peer, start, end = self["peer"][rows], self["start_s"][rows], self["end_s"][rows]
        order = np.lexsort((end, start, peer))
        rows, peer, start, end = rows[order], peer[order], start[order], end[order]
        overlapping = (peer[1:] == peer[:-1]) & (start[1:] < end[:-1] - _OVERLAP_TOLERANCE_S)
        found = []
        for i in np.flatnonzero(overlapping)[:1]:
            first, second, name = rows[i], rows[i + 1], self.peers[peer[i]]
            found.append(
                f"{overlapping.sum()} spans overlap on a compute lane (first: rows {first} and {second}, {name}, "
                f"{start[i + 1]!s} s before {end[i]!s} s)"
            )
        return found

    def save(self, path: Path | str) -> None:
        """Write the trace as compressed `.npz`; the same trace gives the same bytes. Raises OSError."""
        content: dict[str, Any] = dict(self._columns)
        content |= {name: np.array(getattr(self, name), dtype=np.str_) for name in NAME_TABLES}
        with Path(path).open("wb") as file:
            np.savez_compressed(file, **content)

    @classmethod
    def load(cls, path: Path | str) -> Trace:
        """Read what `save` wrote. Raises TraceError for anything else, OSError when it cannot be read."""
        try:
            with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                content = {name: arrays[name] for name in arrays.files}
        except (ValueError, zipfile.BadZipFile, EOFError, TypeError) as error:
            raise TraceError(f"{path}: not a trace: {error}") from error
        missing = [name for name in NAME_TABLES if name not in content]
        if missing:
            raise TraceError(f"{path}: not a trace: no table of {', '.join(missing)}")
        names = {name: [str(item) for item in np.atleast_1d(content.pop(name))] for name in NAME_TABLES}
        try:
            return cls(content, **names)
        except TraceError as error:
            raise TraceError(f"{path}: {error}") from error

    def to_csv(self, path: Path | str) -> None:
        """Write one line per span with names instead of codes. Raises OSError."""
        names = {"peer": self.peers, "lane": self.lanes, "kind": self.kinds, "cause": self.causes}
        columns = [
            [names[column][code] for code in values.tolist()] if column in names else values.tolist()
            for column, values in self._columns.items()
        ]
        with Path(path).open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS)
            writer.writerows(zip(*columns, strict=True))


class TraceRecorder:
    """Collects spans at about a third of a microsecond and 44 bytes each."""

    def __init__(self, peer_names: Sequence[str]) -> None:
        self.peer_names = tuple(peer_names)
        self._chunks: list[NDArray[Any]] = []
        self._buffer = bytearray(_SPANS_PER_CHUNK * _PACKED.size)
        self._used = 0

    def __len__(self) -> int:
        return sum(map(len, self._chunks)) + self._used // _PACKED.size

    def add(  # noqa: PLR0917 - called millions of times: keywords would double its cost
        self,
        step: int,
        replica: int,
        stage: int,
        peer: int,
        lane: int,
        kind: int,
        microbatch: int,
        attempt: int,
        start_s: float,
        end_s: float,
        num_bytes: float,
        cause: int,
    ) -> None:
        """Record one span. Codes are the constants of this module; -1 where a number does not apply.

        Raises struct.error when a number does not fit its column (attempt is 8 bits wide, replica and stage 16).
        """
        used = self._used
        if used == len(self._buffer):
            self._flush()
            used = 0
        _PACKED.pack_into(
            self._buffer, used,
            step, replica, stage, peer, lane, kind, microbatch, attempt, start_s, end_s, num_bytes, cause,
        )  # fmt: skip
        self._used = used + _PACKED.size

    def table(self) -> Trace:
        """Return everything recorded so far, in the order of recording; recording may go on."""
        self._flush()
        rows = np.concatenate(self._chunks) if self._chunks else np.empty(0, dtype=ROW)
        return Trace({name: np.ascontiguousarray(rows[name]) for name in COLUMNS}, peers=self.peer_names)

    def _flush(self) -> None:
        if self._used:
            self._chunks.append(np.frombuffer(bytes(self._buffer[: self._used]), dtype=ROW))
            self._used = 0


def _where(wrong: NDArray[Any], what: str) -> list[str]:
    count = int(wrong.sum())
    if not count:
        return []
    spans = "1 span" if count == 1 else f"{count} spans"
    return [f"{spans}: {what} (first: row {int(np.argmax(wrong))})"]
