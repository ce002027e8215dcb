"""How messages between peers travel: a header of JSON, small and readable, and a body filled up to its size."""

import json

from orionbed.emulation import Scales
from orionbed.training.loop import Header


def sealed(header: Header, body: bytes, num_bytes: float, at_s: float, scales: Scales) -> tuple[bytes, bytes]:
    """Return header and body of a message that stands for `num_bytes` of the plan and is sent at `at_s`."""
    size = scales.payload(num_bytes) if num_bytes else 0
    full = {**header, "sent": at_s, "length": len(body), "plan_bytes": num_bytes}
    return packed(full), body if len(body) >= size else body + bytes(size - len(body))


def packed(header: Header) -> bytes:
    """Return a message's header as it travels."""
    return json.dumps(header, separators=(",", ":")).encode()


def unpacked(header: bytes) -> Header:
    """Return the header that `packed` wrote."""
    found: Header = json.loads(header)
    return found
