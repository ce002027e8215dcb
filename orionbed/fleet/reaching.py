"""Where participants of a run reach one another, on one machine or on several."""

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
