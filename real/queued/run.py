"""A queue-driven run on hardware, from the start of its processes to its result."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from orionbed import tracing
from orionbed.fleet.members import Member
from orionbed.fleet.orchestra import Orchestra
from orionbed.fleet.outcome import Outcome
from orionbed.fleet.progress import Progress
from orionbed.fleet.supervising import AbortedRunError
from orionbed.journal import in_order
from orionbed.results import RunResult
from orionbed.training.shape import BYTES_PER_VALUE
from real.prepared import Prepared
from real.queued.inspection import inspect
from real.queued.observed import observed
from real.queued.supervisor import QueueSupervisor


async def run_queue(prepared: Prepared, progress: Callable[[Any], None], say: Callable[[str], None]) -> RunResult:
    """Run the plan and return its result; a run that loses a peer for good returns what there is of it, as aborted.

    Raises:
        BackendError: it could not begin.

    """
    started_s = time.perf_counter()
    supervisor = QueueSupervisor(prepared.job, say)

    def tell(now_s: float, applied: int, target: int | None, share: float | None = None) -> None:
        progress(Progress(now_s, applied, target, share))

    orchestra = Orchestra(supervisor, tell)
    supervisor.on_death = lambda *death: orchestra.start(_bring_back(orchestra, *death))
    aborted = ""
    try:
        await supervisor.start()
        say("the run begins")
        try:
            end_s = await orchestra.run()
        except AbortedRunError as error:
            aborted = str(error)
            end_s = supervisor.last_s()
    finally:
        await supervisor.close()
    return _result(prepared, supervisor, orchestra, end_s, aborted, time.perf_counter() - started_s)


async def _bring_back(orchestra: Orchestra, member: Member, at_s: float, why: str) -> None:
    """Go on without a peer that died at a second of the run, and start it again.

    AbortedRunError: it was the last one that knew what its stage had learnt.
    """
    orchestra.mishaps.crash(member, at_s, "")
    plan, supervisor = orchestra.plan, orchestra.supervisor
    stage = plan.peers[member.index].stage
    others = [peer for peer in supervisor.peers if plan.peers[peer.index].stage == stage and peer is not member]
    if not any(peer.status in {"up", "training", "merging"} for peer in others):
        raise AbortedRunError(f"{why}; no other peer has what stage {stage} had learnt, and it is lost")
    await orchestra.mishaps.come_back(member, at_s, kept=False)


def _result(  # noqa: PLR0917
    prepared: Prepared, supervisor: QueueSupervisor, orchestra: Orchestra, end_s: float, aborted: str, wall_s: float
) -> RunResult:
    plan, record = prepared.plan, supervisor.record
    end_s = _levelled(supervisor, end_s)
    done = {member.index for member in supervisor.peers if member.final is not None}
    record.close(end_s, done, len(plan.peers))
    outcome = Outcome(plan, record, supervisor.members, end_s)
    result = outcome.result(
        "real", seed=prepared.job.seed, wall_s=wall_s, scale=1.0, aborted=aborted, num_missed=orchestra.num_missed
    )
    _count_real_bytes(prepared, result)
    result.journal = in_order(record.entries)
    result.faults = orchestra.fault_rows(end_s)
    found = inspect(prepared.job, record, supervisor.members, orchestra.faults, end_s)
    result.aborted = result.aborted or found.void
    result.backend_block = observed(prepared, supervisor) | {
        "audit": found.as_json(),
        "void": result.aborted.startswith("void"),
    }
    return result


def _levelled(supervisor: QueueSupervisor, end_s: float) -> float:
    """Return when the run ended: one that was late to hear of it counts, and the others waited for it."""
    finals = [member.final for member in supervisor.peers if member.final is not None]
    last_s = max([end_s, *(float(final["account"][0]) for final in finals)])
    for final in finals:
        account = final["account"]
        account[1 + tracing.CAUSE_FILL] += last_s - account[0]
        account[0] = last_s
    epochs = supervisor.record.epochs
    if epochs and epochs[-1].end_s == end_s:
        in_training = epochs[-1].training_end_s == end_s
        epochs[-1] = replace(
            epochs[-1], end_s=last_s, training_end_s=last_s if in_training else epochs[-1].training_end_s
        )
    return last_s


def _count_real_bytes(prepared: Prepared, result: RunResult) -> None:
    """Have the sums that peers keep in the plan's bytes say what has moved: number formats may differ."""
    plan, shape = prepared.plan, prepared.job.shape
    result.bytes_boundary *= shape.boundary_bytes / plan.boundary_bytes
    per_value = BYTES_PER_VALUE[shape.dtype] / (plan.stages[0].weight_bytes / plan.stages[0].parameters)
    result.bytes_merge_up *= per_value
    result.bytes_merge_down *= per_value
    result.bytes_storage_read *= per_value
