"""Merges of a script: what the weights of a stage become, slice by slice, as peers and object store would make them."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from orionbed.merging.butterfly import slice_bounds
from orionbed.training.compute import from_bytes
from orionbed.training.outer import mean_slice, merged_slice
from orionbed.training.parameters import to_bytes
from orionbed.training.shape import ModelShape

if TYPE_CHECKING:
    from torch import Tensor

    from orionbed.script import Line


class StageMerges:
    """The weights that the last merge of each stage left, at first the initial ones, and the outer momentum.

    `drifts` has, for every merge of several members, the second, the stage, and how far their weights lay from their
    mean: the root of the mean square over the members, relative to the norm of the mean. `latest` is by stage of which
    second and members the last one was, for slices of one merge come in lines of their own.
    """

    def __init__(self, shape: ModelShape) -> None:
        self._shape = shape
        self.weights: dict[int, Tensor] = {}
        self.velocities: dict[int, Tensor] = {}
        self.num_merges: dict[int, int] = {}
        self.drifts: list[tuple[float, int, float]] = []
        self.latest: dict[int, tuple[float, tuple[int, ...]]] = {}

    def begin(self, stage: int, weights: "Tensor") -> None:
        """Take down a stage's first weights."""
        import torch

        self.weights[stage] = weights
        self.velocities[stage] = torch.zeros_like(weights)
        self.num_merges[stage] = 0

    def merge(self, line: "Line", stage: int, members: "Sequence[Tensor]") -> "Callable[[Tensor], Tensor]":
        """Merge a slice of the members' weights; return what makes a taker's weights of those it had.

        With the number of an outer merge the outer optimizer takes a step along the mean difference to the weights
        before; without it is the weighted mean. Without members the slice stays as it is.
        """
        old, velocity, form = self.weights[stage], self.velocities[stage], self._shape.dtype
        low, high = slice_bounds(len(old), line.parts, line.part)
        if len(members) > 1 and self.latest.get(stage) != (line.at_s, line.others):
            self.latest[stage] = (line.at_s, line.others)
            self.num_merges[stage] += 1
            self.drifts.append((line.at_s, stage, drift(members)))
        rows = [to_bytes(member[low:high]) for member in members]
        if rows and line.number < 0:
            old[low:high] = self._tensor(mean_slice(rows, line.works, form))
        elif rows:
            before, momentum = to_bytes(old[low:high]), to_bytes(velocity[low:high])
            made = merged_slice(rows, line.works, before, momentum, merge=line.number, number_format=form)
            old[low:high], velocity[low:high] = map(self._tensor, made)
        merged = old[low:high].clone()

        def taken(mine: "Tensor") -> "Tensor":
            mine[low:high] = merged
            return mine

        return taken

    def _tensor(self, body: bytes) -> "Tensor":
        return from_bytes(body, self._shape, "cpu")


def drift(members: "Sequence[Tensor]") -> float:
    """Return how far weights lie from their mean: root mean square over the members, relative to the mean's norm."""
    import torch

    rows = torch.stack([member.double() for member in members])
    mean = rows.mean(dim=0)
    return float((rows - mean).norm() / len(members) ** 0.5 / mean.norm())
