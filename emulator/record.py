"""Everything the participants of a run report, as it comes in: the raw material of its result."""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from orionbed.journal import Entry

from orionbed import tracing
from orionbed.results import Epoch, Mark
from orionbed.tracing import CAUSES

GONE = {"busy": tracing.CAUSE_THROWN_AWAY, "idle": tracing.CAUSE_UPSTREAM, "merging": tracing.CAUSE_MERGE_TRANSFER}


@dataclass(slots=True)
class Span:
    """A span of one peer's time, codes as in `orionbed.tracing`."""

    peer: int
    step: int
    lane: int
    kind: int
    microbatch: int
    start_s: float
    end_s: float
    num_bytes: float
    cause: int


@dataclass(slots=True)
class Life:
    """What one life of a peer accounted for, and what it was doing when last heard of."""

    accounted_s: float = 0.0
    cause_s: list[float] = field(default_factory=lambda: [0.0] * len(CAUSES))
    doing: str = "startup"


class Record:
    """Collects reports. `applied` counts micro-batches whose gradient all chunks have used."""

    def __init__(self, num_chunks: int) -> None:
        self.entries: list[Entry] = []
        self.spans: list[Span] = []
        self.transfers: list[tuple[int, int, int, int, float, float, float]] = []
        self.lives: dict[tuple[int, int], Life] = defaultdict(Life)
        self.marks: list[Mark] = []
        self.epochs: list[Epoch] = []
        self.applied = 0
        self.last_applied_s = 0.0
        self.losses: list[tuple[float, int, float]] = []
        self.received: dict[int, set[int]] = defaultdict(set)
        self._num_chunks = num_chunks
        self._uses: dict[int, int] = defaultdict(int)
        self._decided: set[int] = set()

    def report(self, peer: int, message: dict[str, Any]) -> None:
        """Take in a peer's report."""
        life = self.lives[peer, message["life"]]
        life.accounted_s, *life.cause_s = message["account"]
        life.doing = message["doing"]
        for step, source, microbatch, start_s, end_s, num_bytes in message["transfers"]:
            self.transfers.append((peer, step, source, microbatch, start_s, end_s, num_bytes))
            self.received[peer].add(microbatch)
        for row in message["entries"]:
            self.enter(Entry(*row))
        for step, lane, kind, microbatch, _, start_s, end_s, num_bytes, cause in message["spans"]:
            self.spans.append(Span(peer, step, lane, kind, microbatch, start_s, end_s, num_bytes, cause))

    def enter(self, entry: Entry) -> None:
        """Take in a line of a journal."""
        if entry.event == "loss":
            self.losses.append((entry.at_s, entry.microbatch, float(entry.detail)))
            return
        self.entries.append(entry)
        if entry.event == "accumulated":
            self._uses[entry.microbatch] += 1
            if self._uses[entry.microbatch] == self._num_chunks and entry.microbatch not in self._decided:
                self._decided.add(entry.microbatch)
                self.applied += 1
                self.last_applied_s = max(self.last_applied_s, entry.at_s)
        elif entry.event == "created":
            self.received[entry.peer].add(entry.microbatch)
        elif entry.event in {"forward", "backward"}:
            self.received[entry.peer].discard(entry.microbatch)
        elif entry.event == "dropped":
            self._decided.add(entry.microbatch)

    def is_open(self, microbatch: int) -> bool:
        """Whether a micro-batch has been neither applied nor dropped."""
        return microbatch not in self._decided

    def lost_life(self, peer: int, life: int, at_s: float) -> None:
        """A peer's life ended at `at_s`: what it did not account for any more was in vain."""
        lost = self.lives[peer, life]
        if at_s > lost.accounted_s:
            lost.cause_s[GONE.get(lost.doing, tracing.CAUSE_BENCHED)] += at_s - lost.accounted_s
            lost.accounted_s = at_s

    def charge(self, peer: int, life: int, cause: int, start_s: float, end_s: float) -> None:
        """Charge a peer's time while no process of it lived."""
        if end_s > start_s:
            self.lives[peer, life].cause_s[cause] += end_s - start_s
