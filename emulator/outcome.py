"""From what the participants reported to the result of a run, in the form that every backend gives."""

from collections import Counter, defaultdict
from typing import Any

import numpy as np

from emulator.members import Member
from emulator.record import Record
from orionbed import tracing
from orionbed.journal import Entry
from orionbed.ledger import Ledger, MicrobatchRecord
from orionbed.plan import Plan
from orionbed.results import Floats, RunResult
from orionbed.schedule.actions import KINDS, Kind
from orionbed.tracing import CAUSES, TraceRecorder

_KIND_OF_CODE: dict[int, Kind] = {
    tracing.KIND_F: "F",
    tracing.KIND_B: "B",
    tracing.KIND_I: "I",
    tracing.KIND_W: "W",
    tracing.KIND_STEP: "STEP",
}


def ledger_of(entries: list[Entry], num_chunks: int) -> tuple[Ledger, Floats]:
    """Return the ledger that journals tell of, and the seconds at which micro-batches had been used by all chunks.

    A micro-batch that all chunks have used and that was dropped all the same (its step was given up) counts as dropped.
    """
    ledger = Ledger(num_chunks)
    uses: Counter[int] = Counter()
    finished: dict[int, float] = {}
    dropped: dict[int, tuple[float, str]] = {}
    retried: set[int] = set()
    created: dict[int, float] = {}
    for entry in entries:
        number = entry.microbatch
        if entry.event == "created":
            created[number] = entry.at_s
        elif entry.event == "accumulated":
            uses[number] += 1
            if uses[number] == num_chunks:
                finished[number] = entry.at_s
        elif entry.event == "dropped" and number not in dropped:
            dropped[number] = (entry.at_s, entry.detail)
        elif entry.event == "retried":
            retried.add(number)
    for number in created:
        ledger.created += 1
        record = ledger.open[number] = MicrobatchRecord()
        record.num_applied, record.attempts = uses[number], int(number in retried)
        undone = number in dropped and dropped[number][1].startswith("step given up")
        if number in finished and not undone:
            ledger.apply(number)
        elif number in dropped:
            ledger.drop(number, dropped[number][1].partition(":")[0].partition(" [")[0])
    times = sorted(
        at_s
        for number, at_s in finished.items()
        if number in created
        and number not in ledger.open
        and not (number in dropped and dropped[number][1].startswith("step given up"))
    )
    return ledger, np.array(times, dtype=np.float64)


class Outcome:
    """Puts the pieces together."""

    def __init__(self, plan: Plan, record: Record, members: list[Member], end_s: float) -> None:
        self._plan = plan
        self._record = record
        self._members = members
        self._end_s = end_s
        self._num_peers = len(plan.peers)

    def result(self, *, seed: int, wall_s: float, scale: float, aborted: str, num_missed: int) -> RunResult:
        """Return the result of the run."""
        record, plan = self._record, self._plan
        ledger, applied_s = ledger_of(sorted(record.entries, key=lambda e: e.at_s), plan.num_chunks)
        work, done = self._operations()
        thrown, unfinished = self._in_vain(
            ledger, {entry.microbatch for entry in record.entries if entry.event == "dropped"}
        )
        up, down = self._bytes(scale)
        store = self._store()
        return RunResult(
            plan=plan,
            backend="emulator",
            seed=seed,
            duration_s=self._end_s,
            startup_s=0.0,
            applied_s=applied_s[applied_s <= self._end_s],
            ledger=ledger,
            epochs=record.epochs,
            marks=sorted(record.marks, key=lambda mark: (mark.start_s, mark.peer)),
            work_s=work,
            num_done=done,
            thrown_s=thrown,
            unfinished_s=unfinished,
            other_s=self._causes(),
            bytes_up=up,
            bytes_down=down,
            bytes_boundary=sum(
                float(m.final["bytes_boundary"])
                for m in self._finals()
                if "bytes_boundary" in (m.final or {}) and m.final
            ),
            bytes_merge_up=store.get("bytes_stored", 0.0),
            bytes_merge_down=store.get("bytes_read", 0.0),
            bytes_storage_read=store.get("bytes_read", 0.0),
            merges_missed=num_missed,
            num_moves=0,
            num_syncs=0,
            syncing_s=0.0,
            bytes_sync=0.0,
            trace=self._trace(),
            events=sum(int((m.final or {}).get("events", 0)) for m in self._members),
            wall_s=wall_s,
            aborted=aborted,
        )

    def _finals(self) -> list[Member]:
        return [member for member in self._members if member.final is not None]

    def _store(self) -> dict[str, Any]:
        found = [m.final for m in self._members if m.role == "store" and m.final is not None]
        return found[0] if found else {}

    def _zeros(self) -> dict[Kind, Floats]:
        return {kind: np.zeros(self._num_peers) for kind in KINDS}

    def _operations(self) -> tuple[dict[Kind, Floats], dict[Kind, Any]]:
        work, done = self._zeros(), {kind: np.zeros(self._num_peers, dtype=np.int64) for kind in KINDS}
        for span in self._record.spans:
            if span.lane == tracing.LANE_COMPUTE and span.kind in _KIND_OF_CODE:
                kind = _KIND_OF_CODE[span.kind]
                work[kind][span.peer] += span.end_s - span.start_s
                done[kind][span.peer] += 1
        return work, done

    def _in_vain(self, ledger: Ledger, dropped: set[int]) -> tuple[dict[Kind, Floats], dict[Kind, Floats]]:
        """Seconds of operations on micro-batches that were dropped, and on those that are still under way."""
        thrown, unfinished = self._zeros(), self._zeros()
        by_number: dict[int, list[Any]] = defaultdict(list)
        for span in self._record.spans:
            if span.lane == tracing.LANE_COMPUTE and span.kind in _KIND_OF_CODE and span.microbatch >= 0:
                by_number[span.microbatch].append(span)
        applied = self._applied(ledger, dropped)
        for number, spans in by_number.items():
            if number in applied:
                continue
            into = unfinished if number in ledger.open else thrown
            for span in spans:
                into[_KIND_OF_CODE[span.kind]][span.peer] += span.end_s - span.start_s
        return thrown, unfinished

    def _applied(self, ledger: Ledger, dropped: set[int]) -> set[int]:
        uses: Counter[int] = Counter(e.microbatch for e in self._record.entries if e.event == "accumulated")
        undone = {
            e.microbatch for e in self._record.entries if e.event == "dropped" and e.detail.startswith("step given")
        }
        del dropped
        return {
            n
            for n, count in uses.items()
            if count >= self._plan.num_chunks and n not in ledger.open and n not in undone
        }

    def _causes(self) -> Floats:
        causes = np.zeros((self._num_peers, len(CAUSES)))
        for (peer, _), life in self._record.lives.items():
            causes[peer] += np.array(life.cause_s)
        for member in self._finals():
            if member.role == "peer" and member.final is not None:
                last = self._record.lives[member.index, member.life]
                causes[member.index] += np.array(member.final["account"][1:]) - np.array(last.cause_s)
        return causes

    def _bytes(self, scale: float) -> tuple[Floats, Floats]:
        up, down = np.zeros(self._num_peers), np.zeros(self._num_peers)
        for member in self._finals():
            if member.role == "peer" and member.final is not None:
                counters = member.final["counters"]
                up[member.index] += counters["departed_bytes"] * scale
                down[member.index] += counters["delivered_bytes"] * scale
        return up, down

    def _trace(self) -> tracing.Trace | None:
        if self._plan.scenario.run.trace == "summary":
            return None
        peers = self._plan.peers
        recorder = TraceRecorder([peer.name for peer in peers])
        # With a fixed batch a trace counts the micro-batches of each pipeline by themselves.
        per_pipeline = 1 if self._plan.order is None else self._plan.num_replicas
        for span in self._record.spans:
            place = (span.step, peers[span.peer].replica, peers[span.peer].stage, span.peer)
            recorder.add(
                *place,
                span.lane,
                span.kind,
                span.microbatch // per_pipeline,
                0,
                span.start_s,
                span.end_s,
                span.num_bytes,
                span.cause,
            )
        for target, step, source, microbatch, start_s, end_s, num_bytes in self._record.transfers:
            for peer, lane, kind in (
                (source, tracing.LANE_UP, tracing.KIND_SEND),
                (target, tracing.LANE_DOWN, tracing.KIND_RECEIVE),
            ):
                place = (step, peers[peer].replica, peers[peer].stage, peer)
                recorder.add(
                    *place, lane, kind, microbatch // per_pipeline, 0, start_s, end_s, num_bytes, tracing.CAUSE_NONE
                )
        return recorder.table()
