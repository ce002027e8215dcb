"""One process of a run: `python -m real.worker JOB`, with its rank in the environment as torchrun puts it there."""

import os
import sys
from pathlib import Path

from orionbed.backends import BackendError
from real.job import Job


def main() -> int:
    """Be the process that the environment says."""
    if len(sys.argv) != 2:
        sys.stderr.write("start this through torchrun with a job, as `orionbed run --dry-run` prints it\n")
        return 2
    try:
        job = Job.read(Path(sys.argv[1]))
        rank, local_rank = (_number(name) for name in ("RANK", "LOCAL_RANK"))
    except BackendError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    life = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", os.environ.get("ORIONBED_LIFE", "0")))
    if job.plan.order is None:
        from real.queued.worker import run as run_queue

        run_queue(job, rank, local_rank, life)
    else:
        from real.static.worker import run as run_static

        run_static(job, rank, local_rank, life)
    return 0


def _number(name: str) -> int:
    found = os.environ.get(name, "")
    if not found.isdecimal():
        raise BackendError(
            f"{name} is not in the environment: start this through torchrun, or as `--dry-run` prints it"
        )
    return int(found)


if __name__ == "__main__":
    sys.exit(main())
