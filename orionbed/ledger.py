"""What became of every micro-batch.

Each micro-batch is applied exactly once on all stages, or is listed with the reason why not. At any instant
created = applied + dropped + rejected + in_flight.
"""

from collections import Counter
from dataclasses import dataclass, field

from orionbed.schedule.actions import Kind


class LedgerError(Exception):
    """A micro-batch was lost, counted twice, or applied on some stages only and called applied."""


class MicrobatchRecord:
    """A micro-batch on its way: the stages that used its gradient, and the peers that hold a slot for it."""

    __slots__ = ("attempts", "num_applied", "slots", "spent", "staleness")

    def __init__(self) -> None:
        self.num_applied = 0
        self.attempts = 0
        # local optimizer steps between forward and backward, summed over the stages
        self.staleness = 0
        # (peer, seconds of the run when its forward ended) for each slot held for the gradient
        self.slots: list[tuple[int, float]] = []
        # (peer, kind, seconds) of every operation done on it
        self.spent: list[tuple[int, Kind, float]] = []


@dataclass(slots=True)
class Ledger:
    """Counts and open records. `num_stages` is how many stages must use a gradient for it to count as applied."""

    num_stages: int
    created: int = 0
    applied: int = 0
    stale_applied: int = 0
    redone: int = 0
    duplicated: int = 0
    rejected: int = 0
    partially_applied: int = 0
    staleness_sum: int = 0
    dropped_by_reason: Counter[str] = field(default_factory=Counter)
    open: dict[int, MicrobatchRecord] = field(default_factory=dict)

    @property
    def dropped(self) -> int:
        """Micro-batches given up, for any reason."""
        return self.dropped_by_reason.total()

    @property
    def in_flight(self) -> int:
        """Micro-batches created and not yet decided."""
        return len(self.open)

    def create(self) -> int:
        """Open a record and return the new micro-batch's number."""
        microbatch = self.created
        self.created = microbatch + 1
        self.open[microbatch] = MicrobatchRecord()
        return microbatch

    def apply(self, microbatch: int) -> MicrobatchRecord:
        """Close a micro-batch whose gradient every stage has used.

        Raises:
            LedgerError: it is not open (lost or applied before), or a stage was skipped or used it twice.

        """
        record = self.open.pop(microbatch, None)
        if record is None:
            raise LedgerError(f"micro-batch {microbatch} is applied twice, or was dropped before")
        if record.num_applied != self.num_stages:
            raise LedgerError(f"micro-batch {microbatch} was used by {record.num_applied} of {self.num_stages} stages")
        self.applied += 1
        if record.staleness:
            self.stale_applied += 1
            self.staleness_sum += record.staleness
        if record.attempts:
            self.redone += 1
        return record

    def drop(self, microbatch: int, reason: str) -> MicrobatchRecord | None:
        """Close a micro-batch that will not be applied; `None` when it was decided before."""
        record = self.open.pop(microbatch, None)
        if record is not None:
            self.dropped_by_reason[reason] += 1
            if record.num_applied:
                self.partially_applied += 1
        return record

    def check(self) -> None:
        """Check conservation.

        Raises:
            LedgerError: created is not applied + dropped + rejected + in flight.

        """
        decided = self.applied + self.dropped + self.rejected
        if self.created != decided + self.in_flight:
            raise LedgerError(
                f"{self.created} micro-batches were created, but {decided} decided and {self.in_flight} are in flight"
            )

    def counts(self) -> dict[str, object]:
        """Return the summary's `microbatches` block."""
        return {
            "created": self.created,
            "applied": self.applied,
            "stale_applied": self.stale_applied,
            "redone": self.redone,
            "dropped": self.dropped,
            "duplicated": self.duplicated,
            "rejected": self.rejected,
            "in_flight": self.in_flight,
            "partially_applied": self.partially_applied,
            "mean_staleness": self.staleness_sum / (self.applied * self.num_stages) if self.applied else 0.0,
            "dropped_by_reason": dict(sorted(self.dropped_by_reason.items())),
        }
