"""The ledger of a run held against the rules of `orionbed.audit`, from the peers' own journals and counters."""

from orionbed.audit import Audit, audit
from orionbed.faults import ResolvedFault
from orionbed.fleet.members import Member
from orionbed.fleet.record import Record
from orionbed.journal import in_order
from orionbed.training.replay import difference_and_problem
from orionbed.training.serial import TOLERANCES
from real.job import Job
from real.queued.counting import moved_bytes


def inspect(job: Job, record: Record, members: list[Member], faults: tuple[ResolvedFault, ...], end_s: float) -> Audit:
    """Return what the audit of a finished run found."""
    plan, moved = job.plan, moved_bytes(members)
    told = {m.index: m.final["weights"] for m in members if m.final is not None and "weights" in m.final}
    difference, problem = difference_and_problem(plan, job.shape, job.seed, record.entries, told)
    return audit(
        in_order(record.entries),
        num_chunks=plan.num_chunks,
        fixed_batch=False,
        end_s=end_s,
        recovery_deadline_s=plan.scenario.emulator.recovery_deadline,
        faults=faults,
        open_at_end=held(members),
        bytes_sent=moved.sent_bytes,
        bytes_delivered=moved.delivered_bytes,
        bytes_in_flight=moved.in_flight_bytes,
        bytes_destroyed=moved.destroyed_bytes,
        reference_difference=difference,
        reference_problem=problem,
        tolerance=TOLERANCES[job.shape.dtype],
    )


def held(members: list[Member]) -> set[int] | None:
    """Return the micro-batches that peers held when the run ended; None where not all have told."""
    alive = [member for member in members if member.role == "peer" and member.status not in {"down", "starting"}]
    if any("held" not in (member.final or {}) for member in alive):
        return None
    return {number for member in alive if member.final for number in member.final["held"]}
