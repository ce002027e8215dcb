"""Where participants of a run reach one another, on one machine or on several."""

import socket
from contextlib import suppress
from typing import Any, Final

from orionbed.fleet.members import Member

EVERYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  (where to listen is the user's choice)
"""Addresses that stand for all of a machine's, and what they are on the machine itself."""


def reachable(owner: Member, asker: Member) -> list[Any] | None:
    """Return where one participant reaches another; one that listens everywhere is where it connected from."""
    if owner.address is None or owner.address[0] not in EVERYWHERE or asker.writer is None or owner.writer is None:
        return owner.address
    host, port = owner.address
    if owner.host:
        return [owner.writer.get_extra_info("peername")[0], port]
    if asker.host:
        return [asker.writer.get_extra_info("sockname")[0], port]
    return [EVERYWHERE[host], port]


def own_address(towards: str = "192.0.2.1") -> str:
    """Return the address that this machine has towards another, by default others at large; nothing is sent for it."""
    family = socket.AF_INET6 if ":" in towards else socket.AF_INET
    with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((towards, 9))
        return str(probe.getsockname()[0])
    return socket.gethostname()
