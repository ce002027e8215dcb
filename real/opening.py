"""How a run on hardware is opened: a door for its processes, and what is to be done on the other machines."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from orionbed.backends import BackendError
from orionbed.fleet.members import Door
from real.job import Job
from real.launch import Layout, shell_lines


async def opened(door: Door, job: Job, layout: Layout) -> Job:
    """Open the door to the processes of a run; return its job with the door's address.

    Raises:
        BackendError: nobody can listen there.

    """
    context = None if job.credentials is None else job.credentials.server()
    try:
        address = await door.open(layout.host, layout.port, ssl=context)
    except OSError as error:
        where = f"{layout.host}:{layout.port}"
        raise BackendError(f"cannot listen at {where}: {error.strerror or error}; see real.listen") from None
    return replace(job, control=address)


def tell_others(job: Job, layout: Layout, restarts: int, say: Callable[[str], None]) -> Path:
    """Say what is to be done on the other machines; return the job's file, which holds the run's secrets."""
    kept = Path(f"{job.plan.scenario.name}.job.json").resolve()
    job.write(kept)
    say(f"copy {kept} to the other machines, and run there:")
    queue, threads = job.plan.order is None, job.plan.scenario.real.threads
    here = 1 + layout.per_node if queue else 2
    for line in shell_lines(layout, kept.name, queue=queue, threads=threads, restarts=restarts)[here:]:
        say(f"  {line}")
    return kept
