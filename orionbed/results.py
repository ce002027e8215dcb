"""What a backend measured, before anything is derived from it."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orionbed.journal import Entry
from orionbed.ledger import Ledger
from orionbed.plan import Plan
from orionbed.schedule.actions import Kind
from orionbed.tracing import Trace

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Epoch:
    """A training phase and the merge after it; for a static schedule without merges the whole run."""

    index: int
    start_s: float
    training_end_s: float
    end_s: float
    applied: int
    dropped: int


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that happened to the run or to a peer (`peer` -1: to all), for the timeline."""

    start_s: float
    end_s: float
    kind: str
    peer: int = -1
    detail: str = ""


MERGE_MARKS = ("merge", "merge-beside")
"""Kinds of marks: merges that training stopped for, and those beside it."""


@dataclass(slots=True)
class MergeCounts:
    """What merges came to. `covered` is the share of a stage's weights that each merge averaged, one after the other.

    `failures` counts peers that fell silent, `retries` tries that were begun anew, `refused` stages whose peers kept
    their own weights after the last try. `exchanges_s` is how long each stage's exchange took, where peers exchange
    among themselves. `arrivals_s` are, per merge, the seconds after which each peer's upload was there, or that
    exchange was through; peers that were too late are not in it.
    """

    covered: list[float] = field(default_factory=list)
    failures: int = 0
    retries: int = 0
    refused: int = 0
    exchanges_s: list[float] = field(default_factory=list)
    arrivals_s: list[list[float]] = field(default_factory=list)


@dataclass(slots=True)
class RunResult:
    """Everything a backend hands over. Seconds are seconds of the run, not of the computer that ran it.

    `work_s[kind]` and `num_done[kind]` are seconds and counts of finished operations per peer; `thrown_s` and
    `unfinished_s` are the parts of `work_s` spent on micro-batches that were dropped, or still in the pipeline at the
    end. `other_s[peer, cause]` is all the rest of each peer's time, by cause code of `orionbed.tracing`.
    `aborted` says why a run ended before its target; empty for a run that reached it. `journal` is what
    peers wrote down themselves, where they are processes. `backend_block` is what this
    backend alone has to say; it stands in the summary under the backend's name. `orchestrator` is what there is to say
    of the life of peers and of what they knew, empty where neither was asked for; `recovery` what became of
    micro-batches in flight when peers were lost. Without `has_baseline` the scenario's
    datacenter is one of other GPUs than those that ran, and there is nothing to compare with.
    """

    plan: Plan
    backend: str
    seed: int
    duration_s: float
    startup_s: float
    applied_s: Floats
    ledger: Ledger
    epochs: list[Epoch]
    marks: list[Mark]
    work_s: dict[Kind, Floats]
    num_done: dict[Kind, NDArray[np.int64]]
    thrown_s: dict[Kind, Floats]
    unfinished_s: dict[Kind, Floats]
    other_s: Floats
    bytes_up: Floats
    bytes_down: Floats
    bytes_boundary: float
    bytes_merge_up: float
    bytes_merge_down: float
    bytes_storage_read: float
    merges_missed: int
    num_moves: int
    num_syncs: int
    syncing_s: float
    bytes_sync: float
    trace: Trace | None
    events: int
    wall_s: float
    aborted: str = ""
    warnings: list[dict[str, str]] = field(default_factory=list)
    faults: list[dict[str, Any]] = field(default_factory=list)
    journal: list[Entry] = field(default_factory=list)
    backend_block: dict[str, Any] = field(default_factory=dict)
    orchestrator: dict[str, Any] = field(default_factory=dict)
    recovery: dict[str, Any] = field(default_factory=dict)
    has_baseline: bool = True
    merge_counts: MergeCounts = field(default_factory=MergeCounts)

    @property
    def training_s(self) -> float:
        """Seconds in training phases."""
        return sum(epoch.training_end_s - epoch.start_s for epoch in self.epochs)

    @property
    def merging_s(self) -> float:
        """Seconds between a training phase's end and the next one's start."""
        return sum(epoch.end_s - epoch.training_end_s for epoch in self.epochs)
