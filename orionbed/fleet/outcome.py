"""From what the participants reported to the result of a run, in the form that every backend gives."""

from typing import Any

import numpy as np

from orionbed import tracing
from orionbed.account import KIND_CODES
from orionbed.fleet.members import Member
from orionbed.fleet.record import Record, Span
from orionbed.fleet.tally import Tally, in_vain
from orionbed.journal import in_order
from orionbed.plan import Plan
from orionbed.results import Floats, RunResult
from orionbed.schedule.actions import KINDS, Kind
from orionbed.tracing import CAUSES, TraceRecorder

_KIND_OF_CODE: dict[int, Kind] = {code: kind for kind, code in KIND_CODES.items()}


class Outcome:
    """Puts the pieces together."""

    def __init__(self, plan: Plan, record: Record, members: list[Member], end_s: float) -> None:
        self._plan = plan
        self._record = record
        self._members = members
        self._end_s = end_s
        self._num_peers = len(plan.peers)

    def result(
        self, backend: str, *, seed: int, wall_s: float, scale: float, aborted: str, num_missed: int
    ) -> RunResult:
        """Return the result of the run; `scale` is what each byte that moved stands for."""
        record, plan = self._record, self._plan
        tally = Tally(in_order(record.entries), plan.num_chunks)
        ledger, applied_s = tally.ledger(), tally.applied_s()
        operations = [s for s in record.spans if s.lane == tracing.LANE_COMPUTE and s.kind in _KIND_OF_CODE]
        work, done = self._operations(operations)
        thrown, unfinished = (self._operations(spans)[0] for spans in in_vain(operations, tally, ledger))
        up, down = self._bytes(scale)
        store = self._store()
        return RunResult(
            plan=plan,
            backend=backend,
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
            bytes_boundary=self._sum("bytes_boundary"),
            bytes_merge_up=store.get("bytes_stored", 0.0),
            bytes_merge_down=store.get("bytes_read", 0.0),
            bytes_storage_read=store.get("bytes_read", 0.0),
            merges_missed=num_missed,
            num_moves=0,
            num_syncs=round(self._sum("num_syncs") / plan.num_replicas),
            syncing_s=self._sum("syncing_s") / plan.num_replicas,
            bytes_sync=self._sum("bytes_sync"),
            trace=self._trace(),
            events=int(self._sum("events")),
            wall_s=wall_s,
            aborted=aborted,
        )

    def _finals(self, role: str = "peer") -> list[tuple[Member, dict[str, Any]]]:
        return [(m, m.final) for m in self._members if m.role == role and m.final is not None]

    def _sum(self, key: str) -> float:
        """Return the sum over the peers of something that each told at the end."""
        return float(sum(final.get(key, 0.0) for _, final in self._finals()))

    def _store(self) -> dict[str, Any]:
        return next((final for _, final in self._finals("store")), {})

    def _operations(self, spans: list[Span]) -> tuple[dict[Kind, Floats], dict[Kind, Any]]:
        """Return seconds and counts of operations by kind and peer."""
        work = {kind: np.zeros(self._num_peers) for kind in KINDS}
        done = {kind: np.zeros(self._num_peers, dtype=np.int64) for kind in KINDS}
        for span in spans:
            kind = _KIND_OF_CODE[span.kind]
            work[kind][span.peer] += span.end_s - span.start_s
            done[kind][span.peer] += 1
        return work, done

    def _causes(self) -> Floats:
        causes = np.zeros((self._num_peers, len(CAUSES)))
        for (peer, _), life in self._record.lives.items():
            causes[peer] += np.array(life.cause_s)
        for member, final in self._finals():
            last = self._record.lives[member.index, member.life]
            causes[member.index] += np.array(final["account"][1:]) - np.array(last.cause_s)
        return causes

    def _bytes(self, scale: float) -> tuple[Floats, Floats]:
        up, down = np.zeros(self._num_peers), np.zeros(self._num_peers)
        for member, final in self._finals():
            counters = final.get("counters", {})
            up[member.index] += counters.get("departed_bytes", 0) * scale
            down[member.index] += counters.get("delivered_bytes", 0) * scale
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
