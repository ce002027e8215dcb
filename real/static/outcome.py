"""From the reports of all processes to the result of a run, in the form that every backend gives."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from orionbed import tracing
from orionbed.account import KIND_CODES
from orionbed.audit import Audit, audit
from orionbed.fleet.members import Member
from orionbed.fleet.outcome import Outcome
from orionbed.fleet.record import Record, Span
from orionbed.journal import Entry, in_order
from orionbed.plan import Plan
from orionbed.results import Epoch, Mark, RunResult
from real.static.accounting import waits_of
from real.static.reports import Operation, Reports, StepReport

RECOVERY_DEADLINE_S = 600.0


def recorded(plan: Plan, reports: Reports, boundary_bytes: int, sample: Callable[[int], str] = str) -> Record:
    """Return the record of a run: journal, spans, where each second went; `boundary_bytes` is what really crossed.

    `sample` names the data of a micro-batch by its number, in which steps of the warm-up count as well.
    """
    record = Record(plan.num_chunks)
    end_s = reports.end_s
    for peer, waits in zip(plan.peers, waits_of(plan, reports, end_s), strict=True):
        life = record.lives[peer.index, 0]
        life.accounted_s, life.cause_s, life.doing = end_s, waits.cause_s, "over"
        for crossing in waits.crossings:
            record.transfers.append(
                (
                    crossing.target, crossing.step, crossing.source, crossing.microbatch, crossing.start_s,
                    crossing.end_s, float(boundary_bytes),
                )
            )  # fmt: skip
        for report in reports.of(peer.index):
            _record_spans(record, plan, peer.index, report)
    for entry in in_order(_entries(plan, reports, sample)):
        record.enter(entry)
    for at_s, _ in reports.restarts:
        record.marks.append(Mark(at_s, _back_s(reports, at_s), "down", detail="all began again from a checkpoint"))
    record.epochs.append(Epoch(0, 0.0, end_s, end_s, record.applied, 0))
    return record


def _back_s(reports: Reports, at_s: float) -> float:
    starts = (o.start_s for each in reports.steps.values() for report in each.values() for o in report.operations)
    return min((start_s for start_s in starts if start_s >= at_s), default=at_s)


def _record_spans(record: Record, plan: Plan, rank: int, report: StepReport) -> None:
    for operation in report.operations:
        number = -1 if operation.kind == "STEP" else _number(plan, rank, report.step, operation.microbatch)
        record.spans.append(
            Span(
                rank, report.step, tracing.LANE_COMPUTE, KIND_CODES[operation.kind], number, operation.start_s,
                operation.end_s, 0.0, tracing.CAUSE_NONE,
            )
        )  # fmt: skip
    if report.sync_s is not None:
        record.spans.append(
            Span(
                rank, report.step, tracing.LANE_MERGE, tracing.KIND_AVERAGE, -1, *report.sync_s, 0.0,
                tracing.CAUSE_MERGE_TRANSFER,
            )
        )  # fmt: skip


def _number(plan: Plan, rank: int, step: int, microbatch: int) -> int:
    """Return the number of a micro-batch that is unique in the run."""
    assert plan.order is not None
    return (step * plan.order.num_microbatches + microbatch) * plan.num_replicas + plan.peers[rank].replica


def _entries(plan: Plan, reports: Reports, sample: Callable[[int], str]) -> Iterator[Entry]:
    for peer in plan.peers:
        for report in reports.of(peer.index):
            for operation in report.operations:
                yield from _entries_of(plan, peer.index, report, operation, sample)
            for microbatch, loss in report.losses:
                number = _number(plan, peer.index, report.step, microbatch)
                at_s = report.operations[-1].end_s
                yield _entry(plan, peer.index, at_s, "loss", plan.num_chunks - 1, number, detail=repr(loss))


def _entry(  # noqa: PLR0917
    plan: Plan, rank: int, at_s: float, event: str, chunk: int, number: int, step: int = -1, detail: str = ""
) -> Entry:
    peer = plan.peers[rank]
    return Entry(at_s, event, rank, 0, peer.stage, peer.replica, chunk, number, 0, step, detail)


def _entries_of(
    plan: Plan, rank: int, report: StepReport, operation: Operation, sample: Callable[[int], str]
) -> Iterator[Entry]:
    version = report.step + 1
    if operation.kind == "STEP":
        assert plan.order is not None
        shared = plan.num_replicas if report.sync_s is not None else 1
        divisor = str(plan.order.num_microbatches * shared)
        for one in report.operations:
            if one.kind in {"B", "W"}:
                number = _number(plan, rank, report.step, one.microbatch)
                yield _entry(plan, rank, operation.end_s, "applied", one.chunk, number, version, divisor)
        return
    number = _number(plan, rank, report.step, operation.microbatch)
    kind, chunk = operation.kind, operation.chunk
    if kind == "F" and chunk == 0:
        drawn = _number(plan, rank, plan.scenario.real.warm_up + report.step, operation.microbatch)
        yield _entry(plan, rank, operation.start_s, "created", 0, number, detail=sample(drawn))
    event = "forward" if kind == "F" else "backward"
    yield _entry(plan, rank, operation.end_s, event, chunk, number, detail=kind)
    if kind in {"B", "W"}:
        yield _entry(plan, rank, operation.end_s, "accumulated", chunk, number, version)


def result_of(
    plan: Plan, record: Record, members: list[Member], *, seed: int, wall_s: float, aborted: str
) -> RunResult:
    """Return the result of a run from its record and what its processes told at the end."""
    end_s = max((life.accounted_s for life in record.lives.values()), default=0.0)
    for member in members:
        life = record.lives[member.index, 0]
        member.life = 0  # reports of all lives are one record
        member.final = (member.final or {}) | {"account": [life.accounted_s, *life.cause_s]}
    outcome = Outcome(plan, record, members, end_s)
    result = outcome.result("real", seed=seed, wall_s=wall_s, scale=1.0, aborted=aborted, num_missed=0)
    result.journal = in_order(record.entries)
    return result


def audited(plan: Plan, record: Record, end_s: float, difference: float | None, tolerance: float) -> Audit:
    """Return the ledger held against the rules; `difference` is that of the weights to the plain model's."""
    return audit(
        in_order(record.entries),
        num_chunks=plan.num_chunks,
        fixed_batch=True,
        synced=not isinstance(plan.scenario.sync, str),
        end_s=end_s,
        recovery_deadline_s=RECOVERY_DEADLINE_S,
        bytes_sent=0,
        bytes_delivered=0,
        bytes_in_flight=0,
        bytes_destroyed=0,
        reference_difference=difference,
        tolerance=tolerance,
    )


def finals_of(plan: Plan, reports: Reports, boundary_bytes: int, sync_bytes: Sequence[float]) -> list[dict[str, Any]]:
    """Return what each process sent and took in, from the operations that it did."""
    finals: list[dict[str, Any]] = []
    for peer in plan.peers:
        sent = received = syncs = 0
        syncing_s = 0.0
        for report in reports.of(peer.index):
            for operation in report.operations:
                sent += _leaves(plan, operation)
                received += _comes(plan, operation)
            if report.sync_s is not None:
                syncs += 1
                syncing_s += report.sync_s[1] - report.sync_s[0]
        moved = syncs * sync_bytes[peer.index]
        finals.append(
            {
                "bytes_boundary": float(sent * boundary_bytes),
                "bytes_sync": moved,
                "num_syncs": syncs,
                "syncing_s": syncing_s,
                "counters": {
                    "departed_bytes": sent * boundary_bytes + moved,
                    "delivered_bytes": received * boundary_bytes + moved,
                },
            }
        )
    return finals


def _leaves(plan: Plan, operation: Operation) -> bool:
    """Whether the result of an operation goes to another process."""
    chunk = operation.chunk
    if operation.kind == "F":
        return chunk + 1 < plan.num_chunks and plan.stage_of[chunk + 1] != plan.stage_of[chunk]
    return operation.kind in {"B", "I"} and chunk > 0 and plan.stage_of[chunk - 1] != plan.stage_of[chunk]


def _comes(plan: Plan, operation: Operation) -> bool:
    """Whether the input of an operation comes from another process."""
    chunk = operation.chunk
    if operation.kind == "F":
        return chunk > 0 and plan.stage_of[chunk - 1] != plan.stage_of[chunk]
    last = plan.num_chunks - 1
    return operation.kind in {"B", "I"} and chunk < last and plan.stage_of[chunk + 1] != plan.stage_of[chunk]
