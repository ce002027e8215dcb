"""The merging lab: the same scenario under merge algorithms, intervals and failures, as one table."""

from collections.abc import Callable, Sequence
from typing import Any

from orionbed import backends
from orionbed.aligned import aligned
from orionbed.merging.presets import PRESETS
from orionbed.processes import in_processes
from orionbed.scenario import Scenario

Row = dict[str, Any]
CAUTION = (
    "what compression, gossip, late weights and lost updates do to the loss is not in this table; averaging takes "
    "merge.compute in all rows"
)


def points(
    names: Sequence[str], intervals_s: Sequence[float], failures: Sequence[float]
) -> list[tuple[str, float, float]]:
    """Return what to simulate: every algorithm at every interval, and at the middle one with every failure chance."""
    middle = sorted(intervals_s)[len(intervals_s) // 2]
    return [
        (name, every_s, q)
        for name in names
        for every_s in intervals_s
        for q in dict.fromkeys(failures)
        if q == min(failures) or every_s == middle
    ]


def merge_table(
    scenario: Scenario,
    wanted: Sequence[tuple[str, float, float]],
    *,
    seed: int,
    merges: int,
    horizon_s: float | None,
    jobs: int,
    progress: Callable[[int], None] | None = None,
) -> list[Row]:
    """Simulate every point on `jobs` processes; return a row each, in their order, with the name of its preset."""
    replicas = scenario.pipeline.replicas
    tasks = [
        (
            scenario,
            PRESETS[name].changes(replicas) | {"merge.every": every_s, "merge.failure": q},
            seed,
            merges,
            horizon_s,
        )
        for name, every_s, q in wanted
    ]
    rows = in_processes(_point, tasks, jobs, progress)
    return [{"algorithm": name} | row for (name, _, _), row in zip(wanted, rows, strict=True)]


def _point(scenario: Scenario, changes: dict[str, Any], seed: int, merges: int, horizon_s: float | None) -> Row:
    return backends.load_merging().merge_point(scenario, changes, seed, merges, horizon_s)


HEADS = (
    "algorithm", "every", "q", "duty", "MFU in phase", "MFU", "tokens/s", "up GB", "down GB", "takes", "covered",
    "missed", "retries", "refused",
)  # fmt: skip


def lines(rows: Sequence[Row]) -> list[str]:
    """Return the table as text."""
    return aligned([HEADS, *(_cells(row) for row in rows)])


def _cells(row: Row) -> tuple[str, ...]:
    covered = row["covered"]
    return (
        row["algorithm"], f"{row['every_s'] / 60:g} min", f"{row['failure']:g}", f"{row['duty']:.1%}",
        f"{row['mfu_in_phase']:.1%}", f"{row['mfu_with_merges']:.1%}", f"{row['tokens_per_s']:,.0f}",
        f"{row['bytes_up'] / 1e9:.3f}", f"{row['bytes_down'] / 1e9:.3f}", f"{row['delay_s']:.0f} s",
        "-" if covered is None else f"{covered:.0%}", f"{row['missed']:.0%}", str(row["retries"]), str(row["refused"]),
    )  # fmt: skip
