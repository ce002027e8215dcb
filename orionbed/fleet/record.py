"""Everything the participants of a run report, as it comes in: the raw material of its result."""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from orionbed import tracing
from orionbed.absences import LIFETIME
from orionbed.journal import Entry
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
    """What one life of a peer accounted for, what it was doing when last heard of, and the last second it told of."""

    accounted_s: float = 0.0
    heard_s: float = 0.0
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
        self.losses: list[tuple[float, int, float]] = []
        self.failures: list[tuple[int, int, float, float]] = []
        self.reasons: dict[int, str] = {}  # why peers are away, where churn took them
        self._crashed_s: dict[int, float] = {}
        self._created_s: dict[int, float] = {}
        self._last_number: dict[int, int] = {}  # by replica, of the micro-batches that its first stage has made
        self._last_created_applied_s = -1.0
        # (peer, life) -> micro-batches that came to it or were made there, and did not leave again
        self._held: dict[tuple[int, int], set[int]] = defaultdict(set)
        self._made: dict[tuple[int, int], set[int]] = defaultdict(set)
        self._num_chunks = num_chunks
        self._uses: dict[int, int] = defaultdict(int)
        self._decided: set[int] = set()

    def report(self, peer: int, message: dict[str, Any]) -> None:
        """Take in a peer's report."""
        life = self.lives[peer, message["life"]]
        life.accounted_s, *life.cause_s = message["account"]
        life.doing = message["doing"]
        life.heard_s = max(life.heard_s, life.accounted_s, *(row[0] for row in message["entries"]))
        for step, source, microbatch, start_s, end_s, num_bytes in message["transfers"]:
            self.transfers.append((peer, step, source, microbatch, start_s, end_s, num_bytes))
            self._held[peer, message["life"]].add(microbatch)
        for target, at_s, num_bytes in message["failures"]:
            self.failures.append((peer, target, at_s, num_bytes))
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
                made_s = self._created_s.get(entry.microbatch, 0.0)
                self._last_created_applied_s = max(self._last_created_applied_s, made_s)
        elif entry.event == "created":
            self._created_s[entry.microbatch] = entry.at_s
            self._last_number[entry.replica] = max(entry.microbatch, self._last_number.get(entry.replica, -1))
            self._held[entry.peer, entry.life].add(entry.microbatch)
            self._made[entry.peer, entry.life].add(entry.microbatch)
        elif entry.event in {"forward", "backward"}:
            self._held[entry.peer, entry.life].discard(entry.microbatch)
        elif entry.event == "dropped":
            self._decided.add(entry.microbatch)
        elif entry.event == "crashed" and entry.peer not in self._crashed_s:
            # Else it was lost again before it could say that it was back: it has been away all along.
            self._crashed_s[entry.peer] = entry.at_s
            self.lost_life(entry.peer, entry.life, entry.at_s)
        elif entry.event == "returned":
            self._away(entry.peer, entry.life - 1, entry.at_s)
        elif entry.event == "retried":
            self._decided.discard(entry.microbatch)

    def applied_since(self, at_s: float) -> bool:
        """Whether a micro-batch has been applied that was created after a second of the run."""
        return self._last_created_applied_s >= at_s

    def loss_curve(self) -> list[tuple[float, float]]:
        """Return seconds of the run and losses, in the order of time."""
        return [(at_s, loss) for at_s, _, loss in sorted(self.losses)]

    def next_ordinal(self, replica: int, num_replicas: int) -> int:
        """Return where a replica's first stage goes on with its numbers; see `orionbed.training.cursor`."""
        last = self._last_number.get(replica)
        return 0 if last is None else last // num_replicas + 1

    def held_by(self, peer: int, life: int, *, was_first: bool) -> set[int]:
        """Return the undecided micro-batches that are lost with a peer: queued there, or made there."""
        found = self._held.pop((peer, life), set()) | (self._made[peer, life] if was_first else set())
        return found - self._decided

    def failed_bytes(self, peers: set[int], pairs: set[tuple[int, int]], from_s: float, to_s: float) -> float:
        """Return the bytes of messages to these peers or on these ways that could not be delivered in that time."""
        return sum(
            num_bytes
            for source, target, at_s, num_bytes in self.failures
            if from_s <= at_s <= to_s and (target in peers or (source, target) in pairs)
        )

    def lost_life(self, peer: int, life: int, at_s: float) -> None:
        """A peer's life ended at `at_s`: what it did not account for any more was in vain."""
        lost = self.lives[peer, life]
        if at_s > lost.accounted_s:
            lost.cause_s[GONE.get(lost.doing, tracing.CAUSE_BENCHED)] += at_s - lost.accounted_s
            lost.accounted_s = at_s

    def _away(self, peer: int, life: int, until_s: float) -> None:
        """Charge the time during which no process of a peer lived."""
        since_s = self._crashed_s.pop(peer)
        lost = self.lives[peer, life]
        lost.cause_s[tracing.CAUSE_DOWN] += until_s - since_s
        reason = self.reasons.pop(peer, LIFETIME)
        self.marks.append(Mark(since_s, until_s, "down", peer, "" if reason == LIFETIME else reason))

    def close(self, end_s: float, finished: set[int], num_peers: int) -> None:
        """Account for all time to the end of the run, also of those who are away or could not tell any more."""
        for peer in list(self._crashed_s):
            self._away(peer, self._last_life(peer), end_s)
            finished = finished | {peer}
        for peer in set(range(num_peers)) - finished:
            self.lost_life(peer, self._last_life(peer), end_s)

    def _last_life(self, peer: int) -> int:
        return max((life for index, life in self.lives if index == peer), default=0)
