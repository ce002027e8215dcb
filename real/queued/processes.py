"""The processes of a run that live on this machine: started, signalled, waited for, and none left behind."""

import asyncio
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Final

from real.job import Job
from real.launch import worker_command
from real.queued.places import PARENT

_TAIL_LINES: Final = 12
Key = tuple[int, int]
"""Rank and life."""


@dataclass(frozen=True, slots=True)
class _Child:
    process: "subprocess.Popen[bytes]"
    output: IO[bytes]
    waiting: threading.Thread


class Processes:
    """`on_exit` hears of the end of each, with its status, in the event loop. Used from the thread of the loop alone.

    Each leads a session of its own, so that a terminal's Ctrl-C reaches the supervisor only, and ends with it.
    """

    def __init__(self, job: Job, on_exit: Callable[[Key, int], None]) -> None:
        self._on_exit = on_exit
        # In memory alone, for it holds the run's secrets, and nobody would remove it after a supervisor that is killed.
        self._job = os.memfd_create("orionbed-job")
        job.write(Path(_path(self._job)))
        self._loop = asyncio.get_running_loop()
        self._children: dict[Key, _Child] = {}

    def start(self, key: Key, environment: Mapping[str, str]) -> int:
        """Start a process and return its number."""
        output = TemporaryFile()  # noqa: SIM115  (closed with all others)
        process = subprocess.Popen(  # noqa: S603  (this very interpreter)
            worker_command(_path(self._job)),
            pass_fds=[self._job],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**environment, PARENT: str(os.getpid())},
            start_new_session=True,
        )
        waiting = threading.Thread(target=self._wait, args=(key, process), name=f"wait-{key[0]}", daemon=True)
        self._children[key] = _Child(process, output, waiting)
        waiting.start()
        return process.pid

    def _wait(self, key: Key, process: "subprocess.Popen[bytes]") -> None:
        status = process.wait()
        with suppress(RuntimeError):  # the loop may have ended meanwhile
            self._loop.call_soon_threadsafe(self._on_exit, key, status)

    def signal(self, key: Key, number: signal.Signals) -> None:
        """Send a signal; one that has ended does not hear it."""
        child = self._children.get(key)
        if child is not None and child.process.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(child.process.pid, number)

    def tail(self, key: Key) -> str:
        """Return the end of what a process has printed."""
        if key not in self._children:
            return ""
        output = self._children[key].output
        output.seek(0)
        lines = output.read().decode(errors="replace").splitlines()
        return "\n".join([line for line in lines if line.strip()][-_TAIL_LINES:])

    def close(self, patience_s: float) -> None:
        """Wait so long for those that end by themselves, then end the rest; all have ended afterwards."""
        children = list(self._children.values())
        deadline_s = time.monotonic() + patience_s
        for child in children:
            child.waiting.join(max(0.0, deadline_s - time.monotonic()))
        for key in self._children:
            self.signal(key, signal.SIGKILL)
        for child in children:
            child.waiting.join()
            child.output.close()
        os.close(self._job)


def _path(descriptor: int) -> str:
    """Return where this process, and those that inherit a descriptor from it, can open it anew."""
    return f"/proc/self/fd/{descriptor}"
