"""Recorded churn as a CSV file with the columns t,peer,state: write, read and replay.

A row says that at `t`, seconds or a duration like `1.5 h`, counted from the start of training, a peer (its name, like
s03r1) becomes `up` or `down`. Before its first row a peer is the opposite of that row, after the last one it stays as
it is; peers without rows are always up.
"""

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import inf, isfinite
from pathlib import Path
from typing import Final

from orionbed import quantity
from orionbed.absences.absence import Absence
from orionbed.strict_csv import read_rows

COLUMNS: Final = ["t", "peer", "state"]

ChurnTrace = dict[str, list[tuple[float, bool]]]
"""Peer name -> (time in s, whether it is up from then on) in order of time, up and down in turn."""


def read_churn_trace(path: Path | str) -> ChurnTrace:
    """Read a trace; ValueError names the line that is wrong.

    Times of one peer must rise, and its states must take turns.
    """
    trace: ChurnTrace = {}
    for place, row in read_rows(path, COLUMNS):
        time_s, is_up = _time_s(row[0], place), _state(row[2], place)
        changes = trace.setdefault(row[1], [])
        if changes and time_s <= changes[-1][0]:
            raise ValueError(f"{place}: {row[1]} goes back in time, from {changes[-1][0]:g} s to {time_s:g} s")
        if changes and is_up == changes[-1][1]:
            raise ValueError(f"{place}: {row[1]} is {row[2]} already since {changes[-1][0]:g} s; remove the line")
        changes.append((time_s, is_up))
    return trace


def write_churn_trace(path: Path, trace: Mapping[str, Iterable[tuple[float, bool]]]) -> None:
    """Write a trace ordered by time, then by the order of its peers; reading it gives equal numbers."""
    rows = [(time_s, peer, is_up) for peer, changes in trace.items() for time_s, is_up in changes]
    rows.sort(key=lambda row: row[0])
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows((f"{time_s!r}".removesuffix(".0"), peer, "up" if up else "down") for time_s, peer, up in rows)


def away_by(changes: Sequence[tuple[float, bool]], start_s: float) -> Iterator[Absence]:
    """Yield the absences of a peer by its rows in a trace; the trace begins at `start_s`."""
    gone_s = 0.0 if changes and changes[0][1] else None
    for time_s, is_up in changes:
        if not is_up:
            gone_s = time_s
        elif gone_s is not None and time_s > gone_s:
            yield Absence(start_s + gone_s, start_s + time_s, "trace")
    if changes and not changes[-1][1]:
        yield Absence(start_s + changes[-1][0], inf, "trace")


def _time_s(text: str, place: str) -> float:
    try:
        time_s = float(text)
    except ValueError:
        try:
            time_s = quantity.parse(text, quantity.DURATION)
        except quantity.QuantityError as error:
            raise ValueError(f"{place}: t must be a number of seconds or a duration: {error}") from None
    if not isfinite(time_s) or time_s < 0.0:
        raise ValueError(f"{place}: t must not be below 0, not {text!r}")
    return time_s


def _state(text: str, place: str) -> bool:
    if text not in {"up", "down"}:
        raise ValueError(f"{place}: state must be up or down, not {text!r}")
    return text == "up"
