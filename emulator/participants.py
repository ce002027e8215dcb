"""What takes part in an emulation, made from its job."""

from typing import Any

from emulator.job import Job
from orionbed.fleet.participants import Emit, Participant, PeerParticipant, StoreParticipant
from orionbed.training.compute import Compute
from orionbed.training.surroundings import Setup, Transport


def make_peer(job: Job, index: int, life: int, transport: Transport, emit: Emit) -> PeerParticipant:
    """Return a peer with its scaled-down pieces of the model."""
    plan, block = job.plan, job.plan.scenario.emulator
    chunks = plan.chunks_of(plan.peers[index].stage)
    if {0, plan.num_chunks - 1} & set(chunks):
        job.batches(0)  # a text is opened before the clock runs
    compute = Compute(
        job.shape, chunks, seed=job.seed, fused_last=plan.order is None,
        optimizer=plan.scenario.training.optimizer, batches=job.batches,
    )  # fmt: skip
    setup = Setup(
        plan, index, life, job.seed, measured=block.clock == "cpu", deferred=block.clock == "virtual",
        faults=job.faults,
    )  # fmt: skip
    return PeerParticipant(setup, compute, transport, emit, disk=job.disks.get(index), tells_weights=block.reference)


def make_participant(job: Job, order: dict[str, Any], transport: Transport, emit: Emit) -> Participant:
    """Return the participant that an order asks for."""
    if order["role"] == "store":
        return StoreParticipant(transport)
    return make_peer(job, order["index"], order["life"], transport, emit)
