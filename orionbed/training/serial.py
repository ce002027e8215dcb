"""The unpipelined reference: all chunks in one process and one autograd graph, with torch's own optimizers."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from orionbed.scenario.training import InnerOptimizer
from orionbed.training.boundaries.sending import Boundaries
from orionbed.training.data import Batches, synthetic
from orionbed.training.serial_optimizer import SerialOptimizer
from orionbed.training.shape import ModelShape

if TYPE_CHECKING:
    from torch import Tensor


TOLERANCES: Final = {"float64": 1e-10, "float32": 1e-4, "bfloat16": 5e-2}
"""By number format, how far weights may be from the plain model's, as a share of the largest."""


class SerialModel:
    """What a pipeline must agree with to rounding, whatever its schedule.

    It shares the modules and their initial weights with `StageWorker`, and neither its passes nor its optimizer.
    """

    def __init__(
        self,
        shape: ModelShape,
        *,
        seed: int,
        optimizer: InnerOptimizer,
        batches: Batches | None = None,
        device: str = "cpu",
    ) -> None:
        from orionbed.training.modules import make_chunk

        self.shape = shape
        self.seed = seed
        self.device = device
        self._batches = batches or synthetic(shape, seed)
        self.modules = [make_chunk(shape, chunk, seed, device) for chunk in range(shape.num_chunks)]
        self._boundaries = Boundaries(shape)
        self._optimizer = SerialOptimizer(optimizer, self.modules)

    def loss(self, microbatch: int) -> "Tensor":
        """Return the mean loss per token of a micro-batch in nats, with its graph; at cuts all passes as it crosses."""
        from orionbed.training.boundaries.crossing import cross

        tokens, targets = (each.to(self.device) for each in self._batches(microbatch))
        crossing: Tensor = tokens
        for chunk, module in enumerate(self.modules):
            crossing = module(crossing, targets)
            if not self.shape.is_last(chunk):
                crossing = cross(crossing, self._boundaries, chunk)
        return crossing

    def step(self, microbatches: Sequence[int]) -> float:
        """Apply the mean gradient of some micro-batches and return their mean loss before."""
        import torch

        if self.shape.is_packed:
            mean = self._one_by_one(microbatches)
        else:
            losses = torch.stack([self.loss(microbatch) for microbatch in microbatches])
            losses.mean().backward()  # type: ignore[no-untyped-call]
            mean = losses.mean().item()
        self._optimizer.step()
        return mean

    def _one_by_one(self, microbatches: Sequence[int]) -> float:
        """Find the mean gradient in the order in which a pipeline packs: of each micro-batch whole, and one by one."""
        total = 0.0
        for microbatch in microbatches:
            loss = self.loss(microbatch)
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.item()
        for module in self.modules:
            for parameter in module.parameters():
                if parameter.grad is not None:
                    parameter.grad.div_(len(microbatches))
        return total / len(microbatches)

    def weights(self) -> "list[Tensor]":
        """Return a copy of the weights of each chunk in one row."""
        import torch

        return [torch.cat([parameter.detach().flatten() for parameter in m.parameters()]) for m in self.modules]


def train_serially(
    shape: ModelShape,
    seed: int,
    steps: Sequence[Sequence[int]],
    optimizer: InnerOptimizer,
    batches: Batches | None = None,
) -> "list[Tensor]":
    """Return the weights of each chunk, in one row, after one step per list of micro-batches."""
    model = SerialModel(shape, seed=seed, optimizer=optimizer, batches=batches)
    for microbatches in steps:
        model.step(microbatches)
    return model.weights()


def worst_difference(pairs: "Sequence[tuple[bytes, Sequence[Tensor]]]") -> float | None:
    """Return the largest difference of a weight, relative to the largest of its row; None without rows.

    Each pair is a row of weights as bytes, and what is expected, in that number format and perhaps in pieces. If a
    weight is not a number, that is the worst: nan is returned.
    """
    if not pairs:
        return None
    import torch

    found = []
    for body, pieces in pairs:
        expected = torch.cat(list(pieces))
        difference = torch.frombuffer(bytearray(body), dtype=expected.dtype) - expected
        found.append(difference.abs().max() / expected.abs().max())
    return float(torch.stack(found).max())
