"""What a forked process does: it is a peer, the object store, or it measures how long the work takes."""

from typing import Any

from emulator.job import Job


def play(job: Job, order: dict[str, Any]) -> None:
    """Do what the order says, to the end."""
    import torch

    torch.set_num_threads(1)
    role = order["role"]
    if role == "measure":
        from emulator.measuring import measure

        measure(job)
    elif job.plan.scenario.emulator.clock == "paced":
        from emulator.paced import run_paced

        run_paced(job, order)
    else:
        from emulator.unpaced import run_unpaced

        run_unpaced(job, order)
