"""The journal: what happened to every micro-batch and every peer, one line each, written by all who take part.

`orionbed.audit` reads it to see that nothing was lost; nothing else may decide what became of a micro-batch.
"""

import json
from collections.abc import Iterable
from typing import Final, NamedTuple

SUPERVISOR: Final = -1

# What each event means; `step` and `detail` are those of the entry.
EVENTS: Final = {
    "created": "a micro-batch came into the world and its forward begins; detail: its sample id",
    "forward": "a chunk has done its forward",
    "backward": "a chunk has done its backward, or one half of it",
    "accumulated": "its gradient is in the accumulator of this chunk",
    "applied": "its gradient was part of optimizer step `step` of this chunk; detail: the divisor",
    "dropped": "it is given up; detail: the reason, and [fault ID] where a fault was the cause",
    "retried": "it is sent on its way again, or waits to be; what was said of it before is void",
    "refused": "a late duplicate came and was not used",
    "committed": "version `step` is the chunk's state; detail: hash of parameters and optimizer state",
    "adopted": "a peer that joins took over version `step`; detail: the hash",
    "crashed": "the peer is gone, with all that it had in memory; detail: the fault's id if there was one",
    "returned": "the peer is back, in its next life, and has yet to adopt a version",
    "aborted": "step `step` is given up: the peer is back at the version before it",
    "reset": "the peer drops what it keeps of all micro-batches, and what it has accumulated",
    "merged": "the peer has merged a slice of its stage for version `step`; detail: which one, of whose weights",
    "taken": "the peer takes over version `step` of its stage; detail: which slices of it the merge has made",
    "recovered": "the run goes on as before a fault; detail: the fault's id",
    "gave_up": "the run does not recover from a fault, and says so; detail: the fault's id",
}


class Entry(NamedTuple):
    """One line of the journal.

    `life` counts the restarts of the peer before; `microbatch` is unique in the run, -1 where none is meant; `step` is
    the peer's optimizer step, or the version of a commit; `source` the peer that made what a forward or backward took
    in, or that gave the version that is adopted. With a fixed batch per step, step s makes version s out of version
    s - 1, and version 0 is what training starts from. Within one life of a peer no two optimizer steps have the same
    number. Entries of one peer are in order of time.
    """

    at_s: float
    event: str
    peer: int
    life: int = 0
    stage: int = -1
    replica: int = -1
    chunk: int = -1
    microbatch: int = -1
    attempt: int = 0
    step: int = -1
    detail: str = ""
    source: int = -1


def to_json(entries: Iterable[Entry]) -> str:
    """Return the entries as a JSON list of arrays, one line each, values in the order of the fields."""
    lines = (json.dumps(entry, separators=(",", ":"), ensure_ascii=False, allow_nan=False) for entry in entries)
    return "[" + ",\n".join(lines) + "]\n"


def from_json(text: str) -> list[Entry]:
    """Return what `to_json` wrote.

    Raises:
        ValueError: the text is no such list.

    """
    entries = []
    rows = json.loads(text)
    for number, row in enumerate(rows if isinstance(rows, list) else [rows]):
        if not isinstance(row, list) or len(row) != len(Entry._fields):
            raise ValueError(f"entry {number} is not an array of {len(Entry._fields)} values")
        wrong = [name for name, value, like in zip(Entry._fields, row, _LIKE, strict=True) if not _is_like(value, like)]
        if wrong:
            raise ValueError(f"entry {number} has values of the wrong type: {', '.join(wrong)}")
        entries.append(Entry(float(row[0]), *row[1:]))
    return entries


def in_order(entries: Iterable[Entry]) -> list[Entry]:
    """Return the entries of several peers in order of time; those of one peer stay in their order."""
    return sorted(entries, key=lambda entry: entry.at_s)


def fault_of(detail: str) -> str | None:
    """Return the id of the fault that a `dropped` entry names as its cause."""
    _, opened, rest = detail.rpartition("[fault ")
    return rest.removesuffix("]") if opened and rest.endswith("]") else None


def reason_of(detail: str) -> str:
    """Return the reason of a `dropped` entry without the fault, so that equal ones count as one."""
    return detail.partition(" [fault ")[0] or "no reason given"


_LIKE: Final[tuple[type, ...]] = (float, str, int, int, int, int, int, int, int, int, str, int)


def _is_like(value: object, like: type) -> bool:
    if like is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, like) and not isinstance(value, bool)
