"""Loss curves short enough to keep: a point per part of the training."""

from collections.abc import Sequence
from itertools import pairwise
from math import isfinite
from statistics import fmean
from typing import Final

NUM_POINTS: Final = 60


Point = tuple[float, float | None]
"""Tokens learned from, and the mean loss since the point before in nats per token; None where that is no number."""


def binned(curve: Sequence[tuple[float, float]], num_points: int = NUM_POINTS) -> list[Point]:
    """Return at most `num_points` points of the losses by tokens learned from, each for a part of the curve."""
    count = min(num_points, len(curve))
    bounds = [number * len(curve) // count for number in range(count + 1)] if count else [0]
    found: list[Point] = []
    for low, high in pairwise(bounds):
        mean = fmean(loss for _, loss in curve[low:high])
        found.append((curve[high - 1][0], mean if isfinite(mean) else None))
    return found
