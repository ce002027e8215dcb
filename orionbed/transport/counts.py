"""What went between two peers, as each of them counts it. Bytes are those of bodies."""

from dataclasses import dataclass


@dataclass(slots=True)
class SentCount:
    """What was sent to one peer: for the first time, again, and what became of that.

    A message that fails may have arrived all the same, if only its acknowledgement was lost. `num_unsent` messages
    failed before any of them was written; they count nowhere else.
    """

    target: int
    num_messages: int = 0
    num_bytes: int = 0
    num_repeated: int = 0
    repeated_bytes: int = 0
    num_acknowledged: int = 0
    acknowledged_bytes: int = 0
    num_failed: int = 0
    failed_bytes: int = 0
    num_unsent: int = 0
    num_connections: int = 0


@dataclass(slots=True)
class ReceivedCount:
    """What came from one life of a peer: delivered, here already and dropped, or damaged and refused."""

    source: int
    life: int
    num_messages: int = 0
    num_bytes: int = 0
    num_duplicates: int = 0
    duplicate_bytes: int = 0
    num_damaged: int = 0
    damaged_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Counters:
    """The counts of one endpoint.

    `num_corrupted` messages came damaged; `num_resent` were sent again from here; `num_reconnects` connections were
    opened to a peer that had had one before.
    """

    sent: tuple[SentCount, ...]
    received: tuple[ReceivedCount, ...]
    num_corrupted: int
    num_resent: int
    num_reconnects: int
