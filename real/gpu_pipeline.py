"""Does a pipeline compute on one GPU what the plain model computes? `python -m real.gpu_pipeline` says, unattended.

All stages are processes on the same GPU. NCCL refuses two ranks on one GPU, and gloo sends and receives tensors of the
host only; so boundary tensors cross over the transport of the internet, which copies them through pinned memory. What
is compared is the mean gradient of a step, before the optimizer could blur it, and the losses.
"""

import argparse
import multiprocessing
import os
import secrets
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from orionbed.backends import BackendError
from orionbed.fleet.parents import die_with_parent
from orionbed.scenario.schedules import ResBMBoundary
from orionbed.scenario.training import InnerOptimizer
from orionbed.schedule.catalogue import ENTRIES, Wanted, chunks_of
from orionbed.schedule.order import Order
from orionbed.schedule.timing import equal_times
from orionbed.training import data
from orionbed.training.shape import ModelShape
from real.calibration.table import Table
from real.devices import Device
from real.settings import DeviceKind
from real.static.training import PipelineTraining

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributed import ProcessGroup

    from real.static.modules import Recompute

WIDE: Final = ModelShape((1,), 1024, 2816, 8, 2, 4096, 512, 1, ResBMBoundary(kind="resbm", width=64))
TINY: Final = ModelShape((1,), 32, 48, 4, 2, 64, 8, 2, ResBMBoundary(kind="resbm", width=6))
TOLERANCE: Final = {"float32": 1e-4, "bfloat16": 3e-2}
"""Largest difference relative to the size of what is compared: some hundred roundings of the format."""
SEED: Final = 0
PATIENCE_S: Final = 480.0


@dataclass(frozen=True, slots=True)
class Case:
    """One pipeline to be held against the plain model."""

    schedule: str
    dtype: str
    recompute: "Recompute"

    @property
    def title(self) -> str:
        """The case in words."""
        return f"{self.schedule} {self.dtype} recompute {self.recompute}"


CASES: Final = (
    Case("gpipe", "float32", "none"),
    Case("1f1b", "float32", "none"),
    Case("1f1b", "float32", "selective"),
    Case("1f1b", "float32", "full"),
    Case("interleaved-1f1b", "float32", "none"),
    Case("zb-h1", "float32", "full"),
    Case("zb-v", "float32", "none"),
    Case("dualpipe-v", "float32", "none"),
    Case("1f1b", "bfloat16", "full"),
    Case("zb-h1", "bfloat16", "full"),
    Case("zb-v", "bfloat16", "selective"),
)


@dataclass(frozen=True, slots=True)
class Found:
    """What one stage found: relative differences, and the seconds of the step.

    `control` is the difference of the gradient to a plain model that lacks the last micro-batch: were it small, the
    comparison would see nothing.
    """

    gradient: float
    loss: float
    control: float
    step_s: float


@dataclass(frozen=True, slots=True)
class Place:
    """Which stage a process is, of how many, on what, and where they meet."""

    stage: int
    num_stages: int
    device: DeviceKind
    store: str
    token: bytes
    parent: int


def order_of(case: Case, num_stages: int) -> Order:
    """Return the order of a case, with two micro-batches per stage."""
    times = equal_times(num_stages * chunks_of(case.schedule, 2), 1.0, 1.0, 1.0)
    return ENTRIES[case.schedule].make(Wanted(num_stages, 2 * num_stages, times))


def be_stage(place: Place, shape: ModelShape, cases: Sequence[Case], told: Connection) -> None:
    """Run all cases as one of the processes; tell what was found of each, or why it failed."""
    import torch.distributed as dist

    from orionbed.transport.group import BACKEND, register

    die_with_parent(place.parent)
    try:
        device = Device.choose(place.device, 0, threads=1)
        dist.init_process_group(
            "gloo", init_method=f"file://{place.store}", rank=place.stage, world_size=place.num_stages
        )
        register(place.token)
        group = dist.new_group(backend=BACKEND)
        for case in cases:
            told.send(hold_against_plain(case, place, device, shape, group))
        dist.destroy_process_group()
    except Exception as error:  # noqa: BLE001 - it is told, and ends the run
        told.send(f"stage {place.stage}: {type(error).__name__}: {error}")


def hold_against_plain(
    case: Case, place: Place, device: Device, shape: ModelShape, group: "ProcessGroup | None"
) -> Found:
    """Do a step for practice and one to compare; return how far this stage's part of it is off."""
    order = order_of(case, place.num_stages)
    shape = replace(shape, layers_per_chunk=(1,) * order.num_chunks, dtype=case.dtype)
    training = PipelineTraining(
        shape, order, stage=place.stage, replica=0, num_replicas=1, pipeline_group=group, replica_group=None,
        device=device, seed=SEED, optimizer=InnerOptimizer(kind="sgd", learning_rate=1e-30), recompute=case.recompute,
    )  # fmt: skip
    training.step(0)
    began_s = time.perf_counter()
    losses = training.accumulate(1)
    device.synchronise()
    step_s = time.perf_counter() - began_s
    expected, lacking, expected_losses = _plain(shape, order, device, training.chunks)
    of_losses = [abs(loss - expected_losses[m]) / abs(expected_losses[m]) for m, loss in losses]
    found = training.flat.gradients
    return Found(_relative(found, expected), max(of_losses, default=0.0), _relative(found, lacking), step_s)


def _plain(
    shape: ModelShape, order: Order, device: Device, chunks: Sequence[int]
) -> "tuple[Tensor, Tensor, list[float]]":
    """Return gradients of some chunks of step 1, the same without its last micro-batch, and losses, of the plain model.

    It is computed on the same device.
    """
    import torch

    from orionbed.training.modules import make_chunk

    modules = [make_chunk(shape, chunk, SEED, device.name) for chunk in range(shape.num_chunks)]
    losses, gradients = [], torch.zeros(())
    for number in range(order.num_microbatches, 2 * order.num_microbatches):
        lacking = gradients
        crossing, targets = (each.to(device.name) for each in data.batch(shape, SEED, number))
        for module in modules:
            crossing = module(crossing, targets)
        torch.autograd.backward(crossing)
        losses.append(crossing.item())
        gradients = torch.cat([_gradient(each) for chunk in chunks for each in modules[chunk].parameters()])
    return gradients, lacking, losses


def _gradient(parameter: "Tensor") -> "Tensor":
    assert parameter.grad is not None, "every parameter has a part in the loss"
    return parameter.grad.flatten()


def _relative(found: "Tensor", expected: "Tensor") -> float:
    return float((found.double() - expected.double()).norm() / expected.double().norm())


def compare(
    device: DeviceKind, num_stages: int, shape: ModelShape, table: Table, *, patience_s: float = PATIENCE_S
) -> None:
    """Start the processes, and add a line per case as all of them have told of it.

    Raises:
        BackendError: a process failed, or nobody told anything for too long.

    """
    with tempfile.TemporaryDirectory(prefix="orionbed-pipeline-") as folder:
        store, token, parent = str(Path(folder) / "store"), secrets.token_bytes(16), os.getpid()
        context = multiprocessing.get_context("spawn")
        ends: list[Connection] = []
        processes = []
        try:
            for stage in range(num_stages):
                ours, theirs = context.Pipe(duplex=False)
                place = Place(stage, num_stages, device, store, token, parent)
                process = context.Process(target=be_stage, args=(place, shape, CASES, theirs), daemon=True)
                process.start()
                theirs.close()
                ends.append(ours)
                processes.append(process)
            until_s = time.monotonic() + patience_s
            for case in CASES:
                _judge(case, _next_of_each(ends, until_s), table)
            for process in processes:
                process.join(timeout=20.0)
        finally:
            for process in processes:
                process.kill()
                process.join()
            for end in ends:
                end.close()


def _next_of_each(ends: Sequence[Connection], until_s: float) -> list[Found]:
    """Return what each process tells next."""
    told: dict[Any, Found] = {}
    while len(told) < len(ends):
        waiting = [end for end in ends if end not in told]
        ready = wait(waiting, timeout=max(0.0, until_s - time.monotonic()))
        if not ready:
            raise BackendError(f"nothing came of {len(waiting)} processes in the time there was")
        for end in ready:
            assert isinstance(end, Connection)
            answer: Any = "a process ended before it was done"
            with suppress(EOFError):
                answer = end.recv()
            if isinstance(answer, str):
                raise BackendError(answer)
            told[end] = answer
    return [told[end] for end in ends]


def _judge(case: Case, found: Sequence[Found], table: Table) -> None:
    gradient, loss = max(each.gradient for each in found), max(each.loss for each in found)
    control, step_s = min(each.control for each in found), max(each.step_s for each in found)
    limit = TOLERANCE[case.dtype]
    verdict = "" if max(gradient, loss) <= limit < control else ": FAILED"
    table.add(
        f"{case.title}{verdict}",
        f"gradients off by {gradient:.1e}, losses by {loss:.1e} (limit {limit:.0e}; a micro-batch left out: "
        f"{control:.1e}); step {step_s * 1e3:.1f} ms",
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script; return 0 when every pipeline agrees with the plain model, else 1."""
    parser = argparse.ArgumentParser(prog="python -m real.gpu_pipeline", description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--stages", type=int, default=4, help="processes, at least 2")
    parser.add_argument("--tiny", action="store_true", help="a model of width 32, to try the script")
    options = parser.parse_args(arguments)
    if options.stages < 2:
        parser.error("--stages must be at least 2")
    table, began_s = Table(), time.monotonic()
    table.attempt("device", lambda: _introduce(options.device, table))
    shape = TINY if options.tiny else WIDE
    table.attempt("pipelines", lambda: compare(options.device, options.stages, shape, table))
    table.add("took", f"{time.monotonic() - began_s:.0f} s")
    table.print()
    return int(any("FAILED" in what for what, _ in table.rows))


def _introduce(kind: DeviceKind, table: Table) -> None:
    told = Device.choose(kind, 0, threads=1).describe()
    table.add("device", f"{told['name']}, {told['memory_bytes'] / 1e9:.1f} GB, {told['clocks']}, torch {told['torch']}")


if __name__ == "__main__":
    sys.exit(main())
