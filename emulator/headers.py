"""How messages between peers travel: a header, and a body filled up to its size."""

from orionbed.emulation import Scales
from orionbed.fleet.headers import packed
from orionbed.training.surroundings import Header


def sealed(header: Header, body: bytes, num_bytes: float, at_s: float, scales: Scales) -> tuple[bytes, bytes]:
    """Return header and body of a message that stands for `num_bytes` of the plan and is sent at `at_s`."""
    size = scales.payload(num_bytes) if num_bytes else 0
    full = {**header, "sent": at_s, "length": len(body), "plan_bytes": num_bytes}
    return packed(full), body if len(body) >= size else body + bytes(size - len(body))
