"""The ledger of a run held against the rules of `orionbed.audit`, from the peers' own journals and counters."""

from typing import Any

from emulator.reference import reference_difference
from emulator.throttle.counters import Balance, Counters, ReceivedCount, SentCount, balance
from orionbed.audit import Audit, audit
from orionbed.emulation import model_shape
from orionbed.faults import ResolvedFault
from orionbed.fleet.members import Member
from orionbed.fleet.record import Record
from orionbed.journal import in_order
from orionbed.plan import Plan
from orionbed.training.replay import difference_and_problem
from orionbed.training.serial import TOLERANCES


def inspect(  # noqa: PLR0917
    plan: Plan, seed: int, record: Record, members: list[Member], faults: tuple[ResolvedFault, ...], end_s: float
) -> Audit:
    """Return what the audit of a finished run found."""
    moved = moved_bytes(members)
    difference, problem = _difference(plan, seed, record, members)
    return audit(
        in_order(record.entries),
        num_chunks=plan.num_chunks,
        fixed_batch=plan.order is not None,
        synced=not isinstance(plan.scenario.sync, str),
        end_s=end_s,
        recovery_deadline_s=plan.scenario.emulator.recovery_deadline,
        faults=faults,
        open_at_end=_held(plan, members),
        bytes_sent=moved.sent_bytes,
        bytes_delivered=moved.delivered_bytes,
        bytes_in_flight=moved.in_flight_bytes,
        bytes_destroyed=moved.destroyed_bytes,
        reference_difference=difference,
        reference_problem=problem,
        tolerance=TOLERANCES[plan.scenario.emulator.dtype],
    )


def _difference(plan: Plan, seed: int, record: Record, members: list[Member]) -> tuple[float | None, str]:
    """Return how far the weights are from the reference's, and why there is none."""
    if plan.order is not None:
        return reference_difference(plan, seed, record, members), ""
    told = {m.index: m.final["weights"] for m in members if m.final is not None and "weights" in m.final}
    return difference_and_problem(plan, model_shape(plan), seed, record.entries, told)


def _held(plan: Plan, members: list[Member]) -> set[int] | None:
    """Return the micro-batches that queue-driven peers held when the run ended; None where not all have told."""
    alive = [member for member in members if member.role == "peer" and member.status not in {"down", "starting"}]
    if plan.order is not None or any("held" not in (member.final or {}) for member in alive):
        return None
    return {number for member in alive if member.final for number in member.final["held"]}


def moved_bytes(members: list[Member]) -> Balance:
    """Return the balance of all bytes sent. Of a process that was killed the other end of each connection tells."""
    finals = [member.final for member in members if member.final is not None]
    found = [_counters(final["counters"]) for final in finals if "counters" in final]
    sources = {count.connection for one in found for count in one.sent}
    strays = [count for one in found for count in one.received if count.connection not in sources]
    lost = [SentCount(c.connection, c.source, c.target, c.received_bytes, 0, 0, is_open=False) for c in strays]
    return balance([*found, Counters(tuple(lost), (), 0, 0, 0)])


def _counters(told: dict[str, Any]) -> Counters:
    if "sent" not in told:  # in virtual time nothing can get lost, and only sums are told
        return Counters((), (), 0, 0, 0)
    return Counters(
        tuple(SentCount(*row) for row in told["sent"]),
        tuple(ReceivedCount(*row) for row in told["received"]),
        told["num_corrupted"],
        told["num_resent"],
        told["num_reconnects"],
    )
