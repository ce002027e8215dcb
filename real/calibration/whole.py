"""A whole stage as a peer runs it: forward, backward whole and in halves, recompute, and optimizer step."""

from collections.abc import Collection
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from orionbed.training.shape import ModelShape
from real.calibration.measure import Mark, Timed, Times
from real.calibration.pieces import OPTIMIZER

if TYPE_CHECKING:
    from torch import Tensor

PLAIN: Final = ("forward", "backward")
HALVES: Final = ("forward_again", "input_gradient", "weight_gradient")
RECOMPUTE: Final = ("forward_without_graph", "backward_with_recompute")
STEP: Final = ("step",)
ALL: Final = (PLAIN, HALVES, RECOMPUTE, STEP)


class WholeStage:
    """One chunk of the model on a device, with its weights, gradients and moments."""

    def __init__(self, shape: ModelShape, chunk: int, device: str) -> None:
        import torch

        from orionbed.training.worker import StageWorker

        self.chunk = chunk
        self.shape = replace(shape, recompute=False)
        self.worker = StageWorker(self.shape, [chunk], seed=0, optimizer=OPTIMIZER, device=device)
        entering, leaving = (torch.randn(shape.boundary_shape, device=device).to(shape.torch_dtype) for _ in range(2))
        self._inputs: Tensor | None = entering if chunk else None
        self._gradient: Tensor | None = None if shape.is_last(chunk) else leaving

    def timed(self, name: str, passes: Collection[tuple[str, ...]] = ALL) -> Timed:
        """Return what is to be timed: a round of the passes, in the order above; those of `PLAIN` always are there."""
        wanted = [group for group in ALL if group in passes or group == PLAIN]
        return Timed(name, tuple(section for group in wanted for section in group), partial(self._round, wanted))

    def _round(self, passes: Collection[tuple[str, ...]], mark: Mark) -> None:
        mark()
        self._forward(mark)
        self.worker.backward(self.chunk, 0, self._gradient)
        mark()
        if HALVES in passes:
            self._forward(mark)
            self.worker.backward_input(self.chunk, 0, self._gradient)
            mark()
            self.worker.backward_weight(self.chunk, 0)
            mark()
        if RECOMPUTE in passes:
            self.worker.shape = replace(self.shape, recompute=True)
            self._forward(mark)
            self.worker.backward(self.chunk, 0, self._gradient)
            self.worker.shape = self.shape
            mark()
        if STEP in passes:
            self.worker.step(1)
            mark()

    def _forward(self, mark: Mark) -> None:
        self.worker.forward(self.chunk, 0, self._inputs)
        mark()


def one_microbatch(times: Times) -> list[float]:
    """Return the seconds of forward, backward and, where it was timed, optimizer step, repetition by repetition."""
    parts = [times[section] for section in ("forward", "backward", "step") if section in times]
    return [sum(each) for each in zip(*parts, strict=True)]


def recompute_factor(times: Times) -> list[float]:
    """Return what recompute adds to the backward, in forwards, repetition by repetition."""
    rows = zip(times["backward_with_recompute"], times["backward"], times["forward"], strict=True)
    return [(with_it - without) / forward for with_it, without, forward in rows]
