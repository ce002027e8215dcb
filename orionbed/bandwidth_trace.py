"""Recorded link rates as a CSV file with the columns t,peer,dir,bps: write, read and replay.

A row says that from second `t` on peer `peer` (its name) gets `bps` bits per second in direction `dir` (up or down).
Before its first row a link has the rate of that row; after its last row it keeps that one.
"""

import csv
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from math import inf, isfinite
from pathlib import Path
from typing import Final

from orionbed.bandwidth import Direction, Profile
from orionbed.strict_csv import read_rows

COLUMNS: Final = ["t", "peer", "dir", "bps"]

Trace = dict[tuple[str, Direction], list[tuple[float, float]]]
"""(peer name, direction) -> (time in s, bits per second) in order of time."""


class RecordedRate:
    """The rate of one link as recorded, times a factor; a `Profile`."""

    def __init__(self, changes: Sequence[tuple[float, float]], factor: float = 1.0) -> None:
        self._times = [time_s for time_s, _ in changes]
        self._rates = [rate * factor for _, rate in changes]

    def __call__(self, time_s: float) -> tuple[float, float]:
        """Return the rate at `time_s` and the time of its next change."""
        after = max(1, bisect_right(self._times, time_s))
        return self._rates[after - 1], self._times[after] if after < len(self._times) else inf


def record(profile: Profile, duration_s: float, factor: float = 1.0) -> list[tuple[float, float]]:
    """Return the changes of a profile from 0 to `duration_s`, rates times `factor` (8 from bytes/s to bits/s)."""
    changes = []
    time_s = 0.0
    while time_s < duration_s:
        rate, until_s = profile(time_s)
        changes.append((time_s, rate * factor))
        time_s = until_s
    return changes


def write_trace(path: Path, trace: Mapping[tuple[str, Direction], Iterable[tuple[float, float]]]) -> None:
    """Write a trace ordered by time, then by the order of its links; reading it gives equal numbers."""
    rows = [(time_s, peer, direction, bps) for (peer, direction), changes in trace.items() for time_s, bps in changes]
    rows.sort(key=lambda row: row[0])
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows((repr(time_s), peer, direction, repr(bps)) for time_s, peer, direction, bps in rows)


def read_trace(path: Path) -> Trace:
    """Read a trace; ValueError names the line that is wrong.

    Times of one link must not decrease; of two rows of one link at the same time the later one counts.
    """
    trace: Trace = {}
    for place, row in read_rows(path, COLUMNS):
        time_s, bps = _number(row[0], "t", place), _number(row[3], "bps", place)
        changes = trace.setdefault((row[1], _direction(row[2], place)), [])
        if changes and time_s < changes[-1][0]:
            raise ValueError(f"{place}: {row[1]} {row[2]} goes back in time, from {changes[-1][0]} s to {time_s} s")
        if changes and time_s == changes[-1][0]:
            changes.pop()
        changes.append((time_s, bps))
    return trace


def replay(trace: Trace, peer: str, direction: Direction, factor: float = 1.0) -> Profile | None:
    """Return the profile of a recorded link, rates times `factor` (1/8 for bytes/s); None for one not in the trace."""
    changes = trace.get((peer, direction))
    return None if changes is None else RecordedRate(changes, factor)


def _number(text: str, column: str, place: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = inf
    if not isfinite(value) or value < 0.0:
        raise ValueError(f"{place}: {column} must be a number not below 0, not {text!r}")
    return value


def _direction(text: str, place: str) -> Direction:
    if text == "up":
        return "up"
    if text == "down":
        return "down"
    raise ValueError(f"{place}: dir must be up or down, not {text!r}")
