"""A boundary inside one autograd graph, for models that are not cut.

Derives from torch's classes: everybody imports this file late.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from orionbed.training.boundaries.sending import Boundaries


class _Crossing(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, boundaries: Boundaries, chunk: int) -> Tensor:
        ctx.boundaries, ctx.chunk = boundaries, chunk
        return boundaries.receive(boundaries.send((chunk, "F"), tensor))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return ctx.boundaries.receive(ctx.boundaries.send((ctx.chunk + 1, "B"), gradient)), None, None


def cross(tensor: Tensor, boundaries: Boundaries, chunk: int) -> Tensor:
    """Return what `chunk` + 1 gets of what `chunk` sends; the gradient comes back as it crosses the other way.

    Packing counts as the identity in between (straight through). Senders are those that a pipeline has, so that with
    error feedback both agree where both do micro-batches in the same order.
    """
    if boundaries.packing is None:
        return tensor
    crossed: Tensor = _Crossing.apply(tensor, boundaries, chunk)  # type: ignore[no-untyped-call]
    return crossed
