"""Where the participants of a queue-driven run live, and where they listen."""

from typing import Final

from orionbed.fleet.reaching import EVERYWHERE
from real.launch import Layout

PARENT: Final = "ORIONBED_PARENT"
"""Variable: the number of the process without which this one must not go on; not set where it is started by hand."""


def listening_host(layout: Layout) -> str:
    """Return the address at which participants listen: on several machines they are found wherever they can be."""
    if layout.num_nodes == 1:
        return "127.0.0.1"
    return next(host for host in EVERYWHERE if (":" in host) == (":" in layout.host))
