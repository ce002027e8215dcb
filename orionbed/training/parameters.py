"""Weights, gradients and optimizer state of what one peer holds, flat: to average, to send, to save, to compare."""

import hashlib
import struct
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from orionbed.scenario.training import InnerOptimizer
from orionbed.training.optimizers.build import NAMES, make_optimizer
from orionbed.training.optimizers.layout import layout_of
from orionbed.training.shape import ModelShape

if TYPE_CHECKING:
    from torch import Tensor

    from orionbed.training.modules import Chunk

MAGIC: Final = b"orbdst01"
HEADER: Final = struct.Struct("<8s8sBBxxIQQ")
"""Magic, fingerprint of the layout, optimizer, bytes per value, checksum of the rest, weights, steps; little endian."""

HASH_LENGTH: Final = 16


class FlatParameters:
    """The parameters of some chunks as one tensor of weights and one of gradients, and the optimizer on them.

    The modules' parameters become views of `weights` and their gradients views of `gradients`, in the order of the
    chunks. Because the views do not share torch's count of changes, the weights may change between a forward and its
    backward, as they do in a pipeline that never drains; the backward then multiplies by the new weights.
    """

    def __init__(
        self, shape: ModelShape, chunks: Sequence[int], modules: "Sequence[Chunk]", optimizer: InnerOptimizer
    ) -> None:
        import torch

        parameters = [parameter for module in modules for parameter in module.parameters()]
        self.weights: Tensor = torch.cat([parameter.detach().flatten() for parameter in parameters])
        self.gradients: Tensor = torch.zeros_like(self.weights)
        self.num_steps = 0
        self._optimizer = make_optimizer(optimizer, self.weights, layout_of(shape, chunks, modules))
        self._optimizer_code = NAMES.index(optimizer.kind)
        # Two pieces may have as many weights as one another, and still must not be taken for one another.
        layout = repr((shape.layers_per_chunk, shape.hidden, shape.ffn, shape.heads, shape.kv_heads, shape.vocab))
        layout += repr((shape.boundary, tuple(chunks)))
        self._fingerprint = hashlib.sha256(layout.encode()).digest()[:8]
        start = 0
        for parameter in parameters:
            end = start + parameter.numel()
            parameter.data = self.weights[start:end].view_as(parameter)
            parameter.grad = self.gradients[start:end].view_as(parameter)
            start = end

    def step(self, num_microbatches: int) -> None:
        """Apply the mean gradient of `num_microbatches`, clipped if so wished, and set the gradients to zero."""
        self.gradients.div_(num_microbatches)
        self.num_steps += 1
        self._optimizer.step(self.weights, self.gradients, self.num_steps)
        self.gradients.zero_()

    def set_weights(self, flat: "Tensor") -> None:
        """Take over weights; the rest stays.

        Raises:
            ValueError: of another length or number format.

        """
        self._check(flat, "weights")
        self.weights.copy_(flat)

    def set_gradients(self, flat: "Tensor") -> None:
        """Take over gradients, of the same length and format, instead of those accumulated."""
        self._check(flat, "gradients")
        self.gradients.copy_(flat)

    def state(self) -> bytes:
        """Return weights, moments and number of steps: a header of 40 bytes and raw little-endian values."""
        body = b"".join(to_bytes(tensor) for tensor in self.parts)
        return self.header(zlib.crc32(body)) + body

    def load_state(self, data: bytes) -> None:
        """Take over what `state` returned, here or in another process; gradients become zero.

        Raises:
            ValueError: it is none, damaged, or that of another piece, model or optimizer; nothing has changed then.

        """
        import torch

        checksum, num_steps = self.check_header(data)
        body = memoryview(data)[HEADER.size :]
        targets = self.parts
        if len(body) != self.body_bytes:
            raise ValueError(
                f"the state has {len(body)} bytes of values and should have {self.body_bytes}; it was cut off"
            )
        if zlib.crc32(body) != checksum:
            raise ValueError("the state is damaged: its checksum differs")
        # A copy, because torch wants memory it may write to.
        values = torch.frombuffer(bytearray(body), dtype=self.weights.dtype)
        for target, part in zip(targets, values.split_with_sizes([len(target) for target in targets]), strict=True):
            target.copy_(part)
        self.begin_after(num_steps)

    @property
    def parts(self) -> "list[Tensor]":
        """Weights and moments, each one row, in the order of a state; writing to them changes what they are of."""
        return [self.weights, *self._optimizer.moments]

    @property
    def body_bytes(self) -> int:
        """Bytes of a state after its header."""
        return sum(len(part) for part in self.parts) * self.weights.element_size()

    def header(self, checksum: int) -> bytes:
        """Return the header of a state, given the CRC-32 of what follows it."""
        width = self.weights.element_size()
        fields = (self._fingerprint, self._optimizer_code, width, checksum, self.weights.numel(), self.num_steps)
        return HEADER.pack(MAGIC, *fields)

    def check_header(self, data: bytes) -> tuple[int, int]:
        """Return the checksum and the number of steps of the state that `data` begins.

        Raises:
            ValueError: it begins none, or that of another piece, model or optimizer.

        """
        if len(data) < HEADER.size or not data.startswith(MAGIC):
            raise ValueError(f"{len(data)} bytes that do not begin like a saved state of this version")
        _, fingerprint, optimizer, width, checksum, num_weights, num_steps = HEADER.unpack_from(data)
        if fingerprint != self._fingerprint or num_weights != self.weights.numel():
            raise ValueError(
                f"the state is of another model or another piece of it ({num_weights} weights, here "
                f"{self.weights.numel()}); load it where the same chunks of the same shape are held"
            )
        if optimizer != self._optimizer_code or width != self.weights.element_size():
            raise ValueError("the state is of another optimizer or number format; make the worker as it was made")
        return checksum, num_steps

    def begin_after(self, num_steps: int) -> None:
        """Let so many steps have been made, and no gradient be accumulated."""
        self.num_steps = num_steps
        self.gradients.zero_()

    def weights_hash(self) -> str:
        """Return 16 hexadecimal digits that are equal if and only if the weights are, bit for bit."""
        return hash_of(to_bytes(self.weights))

    def state_hash(self) -> str:
        """Return 16 hexadecimal digits that are equal if and only if the saved states are."""
        return hash_of(self.state())

    def _check(self, flat: "Tensor", what: str) -> None:
        if flat.shape != self.weights.shape or flat.dtype != self.weights.dtype:
            raise ValueError(
                f"{what} must be {self.weights.numel()} values of {self.weights.dtype} in one row, "
                f"not {tuple(flat.shape)} of {flat.dtype}"
            )


def hash_of(data: bytes) -> str:
    """Return 16 hexadecimal digits of weights or of a saved state."""
    return hashlib.sha256(data).hexdigest()[:HASH_LENGTH]


def to_bytes(tensor: "Tensor") -> bytes:
    """Return the values of a tensor of any number format as they lie in memory."""
    import torch

    # By way of bytes, because numpy has no bfloat16.
    return bytes(tensor.contiguous().view(torch.uint8).cpu().numpy().tobytes())
