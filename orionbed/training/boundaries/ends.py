"""Layers at the ends of chunks that narrow the residual stream before it crosses, and widen it again behind.

Derives from torch's classes: everybody imports this file late.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from orionbed.training.layers import Block, Deferral, Linear

if TYPE_CHECKING:
    from orionbed.streams import Streams
    from orionbed.training.shape import ModelShape

NEAR_ZERO = 1e-3  # deviation of the last weights of boundary encoders and decoders, beside which stands the identity


class Perceptron(nn.Module):
    """Two matrices with SiLU between them."""

    def __init__(self, num_in: int, inner: int, num_out: int, deferral: Deferral, dtype: torch.dtype) -> None:
        super().__init__()
        self.inner = Linear(num_in, inner, deferral, dtype)
        self.outer = Linear(inner, num_out, deferral, dtype)

    def forward(self, inputs: Tensor) -> Tensor:
        result: Tensor = self.outer(functional.silu(self.inner(inputs)))
        return result

    @property
    def last(self) -> nn.Parameter:
        """The weights next to the output."""
        return self.outer.weight


class Projection(Linear):
    """One matrix."""

    @property
    def last(self) -> nn.Parameter:
        """The weights next to the output, which are all."""
        return self.weight


def _learned(
    num_in: int, num_out: int, inner: int | None, deferral: Deferral, dtype: torch.dtype
) -> Projection | Perceptron:
    if inner is None:
        return Projection(num_in, num_out, deferral, dtype)
    return Perceptron(num_in, inner, num_out, deferral, dtype)


class Encoder(nn.Module):
    """Narrows the residual stream for the crossing: its first values pass as they are, plus a projection of all.

    The identity path is that of residual bottleneck models (ResBM): training starts from a plain cut. The projection
    is one matrix, or with `inner` two with so many values between them.
    """

    def __init__(self, shape: "ModelShape", width: int, deferral: Deferral, inner: int | None = None) -> None:
        super().__init__()
        self.width = width
        self.projection = _learned(shape.hidden, width, inner, deferral, shape.torch_dtype)

    def forward(self, residual: Tensor) -> Tensor:
        result: Tensor = self.projection(residual) + residual[..., : self.width]
        return result


class Decoder(nn.Module):
    """Widens what has crossed: filled up with zeros, plus a projection."""

    def __init__(self, shape: "ModelShape", width: int, deferral: Deferral, inner: int | None = None) -> None:
        super().__init__()
        self.missing = shape.hidden - width
        self.projection = _learned(width, shape.hidden, inner, deferral, shape.torch_dtype)

    def forward(self, narrow: Tensor) -> Tensor:
        result: Tensor = self.projection(narrow) + functional.pad(narrow, (0, self.missing))
        return result


class BottleneckBlock(Block):
    """The first or last layer of a chunk, or both, between older IOTA bottlenecks.

    The last one ends in its feed-forward, SiLU and a matrix to the narrow width, which is added to the first values of
    the residual stream. The first one has attention look at what has crossed through a matrix and ReLU, and adds what
    has crossed to the first values that attention returns; the other values begin with what attention returns.
    """

    def __init__(self, shape: "ModelShape", width: int, deferral: Deferral, *, receives: bool, sends: bool) -> None:
        super().__init__(shape, deferral)
        self.width = width
        self.missing = shape.hidden - width
        self.widen = Linear(width, shape.hidden, deferral, shape.torch_dtype) if receives else None
        self.narrow = Linear(shape.hidden, width, deferral, shape.torch_dtype) if sends else None

    def forward(self, inputs: Tensor) -> Tensor:
        if self.widen is None:
            residual = inputs + self.attention(self.attention_norm(inputs))
        else:
            seen = functional.relu(self.widen(inputs))
            residual = self.attention(self.attention_norm(seen)) + functional.pad(inputs, (0, self.missing))
        branch = self.feed_forward(residual)
        if self.narrow is None:
            whole: Tensor = residual + branch
            return whole
        result: Tensor = self.narrow(functional.silu(branch)) + residual[..., : self.width]
        return result


class Subspace(nn.Module):
    """Coordinates of the residual stream in a fixed subspace that all chunks share, or back from them; not trained."""

    basis: Tensor

    def __init__(self, shape: "ModelShape", width: int, *, back: bool) -> None:
        super().__init__()
        self.back = back
        self.register_buffer("basis", torch.empty(shape.hidden, width, dtype=shape.torch_dtype), persistent=False)

    def forward(self, inputs: Tensor) -> Tensor:
        return functional.linear(inputs, self.basis if self.back else self.basis.t())


def shared_basis(hidden: int, width: int, streams: "Streams") -> Tensor:
    """Return an orthonormal basis (hidden, width) of a random subspace in float64, the same for all of one seed."""
    drawn = torch.from_numpy(streams.get("training/subspace").standard_normal((hidden, width)))
    basis, triangle = torch.linalg.qr(drawn)
    # Signs are a matter of the library; a positive diagonal makes the decomposition unique.
    positive: Tensor = basis * triangle.diagonal().sign()
    return positive
