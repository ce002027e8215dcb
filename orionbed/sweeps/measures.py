"""The numbers of a run that a sweep may report: dotted keys of its summary."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from orionbed.published import lookup
from orionbed.scenario import Scenario, apply

# What differs from one computer to the next, and what is no result.
_LEFT_OUT: Final = {"schema_version", "seed", "wall_s", "engine", "assumptions", "published", "contradictions"}
_BASELINE: Final = ("datacenter.", "cost.datacenter_")
REHEARSAL_S: Final = 1.0
REHEARSAL_MICROBATCHES: Final = 2


def numbers(summary: Mapping[str, Any]) -> dict[str, float | None]:
    """Return every number of a summary by its dotted key; None where it was not measured.

    Lists are left out, but for the waterfall: `waterfall.CAUSE` is a share of all GPU-seconds.
    """
    found = dict(_leaves(summary, ""))
    for entry in summary["waterfall"]:
        found[f"waterfall.{entry['cause']}"] = entry["fraction"]
    found["microbatches.applied_share"] = lookup(dict(summary), "microbatches.applied_share")
    return found


def _leaves(inside: Mapping[str, Any], above: str) -> Iterator[tuple[str, float | None]]:
    for name, value in inside.items():
        key = f"{above}.{name}" if above else name
        if key in _LEFT_OUT:
            continue
        if isinstance(value, Mapping):
            yield from _leaves(value, key)
        elif value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
            yield key, value


def needs_baseline(keys: tuple[str, ...]) -> bool:
    """Whether any of these measures compares with the datacenter, which then has to be simulated."""
    return any(key.startswith(_BASELINE) for key in keys)


def known(scenario: Scenario, *, trains: bool) -> list[str]:
    """Return the measures that a run of `scenario` has, found by its first second, or a very short training."""
    from orionbed.sweeps.running import summary_of, trained

    if trains:
        short = {"training.microbatches": REHEARSAL_MICROBATCHES, "training.samples": 0}
        short |= {"training.evaluation_microbatches": 1}
        return sorted(numbers(trained(apply(scenario, short)).summary))
    second = {"run.tokens": None, "run.duration": REHEARSAL_S, "run.trace": "summary"}
    return sorted(numbers(summary_of(apply(scenario, second), baseline=False)))
