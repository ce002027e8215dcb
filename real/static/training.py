"""Training with a static schedule, seen from one process: step after step through torch's pipelining runtime."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from orionbed.scenario.training import InnerOptimizer
from orionbed.schedule.actions import Action, Kind
from orionbed.schedule.order import Order
from orionbed.training.data import Batches, synthetic
from orionbed.training.parameters import FlatParameters
from orionbed.training.shape import ModelShape
from real.devices import Device
from real.static.reports import Operation, StepReport

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributed import ProcessGroup

    from real.static.modules import Recompute

Clock = Callable[[], float]
Doing = Callable[[str], None]


class Stopwatch:
    """Notes when each operation began and ended, on the device and not where it was asked for."""

    def __init__(self, device: Device, clock: Clock) -> None:
        self.operations: list[Operation] = []
        self.doing: Doing = lambda _action: None
        self._device, self._clock = device, clock

    @contextmanager
    def timed(self, kind: Kind, chunk: int, microbatch: int) -> Iterator[None]:
        """Time an operation, which is what is done in this block."""
        self.doing(str(Action(kind, chunk, microbatch)))
        start_s = self.now_s()
        yield
        self.operations.append(Operation(kind, chunk, microbatch, start_s, self.now_s()))

    def now_s(self) -> float:
        """Return the second at which the device has done all that it was asked to."""
        self._device.synchronise()
        return self._clock()


class PipelineTraining:
    """The chunks of one stage of one replica, in training.

    `pipeline_group` joins the stages of the replica, rank by rank; `replica_group`, if there is one, the replicas of
    the stage, which then make one step with the mean gradient of all. Micro-batch m of step n is number
    (n M + m) num_replicas + replica of the run, and its data follow from that. `flat` has weights, gradients and
    optimizer state, `warnings` what was asked for and could not be had.
    """

    def __init__(
        self,
        shape: ModelShape,
        order: Order,
        *,
        stage: int,
        replica: int,
        num_replicas: int,
        pipeline_group: "ProcessGroup | None",
        replica_group: "ProcessGroup | None",
        device: Device,
        seed: int,
        optimizer: InnerOptimizer,
        recompute: "Recompute",
        batches: Batches | None = None,
        clock: Clock = time.monotonic,
        compile_blocks: bool = False,
        defer_receives: bool = False,
    ) -> None:
        from orionbed.training.modules import make_chunk
        from real.static.modules import PipelinedChunk, compile_layers
        from real.static.pipelining import make_pipeline

        self.shape, self.order = shape, order
        self.chunks = held_by(order, stage)
        self.receive_buffer_bytes = receive_buffer_bytes(order, stage, shape)
        self._replica, self._num_replicas, self._replica_group = replica, num_replicas, replica_group
        self._device = device
        self._batches = batches or synthetic(shape, seed)
        self._watch = Stopwatch(device, clock)
        modules = {chunk: make_chunk(shape, chunk, seed, device.name) for chunk in self.chunks}
        self.flat = FlatParameters(shape, self.chunks, list(modules.values()), optimizer)
        pieces = {chunk: PipelinedChunk(module, recompute) for chunk, module in modules.items()}
        found: set[str | None] = set()
        if compile_blocks:
            splits = order.splits_backward
            found = {compile_layers(module, shape, splits_backward=splits) for module in modules.values()}
        self.pipeline = make_pipeline(
            order,
            pieces,
            shape,
            group=pipeline_group,
            device=device.as_torch,
            timed=self._watch.timed,
            defer_receives=defer_receives,
        )
        self.warnings = sorted(warning for warning in found | {self.pipeline.warning} if warning is not None)

    def step(self, number: int, doing: Doing = lambda _action: None) -> StepReport:
        """Do step `number`, counted from 0, whole; `doing` is told what is being done as it changes."""
        self._watch.doing = doing
        self._watch.operations = []
        losses = self.accumulate(number)
        sync_s = self.agree()
        self.apply()
        return StepReport(number, tuple(self._watch.operations), sync_s, losses)

    def accumulate(self, number: int) -> tuple[tuple[int, float], ...]:
        """Do forwards and backwards of a step; return micro-batches and losses where the last chunk is held."""
        tokens, targets = self._draw(number)
        losses = self.pipeline.run(tokens if 0 in self.chunks else None, targets)
        return tuple((microbatch, loss.item()) for microbatch, loss in losses)

    def agree(self) -> tuple[float, float] | None:
        """Sum the gradients over the replicas, if they agree; return when that began and ended."""
        if self._replica_group is None:
            return None
        import torch.distributed as dist

        self._watch.doing("agreeing with the other replicas")
        start_s = self._watch.now_s()
        dist.all_reduce(self.flat.gradients, group=self._replica_group)
        return start_s, self._watch.now_s()

    def apply(self) -> None:
        """Make the optimizer step, with the mean gradient."""
        replicas = 1 if self._replica_group is None else self._num_replicas
        with self._watch.timed("STEP", self.chunks[0], -1):
            self.flat.step(self.order.num_microbatches * replicas)

    def _draw(self, number: int) -> "tuple[list[Tensor], list[Tensor]]":
        """Return tokens and targets of a step's micro-batches; nothing at stages that need neither."""
        if 0 not in self.chunks and self.shape.num_chunks - 1 not in self.chunks:
            return [], []
        count = self.order.num_microbatches
        numbers = [(number * count + m) * self._num_replicas + self._replica for m in range(count)]
        drawn = [self._batches(each) for each in numbers]
        tokens, targets = ([pair[i].to(self._device.name, non_blocking=True) for pair in drawn] for i in (0, 1))
        return tokens, targets


def held_by(order: Order, stage: int) -> tuple[int, ...]:
    """Return the chunks that a stage holds."""
    return tuple(chunk for chunk, holder in enumerate(order.stage_of) if holder == stage)


def receive_buffer_bytes(order: Order, stage: int, shape: ModelShape) -> int:
    """Return the bytes of boundary tensors that torch's runtime holds at the end of a step.

    It has a buffer for the input and one for the output gradient of every micro-batch in every chunk, from the first
    step on, and keeps what it has sent until the step is over. What goes from chunk to chunk of one stage takes the
    place of the receiver's buffer.
    """
    held, last = held_by(order, stage), order.num_chunks - 1
    neighbours = [each for chunk in held for each in (chunk - 1, chunk + 1) if 0 <= each <= last]
    num_sent = sum(order.stage_of[each] != stage for each in neighbours)
    return (len(neighbours) + num_sent) * order.num_microbatches * shape.boundary_bytes
