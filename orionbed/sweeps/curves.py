"""Loss curves short enough to keep: a point per part of the training."""

from collections.abc import Sequence
from itertools import pairwise
from statistics import fmean
from typing import Final

NUM_POINTS: Final = 60


def binned(curve: Sequence[tuple[float, float]], num_points: int = NUM_POINTS) -> list[tuple[float, float]]:
    """Return at most `num_points` points: tokens at the end of each part, and the mean of its losses."""
    count = min(num_points, len(curve))
    bounds = [number * len(curve) // count for number in range(count + 1)] if count else [0]
    return [(curve[high - 1][0], fmean(loss for _, loss in curve[low:high])) for low, high in pairwise(bounds)]
