"""What a list of absences amounts to: availability, losses per peer-hour, bulk sizes, peers left per stage."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from orionbed.absences.absence import LIFETIME, Absence
from orionbed.results import Mark

_HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class Presence:
    """How far peers were there between two times.

    `losses_per_peer_hour` counts departures per hour that a peer is there. `num_bulk` counts the instants at which a
    bulk loss took peers that were there, `mean_bulk_size` how many each took. `worst_stage` is the one that ever had
    fewest peers, `min_present` how many, `empty_stage_s` the time in which some stage had nobody.
    """

    departures: int
    by_reason: dict[str, int]
    availability: float
    losses_per_peer_hour: float
    num_bulk: int
    mean_bulk_size: float
    worst_stage: int
    min_present: int
    empty_stage_s: float


def presence(
    absences: Iterable[tuple[int, Absence]], stage_of: Sequence[int], start_s: float, end_s: float
) -> Presence:
    """Return what absences of peers amount to from `start_s` to `end_s`; `stage_of` has an entry for every peer.

    The absences of one peer must not overlap. One that began before `start_s` is no departure.
    """
    inside = [(peer, a) for peer, a in absences if a.start_s < end_s and a.end_s > start_s]
    left = [(peer, a) for peer, a in inside if a.start_s >= start_s]
    away_s = sum(min(a.end_s, end_s) - max(a.start_s, start_s) for _, a in inside)
    total_s = len(stage_of) * (end_s - start_s)
    bulk = sorted((a.start_s, peer) for peer, a in left if a.reason == "bulk")
    num_bulk = len({time_s for time_s, _ in bulk})
    worst, fewest, empty_s = _stages(inside, stage_of, start_s, end_s)
    return Presence(
        departures=len(left),
        by_reason=dict(sorted(Counter(a.reason for _, a in left).items())),
        availability=1.0 - away_s / total_s if total_s > 0.0 else 1.0,
        losses_per_peer_hour=len(left) / (total_s - away_s) * _HOUR_S if total_s > away_s else 0.0,
        num_bulk=num_bulk,
        mean_bulk_size=len(bulk) / num_bulk if num_bulk else 0.0,
        worst_stage=worst,
        min_present=fewest,
        empty_stage_s=empty_s,
    )


def presence_in(marks: Iterable[Mark], stage_of: Sequence[int], start_s: float, end_s: float) -> Presence:
    """Return the same of the marks of a run: those of the kind `down`, whose detail is the reason."""
    away = [(m.peer, Absence(m.start_s, m.end_s, m.detail or LIFETIME)) for m in marks if m.kind == "down"]
    return presence(away, stage_of, start_s, end_s)


def _stages(
    absences: Iterable[tuple[int, Absence]], stage_of: Sequence[int], start_s: float, end_s: float
) -> tuple[int, int, float]:
    """Return the stage that ever had fewest peers, how many, and the time in which a stage had none."""
    present = Counter(stage_of)
    worst = min(present, key=lambda stage: (present[stage], stage))
    fewest, empty_s, now_s = present[worst], 0.0, start_s
    changes = [(max(a.start_s, start_s), -1, stage_of[peer]) for peer, a in absences]
    changes += [(a.end_s, 1, stage_of[peer]) for peer, a in absences if a.end_s < end_s]
    for time_s, together in groupby(sorted(changes), key=lambda change: change[0]):
        empty_s += (time_s - now_s) * (min(present.values()) == 0)
        now_s = time_s
        for _, change, stage in together:
            present[stage] += change
        stage = min(present, key=lambda one: (present[one], one))
        if present[stage] < fewest:
            worst, fewest = stage, present[stage]
    return worst, fewest, empty_s + (end_s - now_s) * (min(present.values()) == 0)
