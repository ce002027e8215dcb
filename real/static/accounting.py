"""Where the seconds of each process went that it did not compute, from the reports of all of them.

A process knows when it waited; what for is known only beside the others' times. An operation whose input comes from
another process waits for `upstream` until the operation there has ended, and for `transfer` from then on.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from orionbed import tracing
from orionbed.plan import Plan
from orionbed.schedule.actions import Action
from orionbed.schedule.timing import needed_input, provided_input
from orionbed.tracing import CAUSES
from real.static.reports import Operation, Reports, StepReport

Key = tuple[int, int, str, int, int]
"""Step, replica, and the message: its kind, the chunk that it is for, the micro-batch."""


@dataclass(frozen=True, slots=True)
class Crossing:
    """A boundary tensor that somebody waited for: from the end of what made it to the start of what needed it."""

    step: int
    source: int
    target: int
    microbatch: int
    start_s: float
    end_s: float


@dataclass(slots=True)
class Waits:
    """Seconds of one process by cause, and the tensors that it waited for."""

    cause_s: list[float]
    crossings: list[Crossing]


def waits_of(plan: Plan, reports: Reports, end_s: float) -> list[Waits]:
    """Return what each process waited for from second 0 to `end_s` of the run."""
    made = dict(_made(plan, reports))
    synced = _last_to_sync(plan, reports)
    return [_Accountant(plan, peer.index, made, synced).account(reports, end_s) for peer in plan.peers]


def _made(plan: Plan, reports: Reports) -> Iterator[tuple[Key, tuple[float, int]]]:
    """Yield for each message that leaves an operation when that had ended, and whose it was."""
    for peer in plan.peers:
        for report in reports.of(peer.index):
            for operation in report.operations:
                found = provided_input(_action(operation), plan.num_chunks)
                if found is not None:
                    yield (report.step, peer.replica, *found), (operation.end_s, peer.index)


def _last_to_sync(plan: Plan, reports: Reports) -> dict[tuple[int, int], float]:
    """Return by step and stage when the last replica began to agree with the others."""
    found: dict[tuple[int, int], float] = {}
    for peer in plan.peers:
        for report in reports.of(peer.index):
            if report.sync_s is not None:
                key = (report.step, peer.stage)
                found[key] = max(found.get(key, 0.0), report.sync_s[0])
    return found


def _action(operation: Operation) -> Action:
    return Action(operation.kind, operation.chunk, operation.microbatch)


class _Accountant:
    """Goes through the operations of one process in order of time."""

    def __init__(
        self, plan: Plan, rank: int, made: dict[Key, tuple[float, int]], synced: dict[tuple[int, int], float]
    ) -> None:
        self._plan, self._rank = plan, rank
        self._peer = plan.peers[rank]
        self._made, self._synced = made, synced
        self._at_s = 0.0
        self._waits = Waits([0.0] * len(CAUSES), [])

    def account(self, reports: Reports, end_s: float) -> Waits:
        lost_s = [at_s for at_s, _ in reports.restarts]
        in_vain = [report for rank, report in reports.wasted if rank == self._rank]
        steps = [report for report in [*in_vain, *reports.of(self._rank)] if report.operations]
        for report in sorted(steps, key=lambda report: report.operations[0].start_s):
            begins_s = report.operations[0].start_s
            while lost_s and lost_s[0] <= begins_s:
                self._charge(tracing.CAUSE_THROWN_AWAY, lost_s.pop(0))
                self._charge(tracing.CAUSE_DOWN, begins_s)
            if report in in_vain:
                self._charge(tracing.CAUSE_THROWN_AWAY, report.operations[-1].end_s)
            else:
                self._step(report)
        # What a pipeline has nothing more to do for is its drain.
        self._charge(tracing.CAUSE_UPSTREAM, end_s)
        return self._waits

    def _step(self, report: StepReport) -> None:
        for operation in report.operations:
            if operation.kind == "STEP" and report.sync_s is not None:
                self._sync(report)
            self._wait(report.step, operation)
            self._at_s = max(self._at_s, operation.end_s)

    def _wait(self, step: int, operation: Operation) -> None:
        needed = None if operation.kind == "STEP" else needed_input(_action(operation), self._plan.num_chunks)
        found = None if needed is None else self._made.get((step, self._peer.replica, *needed))
        if found is None or found[1] == self._rank:
            self._charge(tracing.CAUSE_POLLING, operation.start_s)
            return
        made_s, source = found
        self._charge(tracing.CAUSE_UPSTREAM, min(made_s, operation.start_s))
        if operation.start_s > self._at_s:
            number = operation.microbatch * self._plan.num_replicas + self._peer.replica
            self._waits.crossings.append(Crossing(step, source, self._rank, number, self._at_s, operation.start_s))
        self._charge(tracing.CAUSE_TRANSFER, operation.start_s)

    def _sync(self, report: StepReport) -> None:
        assert report.sync_s is not None
        began_s, ended_s = report.sync_s
        self._charge(tracing.CAUSE_POLLING, began_s)
        all_there_s = self._synced[report.step, self._peer.stage]
        self._charge(tracing.CAUSE_MERGE_WAIT, min(all_there_s, ended_s))
        self._charge(tracing.CAUSE_MERGE_TRANSFER, ended_s)

    def _charge(self, cause: int, until_s: float) -> None:
        if until_s > self._at_s:
            self._waits.cause_s[cause] += until_s - self._at_s
            self._at_s = until_s
