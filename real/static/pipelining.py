"""torch's own pipelining runtime, made to run an `Order`: the only file that knows what in it is private.

Derives from torch's classes: everybody imports this file late. Tested with one version of torch, which it insists on.
"""

import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor, nn
from torch.distributed.pipelining import PipelineStage, schedules
from torch.distributed.pipelining.schedules import _PipelineScheduleRuntime

from orionbed.backends import BackendError
from orionbed.pinned import TORCH
from orionbed.schedule.actions import Kind
from orionbed.schedule.order import Order
from orionbed.schedule.text import to_csv
from orionbed.training.layers import weight_gradient
from orionbed.training.shape import ModelShape
from real.static.message_order import in_same_order
from real.static.modules import PipelinedChunk

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

    from orionbed.training.layers import Deferral

Timed = Callable[[Kind, int, int], AbstractContextManager[None]]
"""Given kind, chunk and micro-batch: what an operation is done inside of, to be timed."""

_OUT_OF_ORDER: Final = (
    "real.defer_receives was left out: with this schedule, torch would receive activations and gradients that travel "
    "between the same two stages in another order than they are sent, and take one for another."
)
_RELEASE: Final = TORCH.rpartition(".")[0]


class TimedStage(PipelineStage):
    """A chunk in torch's runtime. Its operations are timed, and it puts off weight gradients itself.

    torch's own way to halve a backward would do a recompute once more for every group of parameters. Instead the whole
    backward runs in I, in which linear layers leave out the gradients of their weights; W is what they left. What is
    sent is known before the first step, so no pass is made to find out. The last chunk returns its loss.
    """

    def __init__(
        self, module: PipelinedChunk, chunk: int, shape: ModelShape, *,
        device: torch.device, group: "ProcessGroup | None", timed: Timed,
    ) -> None:  # fmt: skip
        crossing = torch.empty(shape.boundary_shape, dtype=shape.torch_dtype, device="meta", requires_grad=True)
        tokens = torch.empty((shape.sequences, shape.sequence), dtype=torch.int64, device="meta")
        loss = torch.empty((), dtype=shape.torch_dtype, device="meta", requires_grad=True)
        super().__init__(
            module,
            chunk,
            shape.num_chunks,
            device,
            input_args=tokens if chunk == 0 else crossing,
            output_args=loss if shape.is_last(chunk) else crossing,
            group=group,
            dw_builder=self._what_is_left,
        )
        self.targets: Sequence[Tensor] = ()
        self.losses: dict[int, Tensor] = {}
        self._deferral: Deferral = module.deferral
        self._timed = timed
        self._left: list[tuple[nn.Parameter, Tensor, Tensor]] = []

    def forward_one_chunk(
        self,
        fwd_chunk_id: int,
        args: tuple[Any, ...],
        kwargs: dict[str, Any] | None = None,
        save_forward_output: bool = True,  # noqa: FBT001, FBT002 - torch's signature
    ) -> Any:
        """Do F."""
        if self.is_last:
            kwargs = {"targets": self.targets[fwd_chunk_id]}
        with self._timed("F", self.stage_index, fwd_chunk_id):
            output = super().forward_one_chunk(fwd_chunk_id, args, kwargs, save_forward_output)
        if self.is_last:
            self.losses[fwd_chunk_id] = output.detach()
        return output

    def backward_one_chunk(
        self,
        bwd_chunk_id: int,
        loss: Tensor | None = None,
        full_backward: bool = True,  # noqa: FBT001, FBT002 - torch's signature
        last_backward: bool = False,  # noqa: FBT001, FBT002
    ) -> None:
        """Do B, or I when it is not the full backward."""
        if self.is_last:
            (loss,), _ = self.fwd_cache[bwd_chunk_id]
        with self._timed("B" if full_backward else "I", self.stage_index, bwd_chunk_id), ExitStack() as stack:
            self._left = [] if full_backward else stack.enter_context(self._deferral.collecting())
            super().backward_one_chunk(bwd_chunk_id, loss, full_backward, last_backward)

    def backward_weight_one_chunk(self, bwd_chunk_id: int, last_backward: bool = False) -> None:  # noqa: FBT001, FBT002
        """Do W."""
        with self._timed("W", self.stage_index, bwd_chunk_id):
            super().backward_weight_one_chunk(bwd_chunk_id, last_backward)

    def _what_is_left(self) -> Callable[[], None]:
        """Return what is to be called for the weights, after the backward that has just been done."""
        return partial(_accumulate, self._left)


def _accumulate(left: list[tuple[nn.Parameter, Tensor, Tensor]]) -> None:
    while left:  # so that each tensor is freed as soon as it has been used
        weight, inputs, gradient = left.pop()
        assert weight.grad is not None, "gradients are views of one flat tensor"
        weight.grad.add_(weight_gradient(inputs, gradient))


class _Runtime(_PipelineScheduleRuntime):
    """torch's runtime without its list of losses, which takes for granted that forwards come in ascending order."""

    def _maybe_compute_loss(self, *_args: Any, **_kwargs: Any) -> None:
        """The last chunk has computed it."""

    def _maybe_get_loss(self, *_args: Any, **_kwargs: Any) -> None:
        """The last chunk has kept it."""


class Pipeline:
    """One process's part of a pipeline: the chunks that it holds, and the list of what it does with them.

    `warning` says what was asked for and could not be had, if anything.
    """

    def __init__(self, stages: Sequence[TimedStage], runtime: _Runtime, warning: str | None = None) -> None:
        self.stages = tuple(stages)
        self.warning = warning
        self._runtime = runtime

    def run(self, tokens: "Sequence[Tensor] | None", targets: Sequence[Tensor]) -> list[tuple[int, Tensor]]:
        """Do the whole list once; return the loss of each micro-batch, where the last chunk is held.

        `tokens` of all micro-batches are for the process that holds chunk 0, `targets` for the last chunk's; each is
        (sequences, sequence). Gradients are added to what parameters hold, as sums over micro-batches.
        """
        for stage in self.stages:
            stage.targets = targets
            stage.losses.clear()
        inputs = () if tokens is None else (torch.cat(list(tokens)),)
        self._runtime.step(*inputs, return_outputs=False)
        return sorted((microbatch, loss) for stage in self.stages for microbatch, loss in stage.losses.items())


def make_pipeline(
    order: Order,
    chunks: Mapping[int, PipelinedChunk],
    shape: ModelShape,
    *,
    group: "ProcessGroup | None",
    device: torch.device,
    timed: Timed,
    defer_receives: bool,
) -> Pipeline:
    """Return this process's part of a pipeline whose stages are the ranks of `group`, in order.

    `chunks` are those that it holds. Receives are posted as early as they can be, or with `defer_receives` as late,
    unless they would then take one another's messages.

    Raises:
        BackendError: this torch is not the one that the runtime was tested with.

    """
    check_version(torch.__version__)
    # When a process is lost it would print the lists of all stages; the supervisor says what was lost, and when.
    logging.getLogger(schedules.__name__).setLevel(logging.CRITICAL)
    stages = [TimedStage(chunks[c], c, shape, device=device, group=group, timed=timed) for c in sorted(chunks)]
    runtime = _make_runtime(order, stages, defer_receives=defer_receives)
    if in_same_order(runtime.pipeline_order_with_comms, order.stage_of):
        return Pipeline(stages, runtime)
    if not defer_receives:
        raise BackendError(f"torch {torch.__version__} has receives of this schedule in another order than sends")
    return Pipeline(stages, _make_runtime(order, stages, defer_receives=False), _OUT_OF_ORDER)


def _make_runtime(order: Order, stages: Sequence[TimedStage], *, defer_receives: bool) -> _Runtime:
    runtime = _Runtime(  # type: ignore[no-untyped-call]
        list(stages),
        n_microbatches=order.num_microbatches,
        loss_fn=_loss_of_nothing,
        scale_grads=False,
        defer_pp_recv=defer_receives,
    )
    with tempfile.NamedTemporaryFile("w", suffix=".csv", encoding="utf-8") as file:
        file.write(to_csv(order))
        file.flush()
        runtime._load_csv(file.name, format="compute_only")  # noqa: SLF001 - there is no other way to give it an order
    return runtime


def check_version(found: str) -> None:
    """Raise BackendError unless `found` is a version of torch whose private parts are known to be as they are here."""
    if not found.startswith(f"{_RELEASE}."):
        raise BackendError(
            f"static schedules run on private parts of torch {_RELEASE}, and this is torch {found}: "
            f"pip install torch=={TORCH}"
        )


def _loss_of_nothing(_output: Tensor, _target: Tensor) -> Tensor:
    """Stand for a loss function: torch does backwards only where it is given one."""
    raise AssertionError("the last chunk computes its loss itself")
