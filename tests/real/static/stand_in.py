"""Processes that report like those of a pipeline and compute nothing: `python stand_in.py JOB BEHAVIOUR`.

Started in place of torchrun: it forks a process per rank, and when one is lost it ends the others and, if it may,
starts all of them again.
"""

import os
import signal
import sys
import time
from pathlib import Path

from real.job import Job
from real.line import Line
from real.static.reports import Operation, StepReport

STEPS = 4


def rank(job: Job, index: int, life: int, behaviour: str) -> None:
    """Be one process."""
    line = Line(job, index, life)
    origin_s = line.ask_clock()["origin_s"] or time.monotonic()
    first = 2 if life else 0
    if index == 0:
        line.tell({"t": "began", "origin_s": origin_s, "step": first})
    for step in range(first, STEPS):
        line.doing = f"1B0 of step {step}"
        if index == 1 and step == 3 and not life:
            line.tell({"t": "alive"})
            if behaviour == "dies":
                os.kill(os.getpid(), signal.SIGKILL)
            if behaviour == "stops":
                os.kill(os.getpid(), signal.SIGSTOP)
            if behaviour == "fails":
                line.tell({"t": "failed", "why": "ValueError: no such thing"})
                os._exit(1)
            if behaviour == "stalls":
                time.sleep(60.0)
        at_s = time.monotonic() - origin_s
        operation = Operation("F", index, 0, at_s, at_s + 0.01)
        line.tell(StepReport(step, (operation,), None, ()).as_message())
        time.sleep(0.05)
    if behaviour == "stalls":
        time.sleep(60.0)
    line.tell_last({"t": "final", "peak_memory_bytes": 1})
    line.close()


def main() -> int:
    """Fork the ranks and watch them, as torchrun does."""
    job, behaviour, restarts = Job.read(Path(sys.argv[1])), sys.argv[2], int(sys.argv[3])
    if behaviour == "cannot":
        sys.stderr.write("there is no such module\n")
        return 1
    for life in range(restarts + 1):
        pids = []
        for index in range(len(job.plan.peers)):
            pid = os.fork()
            if pid == 0:
                rank(job, index, life, behaviour)
                os._exit(0)
            pids.append(pid)
        if _all_well(pids):
            return 0
        time.sleep(1.0)  # torchrun takes its time, too
    return 1


def _all_well(pids: list[int]) -> bool:
    left = set(pids)
    while left:
        pid, status = os.wait()
        left.discard(pid)
        if status:
            for other in left:
                os.kill(other, signal.SIGKILL)
            for other in left:
                os.waitpid(other, 0)
            return False
    return True


if __name__ == "__main__":
    sys.exit(main())
