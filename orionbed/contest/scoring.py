"""Scores: 0 is the random router, 1 is what no router can reach."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from orionbed.contest.results import SeedResult


@dataclass(frozen=True, slots=True)
class Standing:
    """One router over all seeds: a score per seed, in their order, and their median with the lowest and highest."""

    router: str
    seeds: tuple[SeedResult, ...]
    scores: tuple[float, ...]

    @property
    def score(self) -> float:
        """The median over the seeds."""
        return median(self.scores)

    @property
    def spread(self) -> tuple[float, float]:
        """The lowest and the highest."""
        return min(self.scores), max(self.scores)

    @property
    def of_ceiling(self) -> float:
        """The median over the seeds of bound / time: the share of the speed that no router can pass."""
        return median(seed.bound_s / seed.total_s for seed in self.seeds)

    @property
    def epoch_s(self) -> float:
        """The median over the seeds of the mean time of an epoch."""
        return median(seed.total_s / len(seed.epochs) for seed in self.seeds)

    def plain(self) -> dict[str, Any]:
        """Return the standing for JSON."""
        low, high = self.spread
        return {
            "router": self.router,
            "score": self.score,
            "score_low": low,
            "score_high": high,
            "scores": list(self.scores),
            "share_of_ceiling": self.of_ceiling,
            "epoch_s": self.epoch_s,
            "seeds": [seed.plain() for seed in self.seeds],
        }


def score(result: SeedResult, random: SeedResult) -> float:
    """Return (R - T) / (R - B): T the time of all epochs, R the random router's on the same seed, B the bound.

    Higher is better, 0 is as good as random, below 0 is worse, and 1 cannot be passed. Merges take every router equally
    long and cancel out.
    """
    return (random.total_s - result.total_s) / (random.total_s - result.bound_s)


def standings(results: Sequence[SeedResult]) -> list[Standing]:
    """Return a standing per router in the order of `results`, which must have the random router for every seed."""
    random = {result.seed: result for result in results if result.router == "random"}
    found = []
    for router in dict.fromkeys(result.router for result in results):
        seeds = tuple(result for result in results if result.router == router)
        found.append(Standing(router, seeds, tuple(score(seed, random[seed.seed]) for seed in seeds)))
    return found
