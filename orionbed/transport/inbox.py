"""What has come for a group of ranks and waits to be taken: the k-th message of a kind belongs to who asked k-th."""

import threading
from collections import Counter
from collections.abc import Callable
from time import monotonic
from typing import Final, NamedTuple

from orionbed.transport.endpoint import Delivery

ABSENT_S: Final = 5.0
"""A peer whose connection has been away for so long is lost."""
_LOOK_EVERY_S: Final = 0.25
LEAVING: Final = b"leaving"


class LostPeerError(RuntimeError):
    """A message will not come: its peer is gone, or has left."""


class Ticket(NamedTuple):
    """A claim on one message: the `number`-th of its kind from a source."""

    source: int
    kind: bytes
    number: int


class Inbox:
    """Messages by source and kind. `absent_s` says for how long a peer has not been connected."""

    def __init__(self, size: int, absent_s: Callable[[int], float | None]) -> None:
        self._size, self._absent_s = size, absent_s
        self._condition = threading.Condition()
        self._asked: Counter[tuple[int, bytes]] = Counter()
        self._came: Counter[tuple[int, bytes]] = Counter()
        self._here: dict[Ticket, memoryview] = {}
        self._lost: dict[int, str] = {}
        self._left: set[int] = set()
        self._closed = False

    def ask(self, source: int, kind: bytes) -> Ticket:
        """Claim the next message of a kind that nobody has claimed."""
        with self._condition:
            ticket = Ticket(source, kind, self._asked[source, kind])
            self._asked[source, kind] += 1
            return ticket

    @property
    def left(self) -> set[int]:
        """The peers that have left."""
        with self._condition:
            return set(self._left)

    def is_here(self, ticket: Ticket) -> bool:
        """Whether a message can be taken at once."""
        with self._condition:
            return ticket in self._here

    def take(self, ticket: Ticket, within_s: float, *, needs_all: bool = False) -> memoryview:
        """Wait for a message. TimeoutError: it did not come; LostPeerError: its peer is gone (`needs_all`: any is)."""
        deadline_s = monotonic() + within_s
        with self._condition:
            while ticket not in self._here:
                self._look(ticket.source, needs_all=needs_all)
                left_s = deadline_s - monotonic()
                if left_s <= 0.0:
                    raise TimeoutError(f"nothing came from peer {ticket.source} within {within_s:g} s")
                self._condition.wait(min(left_s, _LOOK_EVERY_S))
            return self._here.pop(ticket)

    def check(self, peer: int) -> None:
        """Raise LostPeerError if a peer is known to be gone."""
        with self._condition:
            self._look(peer, needs_all=False)

    def deliver(self, delivery: Delivery) -> None:
        """Take in a message, in a thread of the transport."""
        with self._condition:
            if delivery.header == LEAVING:
                self._left.add(delivery.source)
            else:
                what = (delivery.source, delivery.header)
                self._here[Ticket(*what, self._came[what])] = delivery.body
                self._came[what] += 1
            self._condition.notify_all()

    def failed(self, target: int, _header: bytes, _sequence: int, reason: str) -> None:
        """Take note that a message could not be delivered, in a thread of the transport."""
        with self._condition:
            self._lost[target] = reason
            self._condition.notify_all()

    def close(self) -> None:
        """Have everybody who waits, now or later, raise LostPeerError."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()

    def _look(self, source: int, *, needs_all: bool) -> None:
        if self._closed:
            raise LostPeerError("the group has been shut down")
        if source in self._left:
            raise LostPeerError(f"peer {source} has left")
        for peer in range(self._size) if needs_all else [source]:
            if peer in self._left:
                continue
            if peer in self._lost:
                raise LostPeerError(f"peer {peer} is lost: {self._lost[peer]}")
            absent_s = self._absent_s(peer)
            if absent_s is not None and absent_s > ABSENT_S:
                raise LostPeerError(f"peer {peer} is lost: no connection from it for {absent_s:.1f} s")
