"""What takes part in a queue-driven run on hardware, made from its job: a peer on its device, or the object store."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from orionbed.faults import resolve
from orionbed.fleet.participants import Emit, Participant, PeerParticipant, StoreParticipant
from orionbed.training.compute import Body, Compute
from orionbed.training.surroundings import Setup, Transport
from real.devices import Device
from real.job import Job
from real.queued.staging import make_staging
from real.queued.warming import warm_up


@dataclass(frozen=True, slots=True)
class Made:
    """A participant, what takes in boundary tensors for it, and what its device is and how full it was."""

    participant: Participant
    arrived: Callable[[Body], Body]
    device: dict[str, Any]
    peak_memory_bytes: Callable[[], int]


def make_participant(  # noqa: PLR0917
    job: Job, index: int, local_rank: int, life: int, transport: Transport, emit: Emit
) -> Made:
    """Return the participant of an index, warmed up; the one after all peers is the store."""
    if index == len(job.plan.peers):
        return Made(StoreParticipant(transport), lambda body: body, {}, lambda: 0)
    plan, block = job.plan, job.plan.scenario.real
    device = Device.choose(job.device, local_rank, threads=block.threads)
    staging = make_staging(job.shape, device.name)
    compute = Compute(
        job.shape,
        plan.chunks_of(plan.peers[index].stage),
        seed=job.seed,
        optimizer=plan.scenario.training.optimizer,
        batches=job.batches,
        fused_last=True,
        device=device.name,
        timer=_timer(device),
        codec=staging,
    )
    warm_up(compute, staging, block.warm_up, optimizer=plan.scenario.training.optimizer)
    setup = Setup(plan, index, life, job.seed, measured=True, faults=resolve(plan, job.seed))
    participant = PeerParticipant(setup, compute, transport, emit, tells_weights=block.reference)
    return Made(participant, staging.arrived, device.describe(), device.peak_memory_bytes)


def _timer(device: Device) -> Callable[[], float]:
    """Return a clock for operations, which waits for what has been begun on the device."""

    def synchronised() -> float:
        device.synchronise()
        return time.perf_counter()

    return synchronised
