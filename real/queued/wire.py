"""How messages of the peers' loops travel: a header of JSON, small and readable, and a body as it is.

Weights and states of large models are longer than a message may be, and go in parts. Parts of one message follow one
another, and the transport keeps their order.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from orionbed.fleet.clock import PacedClock
from orionbed.fleet.headers import packed, unpacked
from orionbed.training.compute import Body
from orionbed.training.surroundings import Header

if TYPE_CHECKING:
    from orionbed.transport.endpoint import Endpoint

BOUNDARY: Final = ("F", "B")
"""Kinds of messages whose bodies are boundary tensors."""
MOST_BYTES: Final = 1 << 30
"""Longest body that goes in one piece."""


class Wire:
    """Carries a loop's messages through an endpoint, which is there before anything is sent. Not thread-safe."""

    endpoint: "Endpoint"

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes

    def send(
        self, target: int, header: Header, body: Body, num_bytes: float, at_s: float, *, control: bool = False
    ) -> None:
        """Send a message from second `at_s` of the run on; a body that is a function is called by the sender."""
        full = {**header, "sent": at_s, "plan_bytes": num_bytes}
        if callable(body):
            self.endpoint.send(target, packed(full), body, control=control)
            return
        full["length"] = length = len(body)
        if length <= self._most_bytes:
            self.endpoint.send(target, packed(full), body, control=control)
            return
        whole = memoryview(body)
        for at in range(0, length, self._most_bytes):
            part = whole[at : at + self._most_bytes]
            self.endpoint.send(target, packed({**full, "part_at": at}), part, control=control)


class Inbox:
    """Takes in what the endpoint delivers, and hands it on stamped with the second at which it was complete.

    `arrived` takes in boundary tensors. `on_message` and `on_failure` get the second, and what loops take of a message,
    or of one that did not get through.
    """

    def __init__(
        self,
        clock: PacedClock,
        arrived: Callable[[Body], Body],
        on_message: Callable[[float, tuple[Header, Body]], None],
        on_failure: Callable[[float, tuple[int, Header, str]], None],
    ) -> None:
        self._clock, self._arrived = clock, arrived
        self._on_message, self._on_failure = on_message, on_failure
        # by source the message whose parts are coming, and up to where it is there
        self._partial: dict[int, tuple[bytearray, int]] = {}

    def deliver(self, source: int, header: bytes, body: Body) -> None:
        """Take in a message, in the endpoint's thread for its source."""
        full = unpacked(header)
        if "part_at" in full:
            body = self._completed(source, full, body)
            if body is None:
                return
        now_s = self._clock.now()
        full["from"] = source
        full["sent"] = min(full["sent"], now_s)  # clocks of two machines differ by a little
        self._on_message(now_s, (full, self._arrived(body) if full["k"] in BOUNDARY else body))

    def _completed(self, source: int, header: Header, part: Body) -> Body:
        """Take in a part; return the whole body with the last one. What lacks a part is given up."""
        at, length = header.pop("part_at"), header["length"]
        whole, there = self._partial.pop(source, (bytearray(), 0)) if at else (bytearray(length), 0)
        if at != there or len(whole) != length:
            return None
        whole[at : at + len(part)] = part
        if at + len(part) == length:
            return memoryview(whole)
        self._partial[source] = (whole, at + len(part))
        return None

    def failed(self, target: int, header: bytes, reason: str) -> None:
        """Take note that a message, or a part of one, did not get through, in the endpoint's thread."""
        full = unpacked(header)
        if full.pop("part_at", 0):
            full["plan_bytes"] = 0.0  # those of the message count with its first part
        self._on_failure(self._clock.now(), (target, full, reason))
