"""The butterfly of IOTA's 2026 code: who merges which slices of a stage's weights, and what each peer moves for it.

Of n peers of a stage, each pair merges one slice, so every slice is merged twice and every peer handles the share
s = min(1, 2/n) of the stage's weights W. Per peer it uploads W (pseudo-gradients), downloads n s W (everybody's part of
its slices) and s W (their outer momentum), uploads 2 s W (new weights and momentum) and downloads W (the merged
weights): 30 GB up and 48 GB down for W = 13 GB and n = 3.
"""

from dataclasses import dataclass
from itertools import combinations


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


def butterfly_bytes(weight_bytes: float, num_merging: int) -> MergeBytes:
    """Bytes per peer when `num_merging` peers of a stage merge weights of `weight_bytes`."""
    share = min(1.0, 2.0 / num_merging)
    return MergeBytes(
        gradients_up=weight_bytes,
        partitions_down=num_merging * share * weight_bytes + share * weight_bytes,
        partitions_up=2.0 * share * weight_bytes,
        weights_down=weight_bytes,
    )


def pairs_of(members: list[int]) -> list[tuple[int, ...]]:
    """Return who merges each slice: every pair of members one; a member that is alone merges the only one."""
    return list(combinations(sorted(members), 2)) or [tuple(members)]


def slice_bounds(num_values: int, num_slices: int, number: int) -> tuple[int, int]:
    """Return from and to which value slice `number` reaches."""
    return num_values * number // num_slices, num_values * (number + 1) // num_slices
