"""What a journal says became of every micro-batch: read once, in order of time, for the audit and the ledger."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf
from typing import Literal

from orionbed.journal import Entry, in_order

Status = Literal["applied", "dropped", "lost", "in flight"]


class Fate:
    """One micro-batch. `applied` has what still counts: steps that were given up are taken out again."""

    __slots__ = (
        "aborted", "applied", "backward", "created", "created_s", "dropped", "heard_s", "holding", "left_out",
        "microbatch", "refused", "replica", "retried", "sample", "staleness", "steps_at", "swallowed", "under_way",
    )  # fmt: skip

    def __init__(self, microbatch: int) -> None:
        self.microbatch = microbatch
        self.sample = ""
        self.created = 0
        self.created_s = inf
        self.replica = -1
        # chunks that its gradient has come to, used or not
        self.backward: set[int] = set()
        self.applied: dict[int, list[Entry]] = {}
        # chunks that have begun with it and have not applied it: peer, life, time
        self.under_way: dict[int, tuple[int, int, float]] = {}
        # chunks where it is in the accumulator when the run ends
        self.holding: set[int] = set()
        # chunks that took a step without it although it was part of that step, and when
        self.left_out: dict[int, float] = {}
        # chunks where its gradient was in the memory of a peer that crashed before it took a step
        self.swallowed: set[int] = set()
        self.dropped: str | None = None
        self.aborted = False
        self.retried = 0
        self.refused = 0
        # when it last got on; being applied at the next step of a peer is no news of it
        self.heard_s = -inf
        self.steps_at: dict[int, int] = {}
        self.staleness = 0

    def status(self, num_chunks: int) -> Status:
        """Return what became of it; `lost`: peers crashed with its gradients, and nothing else is missing."""
        if len(self.applied) == num_chunks:
            return "applied"
        if self.dropped is not None:
            return "dropped"
        if self.swallowed and len(self.applied.keys() | self.swallowed) == num_chunks:
            return "lost"
        return "in flight"


@dataclass(slots=True)
class History:
    """Everything that the rules are checked against; `wrong` has by rule what was found while reading."""

    num_chunks: int
    fixed_batch: bool
    fates: dict[int, Fate] = field(default_factory=dict)
    adopted: list[Entry] = field(default_factory=list)
    by_peer: dict[int, list[Entry]] = field(default_factory=lambda: defaultdict(list))
    endings: list[Entry] = field(default_factory=list)
    dropped: list[Entry] = field(default_factory=list)
    stages: set[int] = field(default_factory=set)
    replicas_of_chunk: dict[int, set[int]] = field(default_factory=lambda: defaultdict(set))
    down: dict[int, int] = field(default_factory=dict)
    # accumulated and not yet applied: (peer, life, chunk) -> micro-batch -> since when
    held: dict[tuple[int, int, int], dict[int, float]] = field(default_factory=lambda: defaultdict(dict))
    # (peer, life, chunk) -> when it took its last optimizer step
    stepped_s: dict[tuple[int, int, int], float] = field(default_factory=dict)
    # by peer, in order: what it applied and committed that still counts
    uses: dict[int, list[Entry]] = field(default_factory=lambda: defaultdict(list))
    commits: dict[int, list[Entry]] = field(default_factory=lambda: defaultdict(list))
    # by replica: micro-batches on their way
    under_way: dict[int, dict[int, Fate]] = field(default_factory=lambda: defaultdict(dict))
    # (replica, chunk) -> the last optimizer step that it took and that still counts
    newest: dict[tuple[int, int], int] = field(default_factory=dict)
    wrong: dict[int, list[str]] = field(default_factory=lambda: defaultdict(list))

    @property
    def committed(self) -> list[Entry]:
        """Commits that were not taken back."""
        return [entry for entries in self.commits.values() for entry in entries]

    def fate(self, microbatch: int) -> Fate:
        """Return the record of a micro-batch, a new one when nothing was heard of it before."""
        found = self.fates.get(microbatch)
        if found is None:
            found = self.fates[microbatch] = Fate(microbatch)
        return found


def read(entries: Iterable[Entry], num_chunks: int, *, fixed_batch: bool) -> History:
    """Return what the entries say, in whatever order those of different peers come."""
    history = History(num_chunks, fixed_batch)
    for entry in in_order(entries):
        if entry.microbatch >= 0:
            fate = history.fate(entry.microbatch)
            if entry.event not in {"applied", "refused"}:
                fate.heard_s = max(fate.heard_s, entry.at_s)
            _of_microbatch(history, fate, entry)
        else:
            _of_peer(history, entry)
        if entry.peer >= 0:
            history.by_peer[entry.peer].append(entry)
        if entry.chunk >= 0 and entry.stage >= 0:
            history.stages.add(entry.stage)
    for (_, _, chunk), held in history.held.items():
        for microbatch in held:
            history.fates[microbatch].holding.add(chunk)
    for key in list(history.held):
        _look_for_left_out(history, key)
    for fate in history.fates.values():
        _look_for_passed(history, fate)
        for chunk, applied in fate.applied.items():
            for use in applied:
                at = (use.replica, chunk)
                history.newest[at] = max(history.newest.get(at, use.step), use.step)
    return history


def _of_microbatch(history: History, fate: Fate, entry: Entry) -> None:
    key = (entry.peer, entry.life, entry.chunk)
    match entry.event:
        case "created":
            _created(fate, entry)
            history.under_way[fate.replica][fate.microbatch] = fate
        case "forward":
            fate.steps_at[entry.chunk] = entry.step
            fate.under_way[entry.chunk] = (entry.peer, entry.life, entry.at_s)
        case "backward":
            fate.backward.add(entry.chunk)
        case "accumulated":
            history.replicas_of_chunk[entry.chunk].add(entry.replica)
            _accumulated(history, fate, entry)
        case "applied":
            if history.held[key].pop(fate.microbatch, None) is None:
                history.wrong[1].append(f"{_named(entry)} was applied without having been accumulated there")
            fate.applied.setdefault(entry.chunk, []).append(entry)
            fate.under_way.pop(entry.chunk, None)
            history.stepped_s[key] = max(entry.at_s, history.stepped_s.get(key, -inf))
            history.uses[entry.peer].append(entry)
            if len(fate.applied) == history.num_chunks:
                history.under_way[fate.replica].pop(fate.microbatch, None)
        case "dropped":
            fate.dropped = entry.detail if fate.dropped is None else fate.dropped
            history.dropped.append(entry)
            history.under_way[fate.replica].pop(fate.microbatch, None)
        case "retried":
            fate.retried += 1
            fate.dropped, fate.aborted = None, False
            fate.under_way.clear()
            fate.left_out.clear()
            history.under_way[fate.replica][fate.microbatch] = fate
        case "refused":
            fate.refused += 1


def _created(fate: Fate, entry: Entry) -> None:
    fate.created += 1
    if fate.created == 1:
        fate.sample, fate.created_s, fate.replica = entry.detail, entry.at_s, entry.replica
        fate.under_way[entry.chunk] = (entry.peer, entry.life, entry.at_s)


def _accumulated(history: History, fate: Fate, entry: Entry) -> None:
    held = history.held[entry.peer, entry.life, entry.chunk]
    if fate.microbatch in held:
        history.wrong[2].append(f"{_named(entry)} was accumulated twice for one step")
    elif entry.chunk in fate.applied:
        history.wrong[2].append(f"{_named(entry)} was accumulated after it had been applied; it should be refused")
    held[fate.microbatch] = entry.at_s
    fate.backward.add(entry.chunk)
    before = fate.steps_at.get(entry.chunk, -1)
    if before >= 0 and entry.step > before:
        fate.staleness += entry.step - before


def _of_peer(history: History, entry: Entry) -> None:
    match entry.event:
        case "committed":
            history.commits[entry.peer].append(entry)
            # Whatever was in the accumulators of the peer is in this version, or was left out of it.
            for key in ((entry.peer, entry.life, entry.chunk), *history.held):
                if key[:2] == (entry.peer, entry.life):
                    history.stepped_s[key] = max(entry.at_s, history.stepped_s.get(key, -inf))
        case "adopted":
            history.adopted.append(entry)
            if history.fixed_batch:  # what it did after that version is not in it
                _take_back(history, {entry.peer}, entry.step + 1)
        case "crashed":
            history.down[entry.peer] = entry.replica
            _forget(history, {entry.peer}, swallowed=True)
        case "returned":
            history.down.pop(entry.peer, None)
        case "aborted":
            peers = {entry.peer} | {peer for peer, replica in history.down.items() if replica == entry.replica}
            if entry.peer < 0:
                peers |= {peer for peer, rows in history.by_peer.items() if rows[-1].replica == entry.replica}
            for fate in history.under_way[entry.replica].values():
                _look_for_passed(history, fate)
                fate.aborted = True
                fate.under_way.clear()
            _forget(history, peers, swallowed=False)
            _take_back(history, peers, entry.step)
        case "recovered" | "gave_up":
            history.endings.append(entry)


def _take_back(history: History, peers: set[int], step: int) -> None:
    """Take out what these peers applied and committed in this step and later ones."""
    for peer in peers:
        uses, commits = history.uses[peer], history.commits[peer]
        while uses and uses[-1].step >= step:
            use = uses.pop()
            fate = history.fates[use.microbatch]
            fate.applied[use.chunk] = [other for other in fate.applied[use.chunk] if other is not use]
            if not fate.applied[use.chunk]:
                del fate.applied[use.chunk]
            if fate.dropped is None:
                history.under_way[fate.replica][fate.microbatch] = fate
        while commits and commits[-1].step >= step:
            commits.pop()


def _forget(history: History, peers: set[int], *, swallowed: bool) -> None:
    """Empty the accumulators of these peers."""
    for key, held in history.held.items():
        if key[0] in peers:
            _look_for_left_out(history, key)
            for microbatch in held if swallowed else ():
                if key[2] not in history.fates[microbatch].left_out:
                    history.fates[microbatch].swallowed.add(key[2])
            held.clear()


def _look_for_left_out(history: History, key: tuple[int, int, int]) -> None:
    """Note what has been in this accumulator since before the last step, and was not in that."""
    stepped_s = history.stepped_s.get(key, -inf)
    for microbatch, since_s in history.held[key].items():
        if stepped_s > since_s:
            history.fates[microbatch].left_out[key[2]] = stepped_s


def _look_for_passed(history: History, fate: Fate) -> None:
    """With a fixed batch, note the chunks that had begun with it and took a step without it."""
    for chunk, (peer, life, since_s) in fate.under_way.items() if history.fixed_batch else ():
        stepped_s = history.stepped_s.get((peer, life, chunk), -inf)
        if stepped_s > since_s:
            fate.left_out[chunk] = stepped_s


def _named(entry: Entry) -> str:
    return f"micro-batch {entry.microbatch} on chunk {entry.chunk} (peer {entry.peer}, {entry.at_s:.6g} s)"
