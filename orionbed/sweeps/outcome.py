"""What a sweep came to: means and spreads of every case, and its paired difference to the first one."""

from collections.abc import Mapping
from math import sqrt
from typing import Any, Final

from orionbed.paired import difference
from orionbed.sweeps.loading import Loaded
from orionbed.sweeps.running import Record, key_of

SCHEMA_VERSION: Final = 1
Records = Mapping[tuple[str, int], Record]


def records_of(sweep: Loaded, done: Records) -> list[list[Record]]:
    """Return the records of a sweep whose runs are all done: by case, then by seed."""
    return [[done[key_of(case.scenario, sweep), seed] for seed in sweep.seeds] for case in sweep.cases]


def outcome(sweep: Loaded, identity: str, records: list[list[Record]]) -> dict[str, Any]:
    """Return what is written as sweep.json: the axes, and what every case came to.

    That is, for each measure, the values by seed, their mean, least and greatest, and the paired difference to the
    first case; None where it was not measured. Of a training also the loss curves, by case and seed.
    """
    made: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "sweep": identity,
        "name": sweep.name,
        "title": sweep.title,
        "scenario": sweep.scenario,
        "seeds": list(sweep.seeds),
        "draws": sweep.draws,
        "axes": [
            {
                "name": axis.name,
                "values": list(axis.values),
                "numbers": None if axis.numbers is None else [*axis.numbers],
            }
            for axis in sweep.axes
        ],
        "measures": list(sweep.measures),
        "cases": [
            {
                "labels": list(case.labels),
                "misfit": case.misfit,
                "aborted": {str(one.seed): one.aborted for one in mine if one.aborted},
                "results": {key: _result(key, mine, records[0]) for key in sweep.measures},
            }
            for case, mine in zip(sweep.cases, records, strict=True)
        ],
    }
    if sweep.trains:
        made["curves"] = [[one.curve for one in mine] for mine in records]
    return made


def _result(key: str, mine: list[Record], first: list[Record]) -> dict[str, Any]:
    values = [one.numbers.get(key) for one in mine]
    known = [value for value in values if value is not None]
    mean = sum(known) / len(known) if known else None
    against = None if mine is first else difference(values, [one.numbers.get(key) for one in first])
    return {
        "values": values,
        "mean": mean,
        "least": min(known, default=None),
        "greatest": max(known, default=None),
        "sd": None if mean is None or len(known) < 2 else sqrt(sum((v - mean) ** 2 for v in known) / (len(known) - 1)),
        "difference": None if against is None else against.plain(),
    }


def rows(sweep: Loaded, records: list[list[Record]]) -> tuple[list[dict[str, object]], tuple[str, ...]]:
    """Return sweep.csv: a row per run in the order of cases and seeds, and the columns."""
    axes = tuple(axis.name for axis in sweep.axes)
    found: list[dict[str, object]] = []
    for number, (case, mine) in enumerate(zip(sweep.cases, records, strict=True)):
        for one in mine:
            row: dict[str, object] = {"case": number, **dict(zip(axes, case.labels, strict=True)), "seed": one.seed}
            row |= {"fits": "no" if case.misfit else "yes", "aborted": one.aborted}
            found.append(row | {key: one.numbers.get(key) for key in sweep.measures})
    return found, ("case", *axes, "seed", "fits", "aborted", *sweep.measures)
