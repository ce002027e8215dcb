"""From the peers' journals to the ledger: what became of every micro-batch, as the simulator would count it."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from orionbed.fleet.record import Span
from orionbed.journal import Entry, reason_of
from orionbed.ledger import Ledger, MicrobatchRecord
from orionbed.results import Floats

UNDONE = "step given up"


@dataclass(slots=True)
class _Fate:
    """One micro-batch: on how many chunks its gradient was used, and why it was dropped, if it was."""

    uses: int = 0
    finished_s: float | None = None
    dropped: str | None = None
    retried: bool = False
    staleness: int = 0
    steps: dict[tuple[int, int], int] = field(default_factory=dict)

    @property
    def applied(self) -> bool:
        """Whether all chunks have used its gradient, in steps that were not given up."""
        return self.finished_s is not None and self.dropped != UNDONE


class Tally:
    """Reads journals in order of time. A micro-batch counts as applied when the last chunk has its gradient."""

    def __init__(self, entries: list[Entry], num_chunks: int) -> None:
        self.num_chunks = num_chunks
        self._fates: dict[int, _Fate] = {}
        # optimizer steps of each life of a peer so far
        self._steps: Counter[tuple[int, int]] = Counter()
        self._last_step: dict[tuple[int, int], int] = {}
        for entry in entries:
            self._read(entry)

    def _read(self, entry: Entry) -> None:
        life = (entry.peer, entry.life)
        if entry.event == "created":
            self._fates[entry.microbatch] = _Fate()
        if entry.event == "applied" and self._last_step.get(life) != entry.step:
            self._last_step[life] = entry.step
            self._steps[life] += 1
        fate = self._fates.get(entry.microbatch)
        if fate is None:
            return
        if entry.event == "forward":
            fate.steps[entry.peer, entry.chunk] = self._steps[life]
        elif entry.event == "accumulated":
            fate.uses += 1
            fate.staleness += self._steps[life] - fate.steps.get((entry.peer, entry.chunk), self._steps[life])
            if fate.uses == self.num_chunks:
                fate.finished_s = entry.at_s
        elif entry.event == "dropped" and fate.dropped in {None, UNDONE}:
            fate.dropped = reason_of(entry.detail).partition(":")[0]
        elif entry.event == "retried":
            fate.retried, fate.dropped = True, None

    @property
    def applied(self) -> set[int]:
        """Micro-batches whose gradient all chunks have used."""
        return {number for number, fate in self._fates.items() if fate.applied}

    def applied_s(self) -> Floats:
        """Return the seconds at which they were, in order (n,)."""
        times = [fate.finished_s for fate in self._fates.values() if fate.applied]
        return np.sort(np.array(times, dtype=np.float64))

    def ledger(self) -> Ledger:
        """Return the ledger."""
        ledger = Ledger(self.num_chunks)
        for number, fate in self._fates.items():
            ledger.created += 1
            record = ledger.open[number] = MicrobatchRecord()
            record.used, record.attempts = (1 << fate.uses) - 1, int(fate.retried)
            record.staleness = fate.staleness
            if fate.applied:
                ledger.apply(number)
            elif fate.dropped is not None:
                ledger.drop(number, fate.dropped)
        return ledger


def in_vain(spans: list[Span], tally: Tally, ledger: Ledger) -> tuple[list[Span], list[Span]]:
    """Return the spans of work on micro-batches that were dropped, and on those that are still under way."""
    applied = tally.applied
    thrown: list[Span] = []
    unfinished: list[Span] = []
    for span in spans:
        if span.microbatch >= 0 and span.microbatch not in applied:
            (unfinished if span.microbatch in ledger.open else thrown).append(span)
    return thrown, unfinished
