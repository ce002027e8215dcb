"""IOTA's butterfly: who merges which slices of a stage's weights, what each peer moves for it, what failures leave.

Every slice is merged by two peers, so that they can be compared and one may fail. The 2025 code makes one slice for
every pair of the n peers of a stage, n (n-1)/2 of them; that of 2026 makes 2 n slices and gives each to a random pair.
Either way a peer handles the share s = min(1, 2/n) of the stage's weights W. It uploads its pseudo-gradients (W),
downloads n s W (everybody's part of its slices) and s W (their outer momentum), uploads 2 s W (new weights and
momentum) and downloads W (the merged weights): 30 GB up and 48 GB down for W = 13 GB and n = 3.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

Slices = list[tuple[int, ...]]
"""The holders of each slice."""
SLICES_PER_PEER = 2


@dataclass(frozen=True, slots=True)
class MergeBytes:
    """What one peer moves in a merge."""

    gradients_up: float
    partitions_down: float
    partitions_up: float
    weights_down: float

    @property
    def up(self) -> float:
        """All bytes uploaded."""
        return self.gradients_up + self.partitions_up

    @property
    def down(self) -> float:
        """All bytes downloaded."""
        return self.partitions_down + self.weights_down


def butterfly_bytes(
    weight_bytes: float, num_merging: int, *, gradient_bytes: float | None = None, momentum: bool = True
) -> MergeBytes:
    """Bytes per peer when `num_merging` peers of a stage merge weights of `weight_bytes`.

    Pseudo-gradients may be fewer bytes than the weights; without `momentum` that of the outer optimizer stays.
    """
    share = min(1.0, 2.0 / num_merging)
    gradient_bytes = weight_bytes if gradient_bytes is None else gradient_bytes
    momentum_bytes = share * weight_bytes if momentum else 0.0
    return MergeBytes(
        gradients_up=gradient_bytes,
        partitions_down=num_merging * share * gradient_bytes + momentum_bytes,
        partitions_up=2.0 * share * weight_bytes if momentum else share * weight_bytes,
        weights_down=weight_bytes,
    )


def pairs_of(members: Sequence[int]) -> Slices:
    """Return who merges each slice: every pair of members one; a member that is alone merges the only one."""
    return list(combinations(sorted(members), 2)) or [tuple(members)]


def random_pairs(members: Sequence[int], random: np.random.Generator) -> Slices:
    """Return who merges each of two slices per member: random pairs, but everybody the same number of slices."""
    if len(members) < 2:
        return [tuple(members)]
    load = dict.fromkeys(members, 0)
    slices: Slices = []
    for _ in range(SLICES_PER_PEER * len(members)):
        order = [members[place] for place in random.permutation(len(members))]
        pair = sorted(order, key=load.__getitem__)[:2]
        for member in pair:
            load[member] += 1
        slices.append(tuple(sorted(pair)))
    return slices


def agreement(slices: Slices, members: Sequence[int]) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """Return how many slices every two members share, shape (n, n); on the diagonal those that a member holds."""
    place = {member: row for row, member in enumerate(members)}
    shared = np.zeros((len(members), len(members)), dtype=np.int64)
    for holders in slices:
        for one in holders:
            for other in holders:
                shared[place[one], place[other]] += 1
    return shared


def coverage(slices: Slices, through: Collection[int]) -> float:
    """Return the share of the slices that at least one of those who are `through` has merged."""
    return sum(not set(through).isdisjoint(holders) for holders in slices) / len(slices)


def slice_bounds(num_values: int, num_slices: int, number: int) -> tuple[int, int]:
    """Return from and to which value slice `number` reaches."""
    return num_values * number // num_slices, num_values * (number + 1) // num_slices
