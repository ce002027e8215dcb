"""What the processes of a pipeline report of each step, and how these reports grow together."""

from dataclasses import dataclass, field
from typing import Any

from orionbed.schedule.actions import Kind


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of one process; seconds of the run. `microbatch` counts within the step, -1 for the STEP."""

    kind: Kind
    chunk: int
    microbatch: int
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class StepReport:
    """What one process did in one step, in order; `sync_s` is when it began and ended to agree with other replicas."""

    step: int
    operations: tuple[Operation, ...]
    sync_s: tuple[float, float] | None
    losses: tuple[tuple[int, float], ...]

    def as_message(self) -> dict[str, Any]:
        """Return the report as it travels."""
        return {
            "t": "step",
            "step": self.step,
            "operations": [[o.kind, o.chunk, o.microbatch, o.start_s, o.end_s] for o in self.operations],
            "sync": self.sync_s,
            "losses": self.losses,
        }

    @classmethod
    def from_message(cls, message: dict[str, Any]) -> "StepReport":
        """Return the report of a message."""
        sync = message["sync"]
        return cls(
            message["step"],
            tuple(Operation(*row) for row in message["operations"]),
            None if sync is None else (sync[0], sync[1]),
            tuple((int(microbatch), float(loss)) for microbatch, loss in message["losses"]),
        )


@dataclass(slots=True)
class Reports:
    """All reports of a run by rank and step; a step that was done again counts as it went last.

    `lives` says of which life of its process a report is, by step and rank. `wasted` are reports that were given up.
    `restarts` has the second at which a process was lost, and the step with which all began again.
    """

    num_ranks: int
    steps: dict[int, dict[int, StepReport]] = field(default_factory=dict)
    lives: dict[tuple[int, int], int] = field(default_factory=dict)
    wasted: list[tuple[int, StepReport]] = field(default_factory=list)
    restarts: list[tuple[float, int]] = field(default_factory=list)

    def add(self, rank: int, report: StepReport, life: int = 0) -> None:
        """Take in a report; one of an earlier life that it takes the place of was in vain."""
        reports = self.steps.setdefault(report.step, {})
        if rank in reports:
            self.wasted.append((rank, reports[rank]))
        reports[rank] = report
        self.lives[report.step, rank] = life

    def give_up_from(self, step: int, at_s: float, life: int = 1) -> None:
        """All begin again with a step, in a new life: what earlier lives reported of it and of later ones was in vain.

        Reports of the new life may have come before this was known.
        """
        for undone in [known for known in self.steps if known >= step]:
            reports = self.steps[undone]
            for rank in [rank for rank in reports if self.lives[undone, rank] < life]:
                self.wasted.append((rank, reports.pop(rank)))
            if not reports:
                del self.steps[undone]
        self.restarts.append((at_s, step))

    @property
    def num_complete(self) -> int:
        """Steps that every process has reported."""
        return sum(len(reports) == self.num_ranks for reports in self.steps.values())

    def of(self, rank: int) -> list[StepReport]:
        """Return the reports of one process that count, in order."""
        return [self.steps[step][rank] for step in sorted(self.steps) if rank in self.steps[step]]

    @property
    def end_s(self) -> float:
        """The second at which the last thing ended that was reported."""
        kept = [report for reports in self.steps.values() for report in reports.values()]
        ends = [o.end_s for report in [*kept, *(report for _, report in self.wasted)] for o in report.operations]
        return max(ends, default=0.0)
