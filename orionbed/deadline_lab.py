"""The deadline lab: the same arrivals under every rule, and what each waits and throws away."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from statistics import fmean, median
from typing import Any, Final

import numpy as np

from orionbed.aligned import aligned
from orionbed.deadlines import Rule, everybody, fixed, mad, opening, quorum_grace, relaxing, rule_of
from orionbed.scenario.merging import Merge
from orionbed.streams import Streams

Arrivals = list[list[float]]
NUM_SYNTHETIC: Final = 50
SPREAD: Final = 0.6
NEVER: Final = 0.1
"""Share of peers that never arrive in churny arrivals: what IOTA's quorum of 90 % would bear."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A rule of the lab, its family and its setting in words."""

    family: str
    setting: str
    rule: Rule


def entries(scale_s: float, own: Merge) -> list[Entry]:
    """Return the rules to compare, the scenario's own first; times are multiples of `scale_s`, the median arrival."""
    found = [Entry(own.gate.kind, "as the scenario says", rule_of(own)), Entry("all", "everybody", everybody())]
    found += [
        Entry("fixed", f"{factor:g} x median", fixed(factor * scale_s)) for factor in (0.8, 1.0, 1.25, 1.5, 2.0, 3.0)
    ]
    found += [Entry("mad", f"k = {k:g} after 50 %", mad(k, 0.5)) for k in (0.5, 1.0, 2.0, 3.0, 5.0, 8.0)]
    found += [
        Entry("quorum-grace", f"{quorum:.0%} and {factor:g} x median", quorum_grace(quorum, factor * scale_s))
        for quorum in (0.6, 0.8, 0.9)
        for factor in (0.0, 0.25, 0.5)
    ]
    found += [
        Entry("relaxing-quorum", f"{100 * relax:g} % every 6 s", relaxing(relax, 6.0, 0.3))
        for relax in (0.0025, 0.005, 0.01, 0.02, 0.05)
    ]
    return found


def synthetic(recorded: Arrivals, seed: int) -> dict[str, Arrivals]:
    """Return made-up arrivals with the median of the recorded ones: lognormal, and the same where some never come."""
    middle, count = median(at_s for one in recorded for at_s in one), max(len(one) for one in recorded)
    random = Streams(seed).get("deadlines")
    lognormal = np.exp(random.normal(np.log(max(middle, 1e-9)), SPREAD, (NUM_SYNTHETIC, count)))
    churny = np.where(random.random(lognormal.shape) < NEVER, inf, lognormal)
    return {"lognormal": lognormal.tolist(), "churny": churny.tolist()}


def compare(name: str, arrivals: Arrivals, block: Merge) -> list[dict[str, Any]]:
    """Return a row per rule: mean wait, share cut off, and the GPU-seconds of a merge that each costs.

    Waiting costs the time of all peers; who is cut off loses the training since the last merge. A rule is `best` when
    no other one both waits less and cuts off fewer.
    """
    finite = [at_s for one in arrivals for at_s in one if at_s < inf]
    since_s, timeout_s = block.between, block.timeout
    scale_s = median(finite) if finite else timeout_s
    rows: list[dict[str, Any]] = []
    for entry in entries(scale_s, block):
        found = [(opening(one, entry.rule, timeout_s), len(one)) for one in arrivals]
        waiting = fmean(opened.wait_s * count for opened, count in found)
        cut = fmean(float(count - opened.num_through) for opened, count in found)
        rows.append(
            {
                "arrivals": name,
                "family": entry.family,
                "setting": entry.setting,
                "wait_s": fmean(opened.wait_s for opened, _ in found),
                "cut_off": fmean(1.0 - opened.num_through / count for opened, count in found),
                "waiting_gpu_s": waiting,
                "wasted_gpu_s": cut * since_s,
            }
        )
    for row in rows:
        row["best"] = not any(
            other["wait_s"] <= row["wait_s"]
            and other["cut_off"] <= row["cut_off"]
            and (other["wait_s"], other["cut_off"]) != (row["wait_s"], row["cut_off"])
            for other in rows
        )
    return rows


HEADS: Final = ("arrivals", "rule", "setting", "mean wait", "cut off", "waiting GPU-h", "wasted GPU-h", "both", "")


def lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return the table as text; a star marks the rules that no other one beats in both."""
    return aligned([HEADS, *(_cells(row) for row in rows)], left=range(3))


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    both = row["waiting_gpu_s"] + row["wasted_gpu_s"]
    return (
        row["arrivals"], row["family"], row["setting"], f"{row['wait_s']:.0f} s", f"{row['cut_off']:.1%}",
        f"{row['waiting_gpu_s'] / 3600:.2f}", f"{row['wasted_gpu_s'] / 3600:.2f}", f"{both / 3600:.2f}",
        "*" if row["best"] else "",
    )  # fmt: skip
