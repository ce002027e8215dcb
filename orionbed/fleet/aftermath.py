"""What faults did to a run: whom they hit, what they destroyed, and that the run got over each of them in time."""

from math import isfinite
from typing import Any

from orionbed import tracing
from orionbed.faults import ResolvedFault, described
from orionbed.fleet.record import Record
from orionbed.fleet.supervising import AbortedRunError
from orionbed.journal import SUPERVISOR, Entry
from orionbed.plan import Plan


class Aftermath:
    """Watches the run get over its faults.

    A fault is over at its end, or where it has none at its start. The run has got over it when all whom it took away
    and who were to come back are there again, and a micro-batch has been applied that was created after its end.
    """

    def __init__(self, plan: Plan, record: Record, faults: tuple[ResolvedFault, ...], deadline_s: float) -> None:
        self._plan = plan
        self._record = record
        self._faults = {fault.id: fault for fault in faults}
        self._pending = dict.fromkeys(self._faults, 0.0)
        self._hit: set[str] = set()
        self._recovered_s: dict[str, float] = {}
        self._deadline_s = deadline_s
        self._checked_s = 0.0
        self._quiet_s = 0.0
        self._applied = 0

    def hit(self, fault: str) -> None:
        """A fault has found somebody."""
        self._hit.add(fault)

    def check(self, now_s: float, there: set[int], *, in_training: bool) -> None:
        """Note which faults are over; `there` are the peers that are not away. AbortedRunError after the deadline."""
        passed_s, self._checked_s = now_s - self._checked_s, now_s
        if not in_training:
            return
        self._quiet_s = 0.0 if self._record.applied > self._applied else self._quiet_s + passed_s
        self._applied = self._record.applied
        if self._quiet_s > self._deadline_s:
            raise AbortedRunError(f"no micro-batch was applied in {self._deadline_s:g} s of training")
        for name in list(self._pending):
            fault = self._faults[name]
            over_s = fault.end_s if isfinite(fault.end_s) else fault.start_s
            if now_s < over_s:
                continue
            back = set(fault.peers) if isfinite(fault.end_s) else set()
            if back <= there and self._record.applied_since(over_s):
                del self._pending[name]
                self._recovered_s[name] = now_s
                self._record.enter(Entry(now_s, "recovered", SUPERVISOR, detail=name))
                continue
            self._pending[name] += passed_s
            if self._pending[name] > self._deadline_s:
                self._record.enter(Entry(now_s, "gave_up", SUPERVISOR, detail=name))
                raise AbortedRunError(f"the run did not recover from fault {name} within {self._deadline_s:g} s")

    def rows(self, end_s: float) -> list[dict[str, Any]]:
        """Return a row for each fault: whether it hit anything, what it destroyed, when the run was over it."""
        found = []
        for name, fault in self._faults.items():
            row = described(fault, self._plan)
            row["hit"] = name in self._hit or self._touched(fault, end_s)
            row["destroyed_bytes"] = self._record.failed_bytes(
                set(fault.peers), set(fault.pairs), fault.start_s, fault.end_s
            )
            row["recovered_s"] = self._recovered_s.get(name)
            found.append(row)
        return found

    def _touched(self, fault: ResolvedFault, end_s: float) -> bool:
        """Whether anything was computed or on its way where the fault was, while it was there."""
        from_s, to_s = fault.start_s, min(fault.end_s, end_s)
        if fault.pairs:
            pairs = set(fault.pairs)
            return any(
                (source, target) in pairs and start < to_s and end > from_s
                for target, _, source, _, start, end, _ in self._record.transfers
            )
        if fault.kind in {"crash", "pause"}:
            return False
        return any(
            span.peer in fault.peers and span.lane == tracing.LANE_COMPUTE and from_s <= span.start_s < to_s
            for span in self._record.spans
        )
