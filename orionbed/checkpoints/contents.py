"""What a shard may hold: bytes and tensors, given slice by slice so that nothing is copied whole."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, Final

from orionbed.checkpoints.errors import CheckpointError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

SLICE_BYTES: Final = 16 * 2**20
BYTES: Final = "bytes"
WIDTHS: Final = {
    BYTES: 1, "bool": 1, "uint8": 1, "int8": 1, "int16": 2, "int32": 4, "int64": 8,
    "float16": 2, "bfloat16": 2, "float32": 4, "float64": 8,
}  # fmt: skip
"""Number formats and their bytes per value; all little endian."""

Value = Any
"""bytes, bytearray, memoryview, a numpy array, a torch tensor, or a `Content` of slices."""


@dataclass(frozen=True, slots=True)
class Content:
    """A value as it is written: its number format and shape, and its bytes in slices."""

    dtype: str
    shape: tuple[int, ...]
    slices: Callable[[], Iterator[Any]]

    @property
    def num_bytes(self) -> int:
        """Bytes of all slices."""
        return num_bytes(self.dtype, self.shape)


def num_bytes(dtype: str, shape: Sequence[int]) -> int:
    """Return the bytes of a tensor."""
    return WIDTHS[dtype] * prod(shape)


def content_of(value: Value) -> Content:
    """Return how a value is written. CheckpointError: it is of no kind that can be."""
    if isinstance(value, Content):
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        view = memoryview(value).cast("B")
        return Content(BYTES, (len(view),), lambda: _cut(view))
    torch, numpy = sys.modules.get("torch"), sys.modules.get("numpy")
    if torch is not None and isinstance(value, torch.Tensor):
        return _of_tensor(value)
    if numpy is not None and isinstance(value, numpy.ndarray):
        return _of_array(value)
    raise CheckpointError(f"a {type(value).__name__} cannot be kept in a checkpoint; give bytes, an array or a tensor")


def as_json(value: Any) -> bytes:
    """Return a plain value (a data cursor, the state of a generator) as a content."""
    return json.dumps(value, sort_keys=True, allow_nan=False).encode()


def to_tensor(data: bytearray, dtype: str, shape: Sequence[int]) -> "Tensor":
    """Return the tensor whose bytes these are; it lies in `data`."""
    import torch

    kind = torch.uint8 if dtype == BYTES else getattr(torch, dtype)
    if not data:  # torch refuses an empty buffer
        return torch.empty(tuple(shape), dtype=kind)
    return torch.frombuffer(data, dtype=kind).reshape(tuple(shape))


def _of_tensor(tensor: "Tensor") -> Content:
    import torch

    dtype = _known(str(tensor.dtype).removeprefix("torch."))
    # By way of bytes, because numpy has no bfloat16.
    flat = tensor.detach().contiguous().reshape(-1).view(torch.uint8)

    def slices() -> Iterator[Any]:
        for start in range(0, len(flat), SLICE_BYTES):
            yield flat[start : start + SLICE_BYTES].cpu().numpy().data

    return Content(dtype, tuple(tensor.shape), slices)


def _of_array(array: "NDArray[Any]") -> Content:
    import numpy as np

    dtype = _known(array.dtype.name)
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    view = little.reshape(-1).view(np.uint8).data
    return Content(dtype, tuple(array.shape), lambda: _cut(view))


def _known(dtype: str) -> str:
    if dtype not in WIDTHS or dtype == BYTES:
        raise CheckpointError(f"numbers of {dtype} cannot be kept in a checkpoint; use one of {', '.join(WIDTHS)}")
    return dtype


def _cut(view: memoryview) -> Iterator[memoryview]:
    return (view[start : start + SLICE_BYTES] for start in range(0, len(view), SLICE_BYTES))
