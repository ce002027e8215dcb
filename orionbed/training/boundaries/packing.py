"""Boundary tensors in fewer bytes, token by token: rounded to few bits, or the largest values only."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from orionbed.model import SCALE_BYTES, index_bytes
from orionbed.scenario.schedules import QuantizeBoundary, TopKBoundary

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from orionbed.training.shape import ModelShape


class Packing(Protocol):
    """Makes (sequences, sequence, bytes) of uint8 from (sequences, sequence, hidden) values, and values from them.

    What comes back differs from what was packed: this is not lossless. The same values give the same bytes.
    """

    def pack(self, tensor: "Tensor") -> "Tensor":
        """Return the bytes of each token."""

    def unpack(self, packed: "Tensor") -> "Tensor":
        """Return the values that are left of each token; a ValueError if they cannot come from `pack`."""


@dataclass(frozen=True, slots=True)
class Quantized:
    """Each token's values as whole multiples of a fp32 scale of its own: 127 of them up to the largest, or 7.

    A row is the scale, then a byte per value, two's complement, or half a byte per value, seven more than it is, the
    first of two in the lower half. A token that is not finite comes back as not a number.
    """

    bits: int
    hidden: int
    dtype: "torch.dtype"

    def pack(self, tensor: "Tensor") -> "Tensor":
        import torch

        most = 2 ** (self.bits - 1) - 1
        scale = (tensor.abs().amax(dim=-1, keepdim=True) / most).to(torch.float32)
        steps = (tensor / scale.to(_at_least_single(tensor))).nan_to_num(0.0, 0.0, 0.0).round().clamp(-most, most)
        if self.bits == 8:
            values = steps.to(torch.int8).view(torch.uint8)
        else:
            halves = torch.nn.functional.pad((steps + most).to(torch.uint8), (0, self.hidden % 2))
            values = halves[..., 0::2] | (halves[..., 1::2] << 4)
        return torch.cat((scale.view(torch.uint8), values), dim=-1)

    def unpack(self, packed: "Tensor") -> "Tensor":
        import torch

        scale = _part(packed, 0, SCALE_BYTES, torch.float32)
        values = packed[..., SCALE_BYTES:]
        if self.bits == 8:
            steps = _part(packed, SCALE_BYTES, packed.shape[-1], torch.int8).to(torch.float32)
        else:
            halves = torch.stack((values & 15, values >> 4), dim=-1).flatten(-2)[..., : self.hidden]
            steps = halves.to(torch.float32) - 7.0
        if self.dtype is torch.float64:
            return steps.double() * scale.double()
        return (steps * scale).to(self.dtype)


@dataclass(frozen=True, slots=True)
class Largest:
    """The values of each token of largest size, as they are, and where they stood; all others come back as zero.

    A row is the values by falling size, those that come first where two are equal, then their indices, little endian.
    """

    keep: int
    hidden: int
    dtype: "torch.dtype"

    def pack(self, tensor: "Tensor") -> "Tensor":
        import torch

        # Sorted, since topk does not say which of two equal values it takes.
        indices = tensor.abs().sort(dim=-1, descending=True, stable=True).indices[..., : self.keep].contiguous()
        values = tensor.gather(-1, indices)
        return torch.cat((values.view(torch.uint8), indices.to(self._index_type).view(torch.uint8)), dim=-1)

    def unpack(self, packed: "Tensor") -> "Tensor":
        import torch

        split = self.keep * self.dtype.itemsize
        values = _part(packed, 0, split, self.dtype)
        indices = _part(packed, split, packed.shape[-1], self._index_type).long()
        if self._index_type is torch.int16:
            indices &= 0xFFFF
        if int(indices.max()) >= self.hidden or int(indices.min()) < 0:
            raise ValueError(f"a token's value {int(indices.max())} of {self.hidden}: these are not packed values")
        return values.new_zeros((*packed.shape[:-1], self.hidden)).scatter_(-1, indices, values)

    @property
    def _index_type(self) -> "torch.dtype":
        import torch

        return torch.int16 if index_bytes(self.hidden) == 2 else torch.int32


def packing_of(shape: "ModelShape") -> Packing | None:
    """Return what packs the boundary tensors of a shape, or None where values cross as they are."""
    boundary = shape.boundary
    if isinstance(boundary, QuantizeBoundary):
        return Quantized(boundary.bits, shape.hidden, shape.torch_dtype)
    if isinstance(boundary, TopKBoundary):
        return Largest(boundary.keep, shape.hidden, shape.torch_dtype)
    return None


def _part(packed: "Tensor", start: int, end: int, dtype: "torch.dtype") -> "Tensor":
    """Return some bytes of each row as numbers; on memory of their own, since numbers must be aligned."""
    import torch

    return packed[..., start:end].clone(memory_format=torch.contiguous_format).view(dtype)


def _at_least_single(tensor: "Tensor") -> "torch.dtype":
    import torch

    return torch.promote_types(tensor.dtype, torch.float32)
