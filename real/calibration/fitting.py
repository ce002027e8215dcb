"""What fits a GPU's memory, by arithmetic before anything is tried."""

from dataclasses import dataclass, replace
from typing import Final

from orionbed.training.shape import BYTES_PER_VALUE, ModelShape, parameters_of
from real.calibration.devices import FoundDevice
from real.calibration.whole import HALVES, PLAIN, RECOMPUTE, STEP
from real.settings import DeviceKind

MOST_OF_MEMORY: Final = 0.8
TENSORS_OF_STATE: Final = 4
"""Weights, gradients and two moments."""


@dataclass(frozen=True, slots=True)
class Room:
    """Bytes that are free, and what the graph of one layer keeps between forward and backward, measured."""

    free_bytes: int
    kept_per_layer: int

    def states_bytes(self, shape: ModelShape, chunk: int, *, tensors: int = TENSORS_OF_STATE) -> int:
        """Return the bytes of weights, gradients and moments of a stage."""
        return tensors * BYTES_PER_VALUE[shape.dtype] * parameters_of(shape, chunk)

    def needed_bytes(self, shape: ModelShape, chunk: int, *, halves: bool) -> int:
        """Return what a stage needs: states, the graph of all its layers, and one layer's gradients on their way.

        Halves keep the gradients of all outputs of matrices until the weight half has used them.
        """
        layers = shape.layers_per_chunk[chunk]
        kept = self.kept_per_layer * (layers + 1)
        if shape.is_last(chunk):
            # Logits and their gradient, and the fp32 copies of both that the loss is computed with.
            kept += 2 * shape.tokens * shape.vocab * (BYTES_PER_VALUE[shape.dtype] + 4)
        return self.states_bytes(shape, chunk) + kept + (layers * output_gradients_bytes(shape) if halves else 0)

    def passes(self, shape: ModelShape, chunk: int) -> tuple[tuple[str, ...], ...]:
        """Return the passes of a whole stage that fit; none where not even forward and backward do.

        Full recompute of a stage needs no more than a backward without, since its forward is all there again.
        """
        if self.needed_bytes(shape, chunk, halves=False) > self.free_bytes:
            return ()
        if self.needed_bytes(shape, chunk, halves=True) > self.free_bytes:
            return PLAIN, RECOMPUTE, STEP
        return PLAIN, HALVES, RECOMPUTE, STEP

    def policy_fits(self, shape: ModelShape, layers: int, policy: str) -> bool:
        """Whether layers with weights and gradients alone fit under a recompute policy."""
        alone = replace(shape, layers_per_chunk=(0, layers, 0), boundary=None)
        states = self.states_bytes(alone, 1, tensors=2)
        stream = shape.tokens * shape.hidden * BYTES_PER_VALUE[shape.dtype]
        # What attention keeps is not counted apart: selective is tried only where keeping everything fits too.
        kept = layers * stream + 2 * self.kept_per_layer if policy == "full" else self.kept_per_layer * (layers + 1)
        return states + kept <= self.free_bytes


def output_gradients_bytes(shape: ModelShape) -> int:
    """Return the bytes of the gradients of what the seven matrices of a layer give, for one micro-batch."""
    narrow = shape.kv_heads * shape.head_width
    return shape.tokens * (3 * shape.hidden + 2 * narrow + 2 * shape.ffn) * BYTES_PER_VALUE[shape.dtype]


def with_layers(shape: ModelShape, chunk: int, layers: int) -> ModelShape:
    """Return the shape with so many layers in one of its chunks."""
    split = tuple(layers if index == chunk else count for index, count in enumerate(shape.layers_per_chunk))
    return replace(shape, layers_per_chunk=split)


def largest_that_fits(room: Room, shape: ModelShape, chunk: int) -> ModelShape:
    """Return the shape with as many of the chunk's layers as fit, at least one."""
    for layers in range(shape.layers_per_chunk[chunk], 1, -1):
        trial = with_layers(shape, chunk, layers)
        if room.passes(trial, chunk):
            return trial
    return with_layers(shape, chunk, 1)


def free_bytes(device: FoundDevice) -> int:
    """Return the memory that is free on the device."""
    if device.kind == "cpu":
        return device.memory_bytes
    import torch

    return int(torch.cuda.mem_get_info()[0])


def reset_peak(kind: DeviceKind) -> None:
    """Begin a new peak of memory."""
    if kind == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()


def peak_bytes(kind: DeviceKind) -> int:
    """Return the most memory that tensors took since `reset_peak`; 0 on a CPU."""
    if kind == "cpu":
        return 0
    import torch

    return int(torch.cuda.max_memory_allocated())
