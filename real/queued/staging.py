"""Boundary tensors on their way between a device and the network, so that neither waits for the other.

On a CPU what travels is the tensor's own memory. On a GPU a result is copied to page-locked memory on a stream of its
own while the next operation computes, and whoever sends it waits for the copy; what comes is copied to the device as it
arrives, and the operation that needs it waits for that on the device.
"""

import threading
import weakref
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Protocol, cast

from orionbed.training.compute import Body, Codec
from orionbed.training.shape import ModelShape

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor
    from torch.cuda import Event


class Staging(Codec, Protocol):
    """A codec that hears of a body as soon as it has come."""

    def arrived(self, body: Body) -> Body:
        """Take in a body that has come, in the thread of the transport; `incoming` is given what this returns."""


def make_staging(shape: ModelShape, device: str) -> Staging:
    """Return the staging for the device of a peer."""
    return SharedMemory(shape) if device == "cpu" else DeviceCopies(shape, device)


class SharedMemory:
    """Tensors and bytes are the same memory, which nobody changes once it has been sent or received."""

    def __init__(self, shape: ModelShape) -> None:
        self._shape = shape

    def outgoing(self, tensor: "Tensor") -> memoryview:
        return bytes_of(tensor.detach())

    def arrived(self, body: Body) -> Body:
        return body

    def incoming(self, body: Body) -> "Tensor":
        return tensor_of(body, self._shape)


class Pool:
    """Buffers of one device's page-locked memory: making one takes long, so each is used again.

    A buffer comes back when the last view of what was taken is gone, whoever holds it.
    """

    def __init__(self, allocate: "Callable[[int], Tensor]") -> None:
        self._allocate = allocate
        self._free: dict[int, list[Tensor]] = defaultdict(list)
        self._lock = threading.RLock()  # a buffer may come back while the same thread takes one
        self.num_made = 0

    def take(self, num_bytes: int) -> "tuple[Tensor, memoryview]":
        """Return a buffer as a tensor, for copies, and as a view that keeps it from being used again."""
        with self._lock:
            free = self._free[num_bytes]
            buffer = free.pop() if free else None
            self.num_made += buffer is None
        if buffer is None:
            buffer = self._allocate(num_bytes)
        array = buffer.numpy()
        weakref.finalize(array, self._give_back, buffer).atexit = False
        return buffer, memoryview(cast(Any, array))

    def _give_back(self, buffer: "Tensor") -> None:
        with self._lock:
            self._free[buffer.numel()].append(buffer)


class Departure:
    """A tensor on its way from the device: called, it waits for the copy and returns the bytes."""

    def __init__(self, view: memoryview, copied: "Event") -> None:
        self._view, self._copied = view, copied

    def __call__(self) -> memoryview:
        self._copied.synchronize()
        return self._view


class Arrival:
    """A tensor that is on the device when `copied` has happened there.

    It must be kept until the operation that uses it has ended, since until then the copy may still be going on.
    """

    def __init__(self, tensor: "Tensor", copied: "Event", view: memoryview) -> None:
        self.tensor, self.copied = tensor, copied
        self._view = view


class DeviceCopies:
    """Copies between a GPU and page-locked memory beside what it computes."""

    def __init__(self, shape: ModelShape, device: str) -> None:
        import torch

        self._shape = shape
        self._device = torch.device(device)
        self._out = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        self._in = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        # One for each way: a copy out that nobody has waited for is followed by others of its own stream only.
        self._out_pool, self._in_pool = Pool(_page_locked), Pool(_page_locked)

    def outgoing(self, tensor: "Tensor") -> Departure:
        import torch

        flat = tensor.detach().contiguous().view(-1).view(torch.uint8)
        self._out.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._out):
            buffer, view = self._out_pool.take(flat.numel())
            buffer.copy_(flat, non_blocking=True)
            copied = self._out.record_event()
        flat.record_stream(self._out)  # else its memory could be used again before it has been copied
        return Departure(view, copied)

    def arrived(self, body: Body) -> Arrival:
        import torch

        with torch.cuda.stream(self._in):  # and on its device, which this thread may know nothing of
            buffer, view = self._in_pool.take(self._shape.boundary_bytes)
            view[:] = memoryview(body).cast("B")
            there = torch.empty(self._shape.boundary_shape, dtype=self._shape.boundary_dtype, device=self._device)
            there.view(-1).view(torch.uint8).copy_(buffer, non_blocking=True)
            copied = self._in.record_event()
        return Arrival(there, copied, view)

    def incoming(self, body: Any) -> "Tensor":
        import torch

        if isinstance(body, Departure):  # to itself
            body = self.arrived(body())
        now = torch.cuda.current_stream(self._device)
        now.wait_event(body.copied)
        body.tensor.record_stream(now)
        found: Tensor = body.tensor
        return found


def _page_locked(num_bytes: int) -> "Tensor":
    import torch

    return torch.empty(num_bytes, dtype=torch.uint8, pin_memory=True)


def bytes_of(tensor: "Tensor") -> memoryview:
    """Return the memory of a tensor on the CPU, of any number format; a copy only if it does not lie in one piece."""
    import torch

    return memoryview(cast(Any, tensor.contiguous().view(-1).view(torch.uint8).numpy()))


def tensor_of(body: Body, shape: ModelShape) -> "Tensor":
    """Return a boundary tensor on a body's own memory; of memory that cannot be written to, on a copy."""
    import torch

    view = memoryview(body)
    writable = bytearray(view) if view.readonly else view
    return torch.frombuffer(writable, dtype=shape.boundary_dtype).view(shape.boundary_shape)
