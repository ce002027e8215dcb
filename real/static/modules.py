"""A piece of the model as torch's pipelining runs it: what its backward computes again, and whether it is compiled.

Derives from torch's classes: everybody imports this file late.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Final, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from orionbed.training.boundaries.ends import BottleneckBlock
from orionbed.training.layers import Attention, Linear
from orionbed.training.modules import Chunk
from orionbed.training.shape import ModelShape

Recompute = Literal["full", "selective", "none"]
RECOMPUTES: Final = ("full", "selective", "none")

_REASON_LENGTH: Final = 300
_SPLIT: Final = (
    "real.compile was left out: the schedule splits backwards, and a compiled layer can only do whole ones. Use a "
    "schedule with whole backwards, such as 1f1b, to have layers compiled."
)


def _again(function: Callable[..., Tensor], *tensors: Any) -> Tensor:
    """Call a function of which only the inputs are kept; its backward calls it once more."""
    # There is no dropout whose random numbers would have to be the same again.
    result: Tensor = checkpoint(function, *tensors, use_reentrant=False, preserve_rng_state=False)
    return result


class PipelinedChunk(nn.Module):
    """Wraps a chunk: with targets it returns the mean loss, without what crosses next.

    `recompute` says what a backward computes again: the whole chunk with its loss from its input (`full`), rotation and
    attention proper of each layer from queries, keys and values (`selective`), or nothing (`none`). Whether weight
    gradients are put off is decided while a backward runs, by the deferral of the chunk: what is computed again meets
    it like what is not.

    Raises:
        ValueError: there is no such policy.

    """

    def __init__(self, chunk: Chunk, recompute: Recompute) -> None:
        super().__init__()
        if recompute not in RECOMPUTES:
            raise ValueError(f"recompute must be one of {', '.join(RECOMPUTES)}, not '{recompute}'")
        self.chunk = chunk
        self.deferral = chunk.deferral
        self._recomputes_all = recompute == "full"
        if recompute == "selective":
            for module in chunk.modules():
                if isinstance(module, Attention):
                    module.call_core = _again

    def forward(self, inputs: Tensor, targets: Tensor | None = None) -> Tensor:
        # The loss belongs to what is done again: its graph keeps a number per token and word.
        run = partial(self.chunk, targets=targets) if targets is not None else self.chunk.without_loss
        return _again(run, inputs) if self._recomputes_all else run(inputs)


def compile_layers(chunk: Chunk, shape: ModelShape, *, splits_backward: bool, backend: str = "inductor") -> str | None:
    """Compile the layers of a chunk by torch.compile and try one; return a warning where that cannot be.

    A layer that cannot be compiled as a whole is left as it was, and so are all others. Gradients stay as they are.
    """
    if splits_backward:
        return _SPLIT
    deferring = [module for module in chunk.blocks.modules() if isinstance(module, Linear)]
    for linear in deferring:
        linear.deferral = None
    try:
        for block in chunk.blocks:
            block.compile(fullgraph=True, dynamic=False, backend=backend)
        if len(chunk.blocks):
            _try(chunk.blocks[0], shape)
    except Exception as error:  # noqa: BLE001 - compilers fail in many ways, and all of them have one cure
        for block in chunk.blocks:
            block._compiled_call_impl = None  # noqa: SLF001 - torch has no way back from compile()
        for linear in deferring:
            linear.deferral = chunk.deferral
        why = " ".join(str(error).split())[:_REASON_LENGTH]
        return f"real.compile was left out, layers run as they are: torch.compile: {type(error).__name__}: {why}"
    return None


def _try(block: nn.Module, shape: ModelShape) -> None:
    """Do a forward and a backward as training does them, so that what is compiled late fails now."""
    weight = next(block.parameters())
    width = shape.boundary_width if isinstance(block, BottleneckBlock) and block.widen is not None else shape.hidden
    size = (shape.sequences, shape.sequence, width)
    inputs = torch.zeros(size, dtype=weight.dtype, device=weight.device, requires_grad=True)
    # Gradients by themselves: those that parameters hold are not to be touched.
    torch.autograd.grad(block(inputs).sum(), [inputs, *block.parameters()])
