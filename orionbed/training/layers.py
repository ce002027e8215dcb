"""The layers of a Llama-style model as torch modules.

This file imports torch at its top, since classes derive from torch's; everybody imports it late.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from orionbed.training.shape import ModelShape

ROTARY_BASE = 500_000.0  # of Llama 3
NORM_EPSILON = 1e-5  # of Llama 3


class Deferral:
    """Where linear layers leave the work on their weight gradients while a backward does its input half only.

    One for all layers of a chunk; whether a backward defers is decided when it runs, not when its graph is made.
    """

    def __init__(self) -> None:
        self.active = False
        self.pending: list[tuple[nn.Parameter, Tensor, Tensor]] = []

    @contextmanager
    def collecting(self) -> Iterator[list[tuple[nn.Parameter, Tensor, Tensor]]]:
        """Defer in this block; the list yielded holds weight, input and output gradient of each layer passed."""
        self.active, self.pending = True, []
        try:
            yield self.pending
        finally:
            self.active, self.pending = False, []


def weight_gradient(inputs: Tensor, gradient: Tensor) -> Tensor:
    """Return the gradient of the weight of a linear layer from its input and the gradient of its output."""
    return gradient.flatten(0, -2).t() @ inputs.flatten(0, -2)


class _LinearFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: nn.Parameter, deferral: Deferral) -> Tensor:
        ctx.save_for_backward(inputs)
        # Not among the saved tensors: those come back as aliases, and an alias has no place for a gradient.
        ctx.weight = weight
        ctx.deferral = deferral
        return functional.linear(inputs, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (inputs,) = ctx.saved_tensors
        for_weight = None
        if ctx.deferral.active:
            ctx.deferral.pending.append((ctx.weight, inputs.detach(), gradient))  # else it would keep the graph
        elif ctx.needs_input_grad[1]:
            for_weight = weight_gradient(inputs, gradient)
        return gradient @ ctx.weight if ctx.needs_input_grad[0] else None, for_weight, None


class Linear(nn.Module):
    """A matrix without bias whose weight gradient can be put off, as long as there is a deferral."""

    def __init__(self, num_in: int, num_out: int, deferral: Deferral, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_out, num_in, dtype=dtype))
        self.deferral: Deferral | None = deferral

    def forward(self, inputs: Tensor) -> Tensor:
        if self.deferral is None:
            return functional.linear(inputs, self.weight)
        result: Tensor = _LinearFunction.apply(inputs, self.weight, self.deferral)  # type: ignore[no-untyped-call]
        return result


def _call(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    return function(*tensors)


class Attention(nn.Module):
    """Causal attention with rotary positions and fewer keys than queries.

    `call_core` calls what is done with queries, keys and values; one that has it done again in the backward may stand
    in its place.
    """

    cosine: Tensor
    sine: Tensor
    call_core: Callable[..., Tensor]

    def __init__(self, shape: ModelShape, deferral: Deferral) -> None:
        super().__init__()
        self.head_width = shape.head_width
        narrow = shape.kv_heads * shape.head_width
        dtype = shape.torch_dtype
        self.query = Linear(shape.hidden, shape.hidden, deferral, dtype)
        self.key = Linear(shape.hidden, narrow, deferral, dtype)
        self.value = Linear(shape.hidden, narrow, deferral, dtype)
        self.out = Linear(shape.hidden, shape.hidden, deferral, dtype)
        pairs = torch.arange(0, shape.head_width, 2, dtype=torch.float64) / shape.head_width
        angles = torch.outer(torch.arange(shape.sequence, dtype=torch.float64), ROTARY_BASE**-pairs).repeat(1, 2)
        self.register_buffer("cosine", angles.cos().to(dtype), persistent=False)
        self.register_buffer("sine", angles.sin().to(dtype), persistent=False)
        self.call_core = _call

    def forward(self, inputs: Tensor) -> Tensor:
        sequences, sequence, _ = inputs.shape
        query, key, value = (
            linear(inputs).view(sequences, sequence, -1, self.head_width).transpose(1, 2)
            for linear in (self.query, self.key, self.value)
        )
        result = self.call_core(self.core, query, key, value)
        projected: Tensor = self.out(result.transpose(1, 2).reshape(inputs.shape))
        return projected

    def core(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Return what each query finds, (sequences, heads, sequence, head width), keys and values alike."""
        return functional.scaled_dot_product_attention(
            self.rotate(query), self.rotate(key), value, is_causal=True, enable_gqa=key.shape[1] != query.shape[1]
        )

    def rotate(self, heads: Tensor) -> Tensor:
        """Return queries or keys (sequences, heads, sequence, head width) turned by their positions."""
        first, second = heads.chunk(2, dim=-1)
        return heads * self.cosine + torch.cat((-second, first), dim=-1) * self.sine


class Block(nn.Module):
    """One layer: attention and a SwiGLU feed-forward, each behind a norm and beside the identity."""

    def __init__(self, shape: ModelShape, deferral: Deferral) -> None:
        super().__init__()
        dtype = shape.torch_dtype
        self.attention_norm = nn.RMSNorm(shape.hidden, NORM_EPSILON, dtype=dtype)
        self.attention = Attention(shape, deferral)
        self.ffn_norm = nn.RMSNorm(shape.hidden, NORM_EPSILON, dtype=dtype)
        self.gate = Linear(shape.hidden, shape.ffn, deferral, dtype)
        self.up = Linear(shape.hidden, shape.ffn, deferral, dtype)
        self.down = Linear(shape.ffn, shape.hidden, deferral, dtype)

    def forward(self, residual: Tensor) -> Tensor:
        residual = residual + self.attention(self.attention_norm(residual))
        return residual + self.feed_forward(residual)

    def feed_forward(self, residual: Tensor) -> Tensor:
        """Return what the feed-forward adds to the residual stream."""
        normed = self.ffn_norm(residual)
        result: Tensor = self.down(functional.silu(self.gate(normed)) * self.up(normed))
        return result


def mean_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the mean loss over all tokens in nats; in bfloat16 it would have three digits."""
    wide = logits.float() if logits.dtype is torch.bfloat16 else logits
    return functional.cross_entropy(wide.flatten(0, 1), targets.flatten())
