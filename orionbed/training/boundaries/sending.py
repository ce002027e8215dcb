"""What happens to a tensor at the boundary itself: packing, and what rounding left out, to be sent with the next."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal

from orionbed.training.boundaries.packing import packing_of
from orionbed.training.shape import ModelShape

if TYPE_CHECKING:
    from torch import Tensor

Direction = Literal["F", "B"]
Sender = tuple[int, Direction]
"""The chunk that sends, and whether it sends activations on (F) or gradients back (B)."""


class Boundaries:
    """Packs what the senders of one worker hand over, and unpacks what has come; by default both do nothing.

    With error feedback a sender adds to each tensor what packing left out of the one before, value by value; so the sum
    of what receivers get of it is the sum of what it had to send, but for the last tensor's rounding. Which tensor came
    before depends on the order in which the worker sends.
    """

    def __init__(self, shape: ModelShape) -> None:
        self.shape = shape
        self.packing = packing_of(shape)
        self.residuals: dict[Sender, Tensor] = {}
        self.feeds_back = self.packing is not None and getattr(shape.boundary, "error_feedback", False)

    def send(self, sender: Sender, tensor: "Tensor") -> "Tensor":
        """Return what crosses."""
        if self.packing is None:
            return tensor
        if not self.feeds_back:
            return self.packing.pack(tensor)
        wanted = tensor + self.residuals[sender] if sender in self.residuals else tensor
        packed = self.packing.pack(wanted)
        self.residuals[sender] = wanted - self.packing.unpack(packed)
        return packed

    def receive(self, crossed: "Tensor") -> "Tensor":
        """Return the values of what has crossed, (sequences, sequence, boundary_width)."""
        return crossed if self.packing is None else self.packing.unpack(crossed)

    def flat(self, senders: Iterable[Sender]) -> bytes:
        """Return the residuals of some senders one after the other, zeros for those that have sent nothing."""
        from orionbed.training.parameters import to_bytes

        if not self.feeds_back:
            return b""
        empty = bytes(self._residual_bytes)
        return b"".join(to_bytes(self.residuals[s]) if s in self.residuals else empty for s in senders)

    def load(self, senders: Sequence[Sender], data: bytes, device: str) -> None:
        """Take over what `flat` returned for the same senders.

        Raises:
            ValueError: it is of another length.

        """
        import torch

        expected = len(senders) * self._residual_bytes if self.feeds_back else 0
        if len(data) != expected:
            raise ValueError(f"residuals of boundaries have {len(data)} bytes, and should have {expected}")
        self.residuals.clear()
        if not expected:
            return
        values = torch.frombuffer(bytearray(data), dtype=self.shape.torch_dtype).to(device)
        size = (self.shape.sequences, self.shape.sequence, self.shape.hidden)
        self.residuals |= {
            s: part.view(size).clone() for s, part in zip(senders, values.chunk(len(senders)), strict=True)
        }

    @property
    def _residual_bytes(self) -> int:
        return self.shape.tokens * self.shape.hidden * self.shape.torch_dtype.itemsize


def senders_of(shape: ModelShape, chunks: Sequence[int]) -> list[Sender]:
    """Return who sends among some chunks: activations all but the last, gradients all but the first."""
    forward: list[Sender] = [(chunk, "F") for chunk in chunks if not shape.is_last(chunk)]
    backward: list[Sender] = [(chunk, "B") for chunk in chunks if chunk > 0]
    return forward + backward
