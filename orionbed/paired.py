"""Differences of paired runs: the same seeds with and without a change, and whether the difference is more than noise.

Two runs of one seed share their random draws, so most of what chance does to one it does to the other, and the
difference of the two varies less than either. The interval is Student's: mean of the differences plus or minus
t(0.975, n - 1) standard errors.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import cos, pi, sin, sqrt, tan
from typing import Final, Literal

CONFIDENCE: Final = 0.95
_HALVINGS: Final = 200

Verdict = Literal["higher", "lower", "the same", "not distinguishable", "no interval"]


@dataclass(frozen=True, slots=True)
class Difference:
    """The mean difference over `num_pairs` seeds and its 95 % interval; `low` and `high` are None below two pairs."""

    mean: float
    low: float | None
    high: float | None
    num_pairs: int

    @property
    def verdict(self) -> Verdict:
        """What may be said of it: nothing but `not distinguishable` where the interval contains 0."""
        if self.low is None or self.high is None:
            return "no interval"
        if self.low == self.high == 0.0:
            return "the same"
        if self.low > 0.0:
            return "higher"
        return "lower" if self.high < 0.0 else "not distinguishable"

    def plain(self) -> dict[str, float | int | str | None]:
        """Return it for JSON."""
        return {
            "mean": self.mean,
            "low": self.low,
            "high": self.high,
            "num_pairs": self.num_pairs,
            "verdict": self.verdict,
        }


def difference(values: Sequence[float | None], reference: Sequence[float | None]) -> Difference | None:
    """Return `values` minus `reference`, paired by position; pairs with a None are left out, None when all are.

    Raises:
        ValueError: they are not equally long.

    """
    pairs = zip(values, reference, strict=True)
    found = [one - other for one, other in pairs if one is not None and other is not None]
    if not found:
        return None
    count, mean = len(found), sum(found) / len(found)
    if count == 1:
        return Difference(mean, None, None, 1)
    variance = sum((each - mean) ** 2 for each in found) / (count - 1)
    half = quantile(count - 1) * sqrt(variance / count)
    return Difference(mean, mean - half, mean + half, count)


@cache
def quantile(freedom: int, confidence: float = CONFIDENCE) -> float:
    """Return the t that |T| stays below with probability `confidence`, T being Student's with `freedom` degrees.

    Source: Abramowitz and Stegun, 26.7.3 and 26.7.4, finite sums for whole degrees of freedom, solved by bisection.
    """
    low, high = 0.0, pi / 2
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if _inside(middle, freedom) < confidence else (low, middle)
    return sqrt(freedom) * tan(low)


def _inside(angle: float, freedom: int) -> float:
    """Probability that |T| is below t, for tan(angle) = t / sqrt(freedom)."""
    square = cos(angle) ** 2
    odd = freedom % 2
    term = cos(angle) if odd else 1.0
    total = 0.0 if freedom == 1 else term
    for power in range(2 + odd, freedom - 1, 2):
        term *= square * (power - 1) / power
        total += term
    total *= sin(angle)
    return (angle + total) * 2 / pi if odd else total
