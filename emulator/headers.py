"""How the headers of messages between peers travel: as JSON, small and readable in a trace."""

import json

from orionbed.training.loop import Header


def packed(header: Header) -> bytes:
    """Return a message's header as it travels."""
    return json.dumps(header, separators=(",", ":")).encode()


def unpacked(header: bytes) -> Header:
    """Return the header that `packed` wrote."""
    found: Header = json.loads(header)
    return found
