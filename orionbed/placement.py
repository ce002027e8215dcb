"""Which machine works in which stage, when the machines are not equally fast.

All stages have equally many peers, so this is a partition into sets of one size in which the smallest sum is to be as
large as possible. It is hard to solve exactly; here a greedy deal is improved by exchanges, and the order of the file
is among what is tried, so that the result is never worse than that.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Order = list[int]
"""The machine of each place, stage by stage."""
_DOES_NOT_FIT = -1e6


def values_of(rates: Floats, fits: NDArray[np.bool_]) -> Floats:
    """Return what each machine is worth to each stage, shape (machines, stages).

    `rates` are micro-batches per second. A machine without the memory for a stage is worse there than none.
    """
    return np.where(fits, rates, _DOES_NOT_FIT * rates.max())


def candidates(values: Floats, memory_bytes: Sequence[float]) -> list[Order]:
    """Return orders to choose from: as in the file, level in speed, and machines of like memory kept together."""
    num_machines, num_stages = values.shape
    in_order = list(range(num_machines))
    by_memory = sorted(in_order, key=lambda m: (-memory_bytes[m], -values[m].max(), m))
    return [
        in_order,
        exchanged(values, _greedy(values)),
        exchanged(values, in_order),
        _fastest_first(values, by_memory, num_stages),
    ]


def slowest(values: Floats, order: Order) -> float:
    """Return the worth of the stage that is worst off."""
    return float(_sums(values, _by_stage(order, values.shape[1])).min())


def exchanged(values: Floats, order: Order) -> Order:
    """Exchange machines between the worst stage and others for as long as that helps it and makes none as bad.

    Within a stage the fastest machines come first, so that replicas of fixed pipelines are alike inside.
    """
    num_stages = values.shape[1]
    members = _by_stage(order, num_stages)
    while True:
        sums = _sums(values, members)
        worst = int(sums.argmin())
        best = (float(sums[worst]) * (1.0 + 1e-12) if sums[worst] > 0 else float(sums[worst]), -1, -1, -1)
        mine = np.array(members[worst])
        for other in range(num_stages):
            if other == worst:
                continue
            theirs = np.array(members[other])
            here = sums[worst] - values[mine, worst][:, None] + values[theirs, worst][None, :]
            there = sums[other] - values[theirs, other][None, :] + values[mine, other][:, None]
            gain = np.minimum(here, there)
            at = int(gain.argmax())
            if gain.flat[at] > best[0]:
                best = (float(gain.flat[at]), other, *divmod(at, len(theirs)))
        _, other, i, j = best
        if other < 0:
            return _fastest_first(values, [m for stage in members for m in stage], num_stages)
        members[worst][i], members[other][j] = members[other][j], members[worst][i]


def _greedy(values: Floats) -> Order:
    """Deal the machines, the fastest first, each to the stage that is worst off among those with room for it.

    Between stages that are equally badly off, the one with most work comes first.
    """
    num_machines, num_stages = values.shape
    each = num_machines // num_stages
    members: list[Order] = [[] for _ in range(num_stages)]
    sums = [0.0] * num_stages
    # Those that fit in few stages are dealt before those that fit everywhere.
    turn = sorted(range(num_machines), key=lambda m: (int((values[m] > 0).sum()), -values[m].max(), m))
    for machine in turn:
        stage = min(
            (s for s in range(num_stages) if len(members[s]) < each),
            key=lambda s: (values[machine, s] < 0, sums[s], values[machine, s], s),
        )
        members[stage].append(machine)
        sums[stage] += max(0.0, float(values[machine, stage]))
    return [machine for stage in members for machine in stage]


def _by_stage(order: Order, num_stages: int) -> list[Order]:
    each = len(order) // num_stages
    return [order[stage * each : (stage + 1) * each] for stage in range(num_stages)]


def _sums(values: Floats, members: Sequence[Order]) -> Floats:
    return np.array([values[machines, stage].sum() for stage, machines in enumerate(members)])


def _fastest_first(values: Floats, order: Order, num_stages: int) -> Order:
    members = _by_stage(order, num_stages)
    return [m for s, stage in enumerate(members) for m in sorted(stage, key=lambda m: (-values[m, s], m))]
