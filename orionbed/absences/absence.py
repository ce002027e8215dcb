"""One absence of one peer, and what can be done with rows of them: pure, lazy, in order of time."""

from collections.abc import Iterable, Iterator
from heapq import merge
from typing import Final, NamedTuple

LIFETIME: Final = "lifetime"
"""The reason of absences by `up` and `down`; all others are named after their key."""

HORIZON_S: Final = 10 * 365.25 * 86400.0
"""A source that finds nothing for ten years is through: rows of absences may be looked at without end."""


class Absence(NamedTuple):
    """A peer is away from `start_s` until just before `end_s` (inf: for good), in seconds of the run.

    It knows `notice_s` before, and then takes nothing new.
    """

    start_s: float
    end_s: float
    reason: str
    notice_s: float = 0.0


def united(rows: Iterable[Iterable[Absence]]) -> Iterator[Absence]:
    """Yield the absences of a peer that is away while any of the rows says so; each has the reason that came first.

    Rows must be in order of their starts; those that touch or overlap become one.
    """
    current: Absence | None = None
    for absence in merge(*rows, key=lambda one: one.start_s):
        if current is None:
            current = absence
        elif absence.start_s <= current.end_s:
            current = current._replace(end_s=max(current.end_s, absence.end_s))
        else:
            yield current
            current = absence
    if current is not None:
        yield current


def between(presences: Iterable[tuple[float, float]], start_s: float, reason: str) -> Iterator[Absence]:
    """Yield the absences from `start_s` on that are left between presences (from, until), which are in order.

    After the last presence the peer is away for good.
    """
    gone_s = start_s
    for from_s, until_s in presences:
        if until_s <= gone_s:
            continue
        if from_s > gone_s:
            yield Absence(gone_s, from_s, reason)
        gone_s = until_s
    yield Absence(gone_s, float("inf"), reason)
