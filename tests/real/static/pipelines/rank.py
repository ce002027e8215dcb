"""Processes of pipelines under test: each runs the cases that it is told through a pipe, one a line, until it closes.

Importing torch with its pipelining takes many seconds on a busy machine, so it is done once and the processes are
forked after it, once for many cases. Arguments: a file for the rendezvous, and for each rank the descriptors that it
reads from and writes to.
"""

import base64
import json
import os
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

import real.static.pipelining  # noqa: F401 - here, before there are several processes
from orionbed.scenario.schedules import ResBMBoundary
from orionbed.scenario.training import InnerOptimizer
from orionbed.schedule.actions import parse_action
from orionbed.schedule.catalogue import ENTRIES, Wanted, chunks_of
from orionbed.schedule.order import Order, make_order, one_each
from orionbed.schedule.timing import equal_times
from orionbed.training.parameters import to_bytes
from orionbed.training.shape import ModelShape
from real.devices import Device
from real.static.checkpoint import Checkpoints
from real.static.reports import StepReport
from real.static.training import PipelineTraining

_groups: dict[tuple[str, ...], Any] = {}


def order_of(case: dict[str, Any], num_stages: int) -> Order:
    """Return the order of a case."""
    if "lists" in case:
        return make_order([map(parse_action, row.split()) for row in case["lists"]], one_each(num_stages))
    name = case["schedule"]
    count = num_stages * chunks_of(name, 2)
    times = equal_times(count, 1.0, 1.0, 1.0)
    return ENTRIES[name].make(Wanted(num_stages, case["microbatches"], times, splits=True))


def shape_of(case: dict[str, Any], order: Order) -> ModelShape:
    """Return the shape of a case."""
    told = {"layers_per_chunk": (case.get("layers", 1),) * order.num_chunks} | case["shape"]
    if told["boundary"] is not None:
        told["boundary"] = ResBMBoundary(kind="resbm", width=told["boundary"])
    return ModelShape(**told)


class Watched(PipelineTraining):
    """Keeps the gradients of each step before they are applied."""

    kept: list[torch.Tensor]

    def apply(self) -> None:
        self.kept.append(self.flat.gradients.clone())
        super().apply()


def group_of(ranks: list[int], backend: str) -> Any:
    """Return the group of some ranks; all ranks ask for it, whether they are in it or not."""
    key = (backend, *map(str, ranks))
    if key not in _groups:
        if backend == "orionbed":
            from orionbed.transport.group import register

            register(b"the secret of a test")
        _groups[key] = dist.new_group(ranks, backend=backend)
    return _groups[key]


def training_of(case: dict[str, Any], rank: int) -> Watched | None:
    """Return the training of a rank, None where it has no part in the case."""
    pipelines = case["pipelines"]
    backend = case.get("backend", "gloo")
    groups = [group_of(ranks, backend) for ranks in pipelines]
    replicas = [group_of(list(ranks), backend) for ranks in zip(*pipelines, strict=True)] if case.get("sync") else []
    mine = next((replica for replica, ranks in enumerate(pipelines) if rank in ranks), None)
    if mine is None:
        return None
    stage = pipelines[mine].index(rank)
    order = order_of(case, len(pipelines[mine]))
    training = Watched(
        shape_of(case, order),
        order,
        stage=stage,
        replica=mine,
        num_replicas=len(pipelines),
        pipeline_group=groups[mine],
        replica_group=replicas[stage] if replicas else None,
        device=Device.choose("cpu", rank, threads=1),
        seed=0,
        optimizer=InnerOptimizer(kind=case.get("optimizer", "adamw"), learning_rate=1e-2),
        recompute=case.get("recompute", "none"),
        defer_receives=case.get("defer", False),
    )
    training.kept = []
    return training


def run(case: dict[str, Any], rank: int) -> dict[str, Any]:
    """Return what became of a case at this rank."""
    training = training_of(case, rank)
    if training is None:
        return {}
    drawn = training._batches
    if "altered" in case:
        training._batches = lambda number: drawn(number + 1000 * (number == case["altered"]))
    told: list[str] = []
    flops: list[int] = []
    buffers = Buffers(training) if case.get("buffers") else nullcontext()
    with counting(flops) if case.get("flops") else nullcontext(), buffers:
        reports = list(steps_of(case, training, told))
    return {
        "operations": [[[o.kind, o.chunk, o.microbatch] for o in report.operations] for report in reports],
        "spans": [[[o.start_s, o.end_s] for o in report.operations] for report in reports],
        "sync": [report.sync_s for report in reports],
        "losses": [report.losses for report in reports],
        "doing": told,
        "warnings": training.warnings,
        "versions": Checkpoints(Path(case["checkpoint"]), rank).versions() if "checkpoint" in case else [],
        "gradients": text_of(training.kept[0]),
        "weights": text_of(training.flat.weights),
        "steps": training.flat.num_steps,
        "flops": sum(flops),
        "planned_bytes": training.receive_buffer_bytes,
        "found_bytes": buffers.found if isinstance(buffers, Buffers) else [],
    }


def steps_of(case: dict[str, Any], training: Watched, told: list[str]) -> Iterator[StepReport]:
    """Do the steps of a case, with checkpoints where it wants them."""
    store = Checkpoints(Path(case["checkpoint"]), dist.get_rank()) if "checkpoint" in case else None
    begin = 0
    if store is not None and case.get("resume"):
        begin = store.versions()[-1]
        store.read(begin, training.flat)
    for number in range(begin, case.get("steps", 1)):
        yield training.step(number, told.append)
        if store is not None:
            store.write(number + 1, training.flat)


def text_of(tensor: torch.Tensor) -> str:
    """Return a tensor's bytes as text."""
    return base64.b64encode(to_bytes(tensor)).decode()


def counting(flops: list[int]) -> Any:
    """Collect the FLOPs of every operation, recomputed ones too."""
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils.flop_counter import flop_registry

    class Mode(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **kwargs or {})
            formula = flop_registry.get(func.overloadpacket)
            if formula is not None:
                flops.append(formula(*args, **kwargs or {}, out_val=result))
            return result

    return Mode()


class Buffers:
    """Bytes that torch holds of boundary tensors when a step has done its last operation, each storage once."""

    def __init__(self, training: PipelineTraining) -> None:
        self.training = training
        self.found: list[int] = []

    def __enter__(self) -> None:
        from torch.multiprocessing.reductions import StorageWeakRef

        sent: list[tuple[Any, int, int]] = []
        stages = self.training.pipeline.stages
        last = self.training.order.lists[stages[0].group_rank][-1]
        for stage in stages:
            for name in ("get_fwd_send_ops", "get_bwd_send_ops"):
                self._watch(stage, name, sent, StorageWeakRef)
            self._at_the_end(stage, last, sent)

    def __exit__(self, *_what: object) -> None:
        pass

    def _watch(self, stage: Any, name: str, sent: list[Any], weak: Any) -> None:
        original = getattr(stage, name)

        def watched(microbatch: int) -> Any:
            ops = original(microbatch)
            for op in ops:
                storage = op.tensor.untyped_storage()
                sent.append((weak(storage), storage.data_ptr(), storage.nbytes()))
            return ops

        setattr(stage, name, watched)

    def _at_the_end(self, stage: Any, last: Any, sent: list[Any]) -> None:
        original = stage.perform_reduce_grad

        def watched(factor: int) -> None:
            original(factor)
            if stage.stage_index == last.chunk:
                alive = {pointer: num_bytes for ref, pointer, num_bytes in sent if not ref.expired()}
                for each in self.training.pipeline.stages:
                    for infos in (*each.args_recv_info.values(), *each.grad_recv_info.values()):
                        for info in infos:
                            if info.buffer is not None:
                                storage = info.buffer.untyped_storage()
                                alive[storage.data_ptr()] = storage.nbytes()
                self.found.append(sum(alive.values()))
                sent.clear()

        stage.perform_reduce_grad = watched


def serve(store: str, rank: int, pipes: list[tuple[int, int]]) -> None:
    """Join the others, then run cases until the pipe is closed."""
    for other, (read, write) in enumerate(pipes):
        if other != rank:
            os.close(read)
            os.close(write)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=len(pipes))
    warnings.simplefilter("error")
    with os.fdopen(pipes[rank][0]) as cases, os.fdopen(pipes[rank][1], "w") as answers:
        for line in cases:
            try:
                answer = run(json.loads(line), rank)
            except Exception:  # noqa: BLE001 - it is told
                answer = {"error": traceback.format_exc()}
            print(json.dumps(answer), file=answers, flush=True)
    dist.destroy_process_group()


def main() -> None:
    """Fork the processes and wait for all of them."""
    pipes = [(int(read), int(write)) for read, write in (pair.split(",") for pair in sys.argv[2:])]
    for rank in range(len(pipes)):
        if os.fork() == 0:
            try:
                serve(sys.argv[1], rank, pipes)
                os._exit(0)
            finally:
                traceback.print_exc()
                os._exit(1)
    for pair in pipes:
        for descriptor in pair:
            os.close(descriptor)
    for _ in pipes:
        os.wait()


if __name__ == "__main__":
    main()
