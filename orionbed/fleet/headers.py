"""How the header of a message between peers travels: JSON, small and readable."""

import json

from orionbed.training.surroundings import Header


def packed(header: Header) -> bytes:
    """Return the header of a message as it travels."""
    return json.dumps(header, separators=(",", ":")).encode()


def unpacked(header: bytes) -> Header:
    """Return the header that `packed` wrote."""
    found: Header = json.loads(header)
    return found
