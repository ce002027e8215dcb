"""The pieces that a Llama-style model is cut into, as torch modules with their first weights.

This file imports torch at its top, since classes derive from torch's; everybody imports it late.
"""

import torch
from torch import Tensor, nn

from orionbed.scenario.schedules import BottleneckBoundary, ResBMBoundary, SubspaceBoundary
from orionbed.streams import Streams
from orionbed.training.boundaries.ends import (
    NEAR_ZERO,
    BottleneckBlock,
    Decoder,
    Encoder,
    Subspace,
    shared_basis,
)
from orionbed.training.layers import NORM_EPSILON, Block, Deferral, Linear, mean_loss
from orionbed.training.shape import ModelShape


class Chunk(nn.Module):
    """One piece of the model, with what stands at its ends.

    Its input is (sequences, sequence) tokens at chunk 0 and what crossed, (sequences, sequence, boundary_width),
    elsewhere; its output is what crosses next, and at the last chunk the mean loss over all tokens. Packing into bytes
    happens outside.
    """

    def __init__(self, shape: ModelShape, chunk: int) -> None:
        super().__init__()
        self.deferral = Deferral()
        self.entrance: nn.Module = nn.Identity()
        self.exit: nn.Module = nn.Identity()
        self.head: Linear | None = None
        receives, sends, boundary = chunk > 0, not shape.is_last(chunk), shape.boundary
        if not receives:
            self.entrance = nn.Embedding(shape.vocab, shape.hidden, dtype=shape.torch_dtype)
        elif isinstance(boundary, ResBMBoundary):
            self.entrance = Decoder(shape, boundary.width, self.deferral, boundary.inner_width)
        elif isinstance(boundary, SubspaceBoundary):
            self.entrance = Subspace(shape, boundary.width, back=True)
        self.blocks = nn.ModuleList(self._blocks(shape, shape.layers_per_chunk[chunk], receives=receives, sends=sends))
        if not sends:
            self.exit = nn.RMSNorm(shape.hidden, NORM_EPSILON, dtype=shape.torch_dtype)
            self.head = Linear(shape.hidden, shape.vocab, self.deferral, shape.torch_dtype)
        elif isinstance(boundary, ResBMBoundary):
            self.exit = Encoder(shape, boundary.width, self.deferral, boundary.inner_width)
        elif isinstance(boundary, SubspaceBoundary):
            self.exit = Subspace(shape, boundary.width, back=False)

    def _blocks(self, shape: ModelShape, layers: int, *, receives: bool, sends: bool) -> list[Block]:
        blocks: list[Block] = []
        for layer in range(layers):
            first, last = receives and layer == 0, sends and layer == layers - 1
            if isinstance(shape.boundary, BottleneckBoundary) and (first or last):
                width = shape.boundary.width
                blocks.append(BottleneckBlock(shape, width, self.deferral, receives=first, sends=last))
            else:
                blocks.append(Block(shape, self.deferral))
        return blocks

    def forward(self, inputs: Tensor, targets: Tensor | None) -> Tensor:
        result = self.without_loss(inputs)
        if self.head is None:
            return result
        assert targets is not None, "the last chunk is given its targets"
        return mean_loss(result, targets)

    def without_loss(self, inputs: Tensor) -> Tensor:
        """Return what crosses next; at the last chunk logits, (sequences, sequence, vocab)."""
        residual = self.entrance(inputs)
        for block in self.blocks:
            residual = block(residual)
        result: Tensor = self.exit(residual)
        return result if self.head is None else self.head(result)

    def immediate(self) -> list[nn.Parameter]:
        """Return the parameters whose gradient cannot be put off: norms and embedding."""
        put_off = {id(module.weight) for module in self.modules() if isinstance(module, Linear)}
        return [parameter for parameter in self.parameters() if id(parameter) not in put_off]


def make_chunk(shape: ModelShape, chunk: int, seed: int, device: str = "cpu") -> Chunk:
    """Return a chunk with its initial weights, which depend on the shape, the seed and its number alone.

    On a GPU they are drawn there, from another generator: drawing billions of numbers elsewhere would take minutes.
    """
    with torch.device(device):
        made = Chunk(shape, chunk)
    draws = Streams(seed).get(f"training/weights/{chunk}")
    on_cpu = torch.device(device).type == "cpu"
    there = None if on_cpu else torch.Generator(device).manual_seed(int(draws.integers(2**63)))
    near_zero = {id(end.projection.last) for end in made.modules() if isinstance(end, Encoder | Decoder)}
    onto_residual = {id(matrix) for block in made.blocks for matrix in _onto_residual(block)}
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.dim() == 1:
                continue  # norms start at one
            deviation: float = parameter.shape[-1] ** -0.5
            if id(parameter) in near_zero:
                deviation = NEAR_ZERO
            elif id(parameter) in onto_residual:
                # As in GPT-2: so that the sum of all branches keeps its size whatever the depth.
                deviation *= (2 * shape.layers) ** -0.5
            if there is None:
                parameter.copy_(torch.from_numpy(draws.standard_normal(tuple(parameter.shape)) * deviation))
            else:
                parameter.normal_(0.0, deviation, generator=there)
        for end in made.modules():
            if isinstance(end, Subspace):
                end.basis.copy_(shared_basis(shape.hidden, end.basis.shape[1], Streams(seed)))
    return made


def _onto_residual(block: nn.Module) -> tuple[nn.Parameter, nn.Parameter]:
    assert isinstance(block, Block)
    if isinstance(block, BottleneckBlock) and block.narrow is not None:
        return block.attention.out.weight, block.narrow.weight
    return block.attention.out.weight, block.down.weight
