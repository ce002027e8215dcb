"""What a backward computes again: nothing, attention, or every layer; the same layers, timed under each policy."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from orionbed.training.shape import ModelShape
from real.calibration.measure import Clock, Effort, Mark, Timed, measure, spread_of

if TYPE_CHECKING:
    from torch import Tensor

    from orionbed.training.layers import Block
    from orionbed.training.modules import Chunk

POLICIES: Final = ("none", "selective", "full")
"""`selective` does the attention core of each layer again, from queries, keys and values; `full` each layer."""


@dataclass(frozen=True, slots=True)
class PolicyTimes:
    """Seconds of a forward and a backward under one policy, and the most memory that was in use; 0 on a CPU."""

    policy: str
    forward_s: float
    backward_s: float
    peak_bytes: int

    @property
    def both_s(self) -> float:
        """Seconds of both."""
        return self.forward_s + self.backward_s


class Layers:
    """Some layers of the model with weights and gradients, and an input for them."""

    def __init__(self, shape: ModelShape, layers: int, device: str) -> None:
        import torch

        from orionbed.training.modules import make_chunk

        alone = replace(shape, layers_per_chunk=(0, layers, 0), boundary=None, recompute=False)
        self.device = device
        self.chunk: Chunk = make_chunk(alone, 1, 0, device)
        for parameter in self.chunk.parameters():
            parameter.grad = torch.zeros_like(parameter)
        size = (shape.sequences, shape.sequence, shape.hidden)
        self._inputs, self._gradient = (torch.randn(*size, device=device).to(shape.torch_dtype) for _ in range(2))

    def kept_bytes(self) -> int:
        """Return what the graph of a forward keeps for the backward, without recompute."""
        from orionbed.training.kept import measured

        entered = self._inputs.detach().requires_grad_()
        constant = [*self.chunk.parameters(), *self.chunk.buffers()]
        return measured(lambda: self.chunk.without_loss(entered), entered, constant)[1]

    def time(self, policy: str, clock: Clock, effort: Effort) -> PolicyTimes:
        """Time forward and backward under one of the `POLICIES`."""
        import torch

        call = _FORWARDS[policy]

        def run(mark: Mark) -> None:
            entered = self._inputs.detach().requires_grad_()
            mark()
            output = call(self.chunk, entered)
            mark()
            torch.autograd.backward(output, self._gradient)
            mark()

        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        times = measure([Timed(policy, ("forward", "backward"), run)], clock, effort)[policy]
        peak = torch.cuda.max_memory_allocated() if self.device == "cuda" else 0
        return PolicyTimes(policy, spread_of(times["forward"]).median, spread_of(times["backward"]).median, peak)


def _keeping_all(chunk: "Chunk", entered: "Tensor") -> "Tensor":
    return chunk.without_loss(entered)


def _attention_again(chunk: "Chunk", entered: "Tensor") -> "Tensor":
    attentions = [block.attention for block in _blocks(chunk)]
    before = [attention.call_core for attention in attentions]
    for attention in attentions:
        attention.call_core = _again
    try:
        return chunk.without_loss(entered)
    finally:
        for attention, call in zip(attentions, before, strict=True):
            attention.call_core = call


def _layers_again(chunk: "Chunk", entered: "Tensor") -> "Tensor":
    residual = entered
    for block in _blocks(chunk):
        residual = _again(block, residual)
    return residual


def _blocks(chunk: "Chunk") -> "list[Block]":
    return list(chunk.blocks)  # type: ignore[arg-type]


def _again(part: "Callable[..., Tensor]", *entered: "Tensor") -> "Tensor":
    from torch.utils.checkpoint import checkpoint

    result: Tensor = checkpoint(part, *entered, use_reentrant=False)
    return result


_FORWARDS: Final[dict[str, "Callable[[Chunk, Tensor], Tensor]"]] = {
    "none": _keeping_all,
    "selective": _attention_again,
    "full": _layers_again,
}


def attention_kernel(shape: ModelShape, device: str) -> str:
    """Return what ran for the model's attention, as torch's profiler names it."""
    from torch.nn import functional
    from torch.profiler import ProfilerActivity, profile

    from real.calibration.matmuls import attention_inputs

    query, key, value = attention_inputs(shape, device)
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device == "cuda" else [])
    with profile(activities=activities) as seen:
        functional.scaled_dot_product_attention(
            query, key, value, is_causal=True, enable_gqa=shape.kv_heads != shape.heads
        )
    names = [event.key for event in seen.key_averages()]
    chosen = [name for name in names if "_scaled_dot_product" in name or "_attention_math" in name]
    kernels = [name for name in names if not name.startswith("aten::") and _is_attention(name)]
    return ", ".join([*chosen, *(name[:60] for name in kernels)]) or "nothing that names itself attention"


def _is_attention(name: str) -> bool:
    return any(word in name.lower() for word in ("flash", "fmha", "cudnn", "attention"))
