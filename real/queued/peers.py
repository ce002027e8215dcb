"""What takes part in a queue-driven run on hardware, made from its job: a peer on its device, or the object store."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from orionbed.faults import resolve
from orionbed.fleet.participants import Emit, Participant, PeerParticipant, StoreParticipant
from orionbed.training.compute import Body, Compute
from orionbed.training.loop import Setup, Transport
from real.job import Job
from real.queued.staging import make_staging
from real.queued.warming import warm_up


@dataclass(frozen=True, slots=True)
class Made:
    """A participant, what takes in boundary tensors for it, and how its device is called and how full it was."""

    participant: Participant
    arrived: Callable[[Body], Body]
    device: str
    peak_memory_bytes: Callable[[], int]


def make_participant(  # noqa: PLR0917
    job: Job, index: int, local_rank: int, life: int, transport: Transport, emit: Emit
) -> Made:
    """Return the participant of an index, warmed up; the one after all peers is the store."""
    if index == len(job.plan.peers):
        return Made(StoreParticipant(transport), lambda body: body, "none", lambda: 0)
    import torch

    plan, block = job.plan, job.plan.scenario.real
    torch.set_num_threads(block.threads)
    device = "cpu"
    if job.device == "cuda":
        device = f"cuda:{local_rank % torch.cuda.device_count()}"
        torch.cuda.set_device(device)
    staging = make_staging(job.shape, device)
    compute = Compute(
        job.shape,
        plan.chunks_of(plan.peers[index].stage),
        seed=job.seed,
        optimizer=block.optimizer,
        learning_rate=block.learning_rate,
        fused_last=True,
        device=device,
        timer=_timer(device),
        codec=staging,
    )
    warm_up(compute, staging, block.warm_up, optimizer=block.optimizer)
    setup = Setup(plan, index, life, job.seed, measured=True, faults=resolve(plan, job.seed))
    participant = PeerParticipant(setup, compute, transport, emit)
    return Made(participant, staging.arrived, _name(device), lambda: _peak_memory_bytes(device))


def _timer(device: str) -> Callable[[], float]:
    """Return a clock for operations; on a GPU it waits for what has been begun there."""
    if device == "cpu":
        return time.perf_counter
    import torch

    def synchronised() -> float:
        torch.cuda.current_stream(device).synchronize()
        return time.perf_counter()

    return synchronised


def _name(device: str) -> str:
    if device == "cpu":
        return device
    import torch

    return f"{device} ({torch.cuda.get_device_name(device)})"


def _peak_memory_bytes(device: str) -> int:
    """Return the most that was allocated on the device; of a CPU the most that the process had in memory."""
    if device == "cpu":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    import torch

    return int(torch.cuda.max_memory_allocated(device))
