"""Absences by the clock: maintenance windows, rolling restarts, and peers at home that keep hours of the day."""

from collections.abc import Iterator, Sequence
from itertools import count
from math import floor
from typing import TYPE_CHECKING

from orionbed.absences.absence import HORIZON_S, Absence, between
from orionbed.faults import selected
from orionbed.scenario.churn import DAY_S

if TYPE_CHECKING:
    import numpy as np

    from orionbed.plan import PeerPlan
    from orionbed.scenario.churn import Diurnal, Window


def in_windows(window: "Window", index: int, peers: "Sequence[PeerPlan]", start_s: float) -> Iterator[Absence]:
    """Yield a peer's maintenance; with `stagger` peers leave one after the other, in the order of the plan."""
    chosen = selected(window.who, peers)
    if index not in chosen:
        return
    first_s = start_s + window.at + window.stagger * chosen.index(index)
    for number in count():
        begins_s = first_s + number * (window.every or 0.0)
        yield Absence(begins_s, begins_s + window.lasts, "windows", window.notice)
        if window.every is None:
            return


def at_home(
    block: "Diurnal", peer: "PeerPlan", peers: "Sequence[PeerPlan]", random: "np.random.Generator", start_s: float
) -> Iterator[Absence]:
    """Yield the absences of a peer that is there between two local times of the day; three draws a day."""
    if peer.index not in selected(block.who, peers):
        return
    yield from between(_days(block, peer.site, random, start_s), start_s, "diurnal")


def _days(block: "Diurnal", site: str, random: "np.random.Generator", start_s: float) -> Iterator[tuple[float, float]]:
    """Yield when the peer comes and leaves, day by day, from the day before the start on."""
    local_s = block.starts_at + block.utc_offset.get(site, 0.0)
    # Days are counted from the local midnight before the start; one more, for a presence that began the day before.
    midnight_s = start_s - local_s + DAY_S * (floor(local_s / DAY_S) - 1)
    while midnight_s < start_s + HORIZON_S:
        early, late, chance = random.random(3)
        if chance < block.attendance:
            comes_s = midnight_s + block.available_from + block.jitter * (2.0 * early - 1.0)
            leaves_s = midnight_s + block.available_from + block.there_s + block.jitter * (2.0 * late - 1.0)
            yield comes_s, leaves_s
        midnight_s += DAY_S
