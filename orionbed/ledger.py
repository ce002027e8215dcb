"""What became of every micro-batch.

Each micro-batch is applied exactly once on all stages, or is listed with the reason why not. At any instant
created = applied + dropped + rejected + in_flight.

A micro-batch that is begun again has a new number, which tells its attempts apart: `attempt << ATTEMPT_BITS` is added
to the number that it was created with. Only the latest attempt is open, so what comes late of an earlier one is known.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from orionbed.schedule.actions import Kind

ATTEMPT_BITS: Final = 32
"""A micro-batch's number has this many bits; what is above them counts its attempts."""


class LedgerError(Exception):
    """A micro-batch was lost, counted twice, or applied on some stages only and called applied."""


Spent = tuple[int, Kind, int, int, float]
"""Work on a micro-batch: peer, kind, chunk, number (so attempt), seconds. Plain, because there are millions of them."""


class MicrobatchRecord:
    """A micro-batch on its way: the stages that used its gradient, and the peers that hold a slot for it.

    `used` and `skipped` have a bit for each stage that used its gradient, or that it went past.
    """

    __slots__ = ("attempts", "gradients", "skipped", "slots", "spent", "staleness", "used")

    def __init__(self) -> None:
        self.used = 0
        self.skipped = 0
        # sends that failed, and times that it was begun again
        self.attempts = 0
        # local optimizer steps between forward and backward, summed over the stages
        self.staleness = 0
        # (peer, seconds of the run when its forward ended) for each slot held for the gradient
        self.slots: list[tuple[int, float]] = []
        self.spent: list[Spent] = []
        # stage -> peer that has computed and keeps its gradient, where peers keep what they send
        self.gradients: dict[int, int] = {}

    def use(self, stage: int) -> None:
        """Count that `stage` has used the gradient.

        Raises:
            LedgerError: it has used it before.

        """
        bit = 1 << stage
        if self.used & bit:
            raise LedgerError(f"stage {stage} used the gradient of one micro-batch twice")
        self.used |= bit

    @property
    def num_applied(self) -> int:
        """How many stages have used the gradient."""
        return self.used.bit_count()


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
    with_skipped: int = 0
    skipped_stages: int = 0
    taken_back: int = 0
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

    @property
    def completeness(self) -> float:
        """Share of the stages of applied micro-batches that did use them: 1, unless stages were skipped."""
        return 1.0 - self.skipped_stages / (self.applied * self.num_stages) if self.skipped_stages else 1.0

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
            self._count_skipped(microbatch, record)
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
            if record.used:
                self.partially_applied += 1
        return record

    def _count_skipped(self, microbatch: int, record: MicrobatchRecord) -> None:
        skipped = (record.skipped & ~record.used).bit_count()
        if record.num_applied + skipped != self.num_stages:
            raise LedgerError(f"micro-batch {microbatch} was used by {record.num_applied} of {self.num_stages} stages")
        self.with_skipped += 1
        self.skipped_stages += skipped

    def again(self, microbatch: int) -> int:
        """Begin an open micro-batch again and return its new number; the old one is void from now on."""
        record = self.open.pop(microbatch)
        record.attempts += 1
        number = microbatch + (1 << ATTEMPT_BITS)
        self.open[number] = record
        return number

    def take_back(self, record: MicrobatchRecord, reason: str) -> None:
        """Turn an applied micro-batch into a dropped one: a stage has lost what it made of its gradient."""
        self.applied -= 1
        self.taken_back += 1
        self.partially_applied += 1
        self.dropped_by_reason[reason] += 1
        if record.staleness:
            self.stale_applied -= 1
            self.staleness_sum -= record.staleness
        if record.attempts:
            self.redone -= 1

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
            "skipped_stages": self.skipped_stages,
            "mean_staleness": self.staleness_sum / (self.applied * self.num_stages) if self.applied else 0.0,
            "dropped_by_reason": dict(sorted(self.dropped_by_reason.items())),
        }
