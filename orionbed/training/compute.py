"""Operations of a schedule on real tensors: what a peer's loop asks for, in bytes, and what torch does for it."""

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from orionbed.scenario.training import InnerOptimizer
from orionbed.schedule.actions import Kind
from orionbed.training.data import Batches
from orionbed.training.parameters import to_bytes
from orionbed.training.shape import ModelShape

if TYPE_CHECKING:
    from torch import Tensor


Body = Any
"""A tensor on its way between peers: bytes, or whatever else a codec and a transport have agreed on."""


class Codec(Protocol):
    """Makes what travels of a boundary tensor, and a tensor of what has come, on the device of the model."""

    def outgoing(self, tensor: "Tensor") -> Body:
        """Return what the transport takes."""

    def incoming(self, body: Body) -> "Tensor":
        """Return the tensor of a body that came, or that this peer sent to itself."""


class Copying:
    """Bytes of their own on both sides; what is filled up behind them is left out."""

    def __init__(self, shape: ModelShape, device: str) -> None:
        self._shape, self._device = shape, device

    def outgoing(self, tensor: "Tensor") -> bytes:
        return to_bytes(tensor)

    def incoming(self, body: bytes) -> "Tensor":
        import torch

        whole = torch.frombuffer(bytearray(body[: self._shape.boundary_bytes]), dtype=self._shape.boundary_dtype)
        return whole.to(self._device).view(self._shape.boundary_shape)


class Compute:
    """One peer's pieces of the model. Tensors come and go through `codec`, by default as bytes in the shape's format.

    `spent_s` adds up the seconds of operations by kind, `num_done` counts them; `timer` says which seconds: by default
    those of the processor. With `fused_last` the last chunk's B is forward, loss and backward in one go, as at the last
    stage of a queue-driven pipeline.
    """

    def __init__(
        self,
        shape: ModelShape,
        chunks: Sequence[int],
        *,
        seed: int,
        optimizer: InnerOptimizer,
        batches: Batches | None = None,
        fused_last: bool,
        device: str = "cpu",
        timer: Callable[[], float] = time.thread_time,
        codec: Codec | None = None,
    ) -> None:
        from orionbed.training.worker import StageWorker

        self.shape = shape
        self.chunks = tuple(chunks)
        self.worker: StageWorker = StageWorker(
            shape, chunks, seed=seed, optimizer=optimizer, batches=batches, device=device
        )
        self._timer = timer
        self._codec: Codec = Copying(shape, device) if codec is None else codec
        self.spent_s: dict[Kind, float] = {}
        self.num_done: dict[Kind, int] = {}
        self.last_s = 0.0
        self._fused = fused_last
        self._last = shape.num_chunks - 1

    def run(self, kind: Kind, chunk: int, microbatch: int, body: Body) -> Body:
        """Do one operation; `body` is the tensor that came for it, the result is the one that goes on."""
        started_s = self._timer()
        result = self._run(kind, chunk, microbatch, None if body is None else self._codec.incoming(body))
        self.last_s = self._timer() - started_s
        self.spent_s[kind] = self.spent_s.get(kind, 0.0) + self.last_s
        self.num_done[kind] = self.num_done.get(kind, 0) + 1
        return None if result is None else self._codec.outgoing(result)

    def _run(self, kind: Kind, chunk: int, microbatch: int, tensor: "Tensor | None") -> "Tensor | None":
        worker = self.worker
        if kind == "F":
            return worker.forward(chunk, microbatch, tensor)
        if kind == "B":
            if self._fused and chunk == self._last:
                return worker.forward_backward(chunk, microbatch, tensor)
            return worker.backward(chunk, microbatch, tensor)
        if kind == "I":
            return worker.backward_input(chunk, microbatch, tensor)
        assert kind == "W"
        worker.backward_weight(chunk, microbatch)
        return None

    def step(self, num_microbatches: int) -> None:
        """Take an optimizer step with the mean gradient of so many micro-batches."""
        started_s = self._timer()
        self.worker.step(num_microbatches)
        self.last_s = self._timer() - started_s
        self.spent_s["STEP"] = self.spent_s.get("STEP", 0.0) + self.last_s
        self.num_done["STEP"] = self.num_done.get("STEP", 0) + 1

    def take_loss(self, microbatch: int) -> float | None:
        """Return the loss of a micro-batch once, where this peer holds the last piece and has computed it."""
        return self.worker.take_loss(microbatch) if microbatch in self.worker.losses else None

    def weights(self) -> bytes:
        """Return all weights as bytes of their number format."""
        return to_bytes(self.worker.weights())

    def load_weights(self, body: bytes) -> None:
        """Take over weights that `weights` gave, perhaps averaged with others'."""
        self.worker.load_weights(self._flat(body))

    def gradients(self) -> bytes:
        """Return the accumulated gradients."""
        return to_bytes(self.worker.gradients())

    def load_gradients(self, body: bytes) -> None:
        """Replace the accumulated gradients."""
        self.worker.set_gradients(self._flat(body))

    def forget_times(self) -> None:
        """Count and time operations anew, as after a warm-up."""
        self.spent_s.clear()
        self.num_done.clear()

    def _flat(self, body: bytes) -> "Tensor":
        return from_bytes(body, self.shape, self.worker.device)


def from_bytes(body: bytes, shape: ModelShape, device: str) -> "Tensor":
    """Return values in a shape's number format, in one row on a device."""
    import torch

    return torch.frombuffer(bytearray(body), dtype=shape.torch_dtype).to(device)
