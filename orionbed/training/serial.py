"""The unpipelined reference: all chunks in one process and one autograd graph, with torch's own optimizers."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from orionbed.scenario.training import InnerOptimizer
from orionbed.training.data import Batches, synthetic
from orionbed.training.optimizer import AdamW
from orionbed.training.shape import ModelShape

if TYPE_CHECKING:
    import torch
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
        parameters = [parameter for module in self.modules for parameter in module.parameters()]
        self._optimizer = _torch_optimizer(optimizer, parameters)

    def loss(self, microbatch: int) -> "Tensor":
        """Return the mean loss per token of a micro-batch in nats, with its graph."""
        tokens, targets = (each.to(self.device) for each in self._batches(microbatch))
        crossing: Tensor = tokens
        for module in self.modules:
            crossing = module(crossing, targets)
        return crossing

    def step(self, microbatches: Sequence[int]) -> float:
        """Apply the mean gradient of some micro-batches and return their mean loss before."""
        import torch

        losses = torch.stack([self.loss(microbatch) for microbatch in microbatches])
        losses.mean().backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self._optimizer.zero_grad()
        return losses.mean().item()

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


def _torch_optimizer(settings: InnerOptimizer, parameters: "Sequence[torch.nn.Parameter]") -> "torch.optim.Optimizer":
    import torch

    if settings.kind == "sgd":
        return torch.optim.SGD(parameters, settings.learning_rate)
    if settings.kind == "adamw":
        return torch.optim.AdamW(
            parameters, settings.learning_rate, betas=AdamW.BETAS, eps=AdamW.EPSILON, weight_decay=AdamW.DECAY
        )
    raise ValueError(f"there is no optimizer '{settings.kind}'")
