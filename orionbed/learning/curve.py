"""The loss curve: a point for each micro-batch that was learned from."""

from collections.abc import Iterable
from statistics import fmean
from typing import NamedTuple


class Point(NamedTuple):
    """A micro-batch that was learned from, in the order in which the first stage used the gradients.

    `at_s` is the second of the simulated run, `tokens` how many were learned from up to here, `loss` the mean per token
    in nats when the last stage computed it, `rolling` the mean of the last `training.rolling` losses.
    """

    microbatch: int
    at_s: float
    tokens: int
    loss: float
    rolling: float


class HeldOut(NamedTuple):
    """An evaluation on text that is not learned from: mean loss per token in nats, of the replicas' mean weights."""

    microbatches: int
    at_s: float
    tokens: int
    loss: float


class Curve:
    """Points as they come, with their rolling mean."""

    def __init__(self, tokens_each: int, width: int) -> None:
        self._tokens_each, self._width = tokens_each, width
        self.points: list[Point] = []

    def add(self, microbatch: int, at_s: float, loss: float) -> None:
        """Add a micro-batch."""
        number = len(self.points) + 1
        recent = [point.loss for point in self.points[max(0, number - self._width) :]]
        self.points.append(Point(microbatch, at_s, number * self._tokens_each, loss, fmean([*recent, loss])))

    def extend(self, found: Iterable[tuple[int, float, float]]) -> None:
        """Add several micro-batches: number, second, loss."""
        for each in found:
            self.add(*each)

    @property
    def rolling(self) -> float:
        """The latest rolling mean; NaN before the first point."""
        return self.points[-1].rolling if self.points else float("nan")

    def ends(self) -> tuple[float | None, float | None]:
        """Return the mean losses of the first tenth and of the last; None where nothing was learned."""
        if not self.points:
            return None, None
        tenth = max(1, len(self.points) // 10)
        losses = [point.loss for point in self.points]
        return fmean(losses[:tenth]), fmean(losses[-tenth:])
