"""How long the real work of each stage takes on one core here, before anything else runs."""

import statistics
import time
from typing import Any

from emulator.entry import connected
from emulator.job import Job
from orionbed.schedule.actions import Kind
from orionbed.training.compute import Compute

WARM_UPS = 2
SAMPLES = 5


def measure(job: Job) -> None:
    """Tell the supervisor the median processor seconds of F, B and STEP of a first, a middle and the last chunk."""
    channel = connected(job, "measure")
    last = job.shape.num_chunks - 1
    found = {str(chunk): _times(job, chunk) for chunk in sorted({0, last // 2, last})}
    channel.send({"t": "measured", "chunks": found})
    channel.close()


def rehearse(job: Job) -> None:
    """Do each kind of work once, so that forked processes find loaded what torch loads on first use."""
    for chunk in sorted({0, job.shape.num_chunks - 1}):
        _times(job, chunk, num_samples=1)


def _times(job: Job, chunk: int, num_samples: int = WARM_UPS + SAMPLES) -> dict[str, float]:
    shape = job.shape
    queue = job.plan.order is None
    optimizer = job.plan.scenario.training.optimizer
    compute = Compute(shape, [chunk], seed=job.seed, optimizer=optimizer, batches=job.batches, fused_last=queue)
    body = bytes(shape.boundary_bytes)
    last = chunk == shape.num_chunks - 1
    kinds: list[Kind] = ["B"] if queue and last else ["F", "B"]
    found: dict[str, list[float]] = {kind: [] for kind in (*kinds, "STEP")}
    for sample in range(num_samples):
        for kind in kinds:
            wants = (kind == "F" and chunk > 0) or (kind == "B" and (not last or (queue and chunk > 0)))
            started_s = time.perf_counter()
            compute.run(kind, chunk, sample, body if wants else None)
            found[kind].append(time.perf_counter() - started_s)
        started_s = time.perf_counter()
        compute.step(1)
        found["STEP"].append(time.perf_counter() - started_s)
    return {kind: statistics.median(times[min(WARM_UPS, num_samples - 1) :]) for kind, times in found.items()}


def heaviest(measured: dict[str, Any]) -> dict[str, float]:
    """Return the longest time of each kind over the chunks that were measured."""
    kinds = {kind for times in measured.values() for kind in times}
    return {kind: max(times.get(kind, 0.0) for times in measured.values()) for kind in kinds}
