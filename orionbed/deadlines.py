"""When a gate opens before everybody is there: rules on the same arrivals, and what each waits and cuts off.

A rule is a function of the arrivals so far (seconds since the phase began, in order) and of the number of peers: it
returns the second at which the gate opens if nobody else arrives, `inf` for never.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, floor, inf
from statistics import median

from orionbed.scenario.merging import Merge

Rule = Callable[[Sequence[float], int], float]
_TOLERANCE = 1e-12
_LATE = 1e-9
"""A tick counts from a hair before its time on, because sums of seconds are rounded."""


def everybody() -> Rule:
    """Wait for all."""
    return lambda arrived, count: arrived[-1] if len(arrived) == count and arrived else inf


def fixed(wait_s: float) -> Rule:
    """Wait so long, whoever is there."""
    return lambda _arrived, _count: wait_s


def mad(k: float, after: float) -> Rule:
    """Wait until the median of the arrivals so far and `k` median absolute deviations, once a share is there."""

    def opens(arrived: Sequence[float], count: int) -> float:
        if not arrived or len(arrived) < after * count - _TOLERANCE:
            return inf
        middle = median(arrived)
        return middle + k * median([abs(at_s - middle) for at_s in arrived])

    return opens


def quorum_grace(quorum: float, grace_s: float) -> Rule:
    """Wait for a share of the peers, then so long for the others."""

    def opens(arrived: Sequence[float], count: int) -> float:
        needed = max(1, ceil(quorum * count - _TOLERANCE))
        return arrived[needed - 1] + grace_s if len(arrived) >= needed else inf

    return opens


def relaxing(relax: float, every_s: float, floor: float) -> Rule:
    """Wait for a share that starts at 1 and falls by `relax` each `every_s`, not below `floor`, as IOTA does."""

    def opens(arrived: Sequence[float], count: int) -> float:
        share = len(arrived) / count + _TOLERANCE
        if share < floor or (relax == 0.0 and share < 1.0):
            return inf
        if share >= 1.0:
            return 0.0
        ticks = max(0, ceil((1.0 - share) / relax) - 1)
        while max(floor, 1.0 - relax * ticks) > share:
            ticks += 1
        return ticks * every_s

    return opens


def relaxed_quorum(block: Merge, passed_s: float) -> float:
    """Return the share of peers that a relaxing quorum asks for so long after a phase began."""
    ticks = floor(passed_s / block.quorum_every + _LATE)
    return max(block.quorum_floor, 1.0 - block.quorum_relax * ticks) - _TOLERANCE


def rule_of(block: Merge) -> Rule:
    """Return the rule of a scenario's merges."""
    deadline = block.gate
    if deadline.kind == "fixed":
        return fixed(deadline.wait)
    if deadline.kind == "mad":
        return mad(deadline.k, deadline.after)
    if deadline.kind == "quorum-grace":
        return quorum_grace(deadline.quorum, deadline.grace)
    if deadline.kind == "relaxing-quorum":
        return relaxing(block.quorum_relax, block.quorum_every, block.quorum_floor)
    return everybody()


def longest_wait_s(block: Merge) -> float:
    """Return how long one phase can last at most, if the share that the rule cannot do without is there in time."""
    deadline = block.gate
    if deadline.kind == "fixed":
        return min(deadline.wait, block.timeout)
    if deadline.kind != "relaxing-quorum" or block.quorum_relax == 0.0:
        return block.timeout
    return min(block.timeout, ceil((1.0 - block.quorum_floor) / block.quorum_relax - 1e-9) * block.quorum_every)


@dataclass(frozen=True, slots=True)
class Opening:
    """When a gate opened, and how many were through."""

    wait_s: float
    num_through: int


def opening(arrivals_s: Sequence[float], rule: Rule, timeout_s: float = inf) -> Opening:
    """Let a gate open for arrivals of one phase; `inf` stands for a peer that never arrives.

    It opens at once when the last one is there, and at `timeout_s` in any case. Who arrives at that very second is
    through.
    """
    ordered = sorted(arrivals_s)
    for count in range(len(ordered) + 1):
        last_s = ordered[count - 1] if count else 0.0
        if count == len(ordered):
            return Opening(min(last_s, timeout_s), count)
        opens_s = min(max(rule(ordered[:count], len(ordered)), last_s), timeout_s)
        if opens_s < ordered[count]:
            return Opening(opens_s, count)
    raise AssertionError("the last arrival opens every gate")
