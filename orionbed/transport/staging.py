"""Tensors as bytes on the wire, and back; those on a GPU pass through pinned memory of the host."""

from collections.abc import Callable

import torch
from torch import Tensor

from orionbed.transport.messages import Body


def to_wire(tensor: Tensor) -> tuple[Body, Callable[[], None]]:
    """Return a copy of a tensor's bytes, and what a wait for it must do before the tensor may be written again.

    The copy of one on a GPU is under way when this returns, on a stream of its own; the body waits for it.
    """
    flat = _flat(tensor.detach())
    if not flat.is_cuda:
        return flat.clone().numpy(), _nothing
    host = torch.empty(flat.numel(), dtype=torch.uint8, pin_memory=True)
    compute, side = torch.cuda.current_stream(flat.device), torch.cuda.Stream(flat.device)  # type: ignore[no-untyped-call]
    side.wait_stream(compute)
    done = torch.cuda.Event()  # type: ignore[no-untyped-call]
    with torch.cuda.stream(side):
        host.copy_(flat, non_blocking=True)
        flat.record_stream(side)
        done.record(side)

    def body() -> Body:
        done.synchronize()
        return host.numpy()

    return body, lambda: torch.cuda.current_stream(flat.device).wait_event(done)


def from_wire(body: memoryview, tensor: Tensor) -> None:
    """Write bytes into a tensor; on a GPU in order with its current stream. RuntimeError: another number of bytes."""
    wanted = tensor.numel() * tensor.element_size()
    if len(body) != wanted:
        raise RuntimeError(f"a message of {len(body)} bytes came for a tensor of {wanted}")
    if not wanted:
        return
    came = torch.frombuffer(body, dtype=tensor.dtype).reshape(tensor.shape)
    if tensor.is_cuda:
        came = came.pin_memory()
    with torch.no_grad():
        tensor.copy_(came, non_blocking=True)


def _flat(tensor: Tensor) -> Tensor:
    """Return a tensor's bytes (n,), on its device."""
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def _nothing() -> None:
    """A copy on the CPU is made at once."""
