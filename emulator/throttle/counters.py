"""What went over the connections, counted at both ends, and the law that nothing is lost."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

_MOST_SAMPLES: Final = 2**20


@dataclass(frozen=True, slots=True)
class SentCount:
    """Body bytes that a connection's source has let depart, for the first time and again after damage; its chunks."""

    connection: str
    source: int
    target: int
    first_bytes: int
    repeated_bytes: int
    num_chunks: int
    is_open: bool


@dataclass(frozen=True, slots=True)
class ReceivedCount:
    """Body bytes of one connection at its target: received in fact, and what became of them.

    What is neither delivered nor destroyed nor damaged (found by the checksum, sent again) is still under way.
    """

    connection: str
    source: int
    target: int
    received_bytes: int
    delivered_bytes: int
    damaged_bytes: int
    destroyed_bytes: int
    is_open: bool


@dataclass(frozen=True, slots=True)
class Counters:
    """The counts of one endpoint, one entry for each connection it has ever had.

    `num_corrupted` damaged chunks were found here; `num_resent` chunks were sent again from here; `num_reconnects`
    connections were opened to a peer that had had one before.
    """

    sent: tuple[SentCount, ...]
    received: tuple[ReceivedCount, ...]
    num_corrupted: int
    num_resent: int
    num_reconnects: int


@dataclass(frozen=True, slots=True)
class Balance:
    """Bytes over all endpoints: sent = delivered + in flight + destroyed, where damaged chunks count as destroyed."""

    sent_bytes: int
    delivered_bytes: int
    in_flight_bytes: int
    destroyed_bytes: int


def balance(counters: Iterable[Counters]) -> Balance:
    """Return the balance of all endpoints of a run; ValueError if the ends of a connection contradict each other.

    Exact when nothing moves; taken while bytes move, the ends may be counted at slightly different moments.
    """
    everything = list(counters)
    received = {count.connection: count for one in everything for count in one.received}
    sent_bytes = delivered = in_flight = destroyed = 0
    known = set()
    for count in (count for one in everything for count in one.sent):
        sent = count.first_bytes + count.repeated_bytes
        known.add(count.connection)
        other = received.get(count.connection)
        got = other.received_bytes if other else 0
        gone = other.destroyed_bytes + other.damaged_bytes if other else 0
        arrived = other.delivered_bytes if other else 0
        if got > sent or arrived + gone > got:
            raise ValueError(f"connection {count.connection}: sent {sent}, received {got}, used up {arrived + gone}")
        left = sent - arrived - gone
        if count.is_open and (other is None or other.is_open):
            in_flight += left
        else:
            destroyed += left
        sent_bytes += sent
        delivered += arrived
        destroyed += gone
    if strays := set(received) - known:
        raise ValueError(f"connections without a source: {sorted(strays)}")
    return Balance(sent_bytes, delivered, in_flight, destroyed)


class Lateness:
    """Real seconds by which things came after their time; of very many, every second one is kept."""

    def __init__(self) -> None:
        self._samples: list[float] = []
        self._every = 1
        self._count = 0
        self.max_s = 0.0

    def add(self, late_s: float) -> None:
        """Count one."""
        self.max_s = max(self.max_s, late_s)
        self._count += 1
        if self._count % self._every == 0:
            self._samples.append(late_s)
            if len(self._samples) >= _MOST_SAMPLES:
                self._samples = self._samples[::2]
                self._every *= 2

    def array(self) -> NDArray[np.float64]:
        """Return the samples (n,) in order."""
        return np.array(self._samples, dtype=np.float64)
