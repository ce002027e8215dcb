"""What one fault did to a simulated run."""

from dataclasses import dataclass
from typing import Any

from orionbed.faults import ResolvedFault, described
from orionbed.plan import Plan


@dataclass(slots=True)
class Tally:
    """Whether a fault changed anything, bytes that it destroyed, micro-batches that were dropped at once because of it.

    `recovered_s` is when the run had got over it, `remark` what else there is to say of it, in words.
    """

    hit: bool = False
    destroyed_bytes: float = 0.0
    dropped: int = 0
    corrupted_chunks: int = 0
    recovered_s: float | None = None
    remark: str = ""

    def row(self, fault: ResolvedFault, plan: Plan) -> dict[str, Any]:
        """Return the summary's row of a fault."""
        row = described(fault, plan)
        row["hit"] = self.hit
        row["destroyed_bytes"] = self.destroyed_bytes
        row["recovered_s"] = self.recovered_s
        row["dropped"] = self.dropped
        if fault.kind == "corrupt":
            row["corrupted_chunks"] = self.corrupted_chunks
        row["remark"] = self.remark
        return row
