"""Where the participants of a queue-driven run live, and where they listen."""

from typing import Final

from orionbed.fleet.reaching import EVERYWHERE
from real.job import Job
from real.launch import Layout, layout_of

PARENT: Final = "ORIONBED_PARENT"
"""Variable: the number of the process without which this one must not go on; not set where it is started by hand."""


def queue_layout(job: Job) -> Layout:
    """Return who lives on which machine: the peers and, where replicas merge, the object store behind them."""
    return layout_of(job.plan, num_others=num_stores(job))


def num_stores(job: Job) -> int:
    """Return 1 where the scenario merges, for which there is an object store, else 0."""
    return 0 if isinstance(job.plan.scenario.merge, str) else 1


def listening_host(layout: Layout) -> str:
    """Return the address at which participants listen: on several machines they are found wherever they can be."""
    if layout.num_nodes == 1:
        return "127.0.0.1"
    return next(host for host in EVERYWHERE if (":" in host) == (":" in layout.host))
