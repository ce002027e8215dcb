"""How messages of the peers' loops travel: a header of JSON, small and readable, and a body as it is."""

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

from orionbed.fleet.clock import PacedClock
from orionbed.training.compute import Body
from orionbed.training.loop import Header

if TYPE_CHECKING:
    from orionbed.transport.endpoint import Endpoint

BOUNDARY = ("F", "B")
"""Kinds of messages whose bodies are boundary tensors."""


class Wire:
    """Carries a loop's messages through an endpoint, which is there before anything is sent."""

    endpoint: "Endpoint"

    def send(
        self, target: int, header: Header, body: Body, num_bytes: float, at_s: float, *, control: bool = False
    ) -> None:
        """Send a message from second `at_s` of the run on; a body that is a function is called by the sender."""
        full = {**header, "sent": at_s, "plan_bytes": num_bytes}
        if not callable(body):
            full["length"] = len(body)
        self.endpoint.send(target, json.dumps(full, separators=(",", ":")).encode(), body, control=control)


class Inbox:
    """Takes in what the endpoint delivers, and hands it on stamped with the second at which it came.

    `arrived` takes in boundary tensors; `happen` gets second, message or failure, as loops take them.
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

    def deliver(self, source: int, header: bytes, body: Body) -> None:
        """Take in a message, in the endpoint's thread."""
        now_s = self._clock.now()
        full = unpacked(header)
        full["from"] = source
        full["sent"] = min(full["sent"], now_s)  # clocks of two machines differ by a little
        self._on_message(now_s, (full, self._arrived(body) if full["k"] in BOUNDARY else body))

    def failed(self, target: int, header: bytes, reason: str) -> None:
        """Take note that a message did not get through, in the endpoint's thread."""
        self._on_failure(self._clock.now(), (target, unpacked(header), reason))


def unpacked(header: bytes) -> Header:
    """Return the header of a message."""
    found: Header = json.loads(header)
    return found
