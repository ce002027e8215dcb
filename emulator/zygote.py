"""The process that peers are forked from: it has loaded torch and planned the run, so that they share both.

It reads orders from its standard input and answers on its standard output, a line of JSON each, and forks from a single
thread. When its input ends, or its parent dies, it ends all its children and itself: nothing outlives a supervisor,
however that ends.
"""

import json
import os
import select
import signal
import sys
import traceback
from contextlib import suppress
from typing import Any, NoReturn

from orionbed.fleet.parents import die_with_parent

READY = {"t": "ready"}


class Zygote:
    """Forks children on order, and reports how each ended."""

    def __init__(self) -> None:
        self._children: set[int] = set()
        self._input = b""
        self._job: Any = None

    def run(self) -> None:
        """Serve until the input ends."""
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_write, False)
        signal.set_wakeup_fd(wake_write)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        try:
            while True:
                ready, _, _ = select.select([0, wake_read], [], [])
                if wake_read in ready:
                    os.read(wake_read, 4096)
                    self._reap()
                if 0 in ready:
                    data = os.read(0, 1 << 20)
                    if not data:
                        return
                    self._take(data)
        finally:
            self._end_all()

    def _take(self, data: bytes) -> None:
        *lines, self._input = (self._input + data).split(b"\n")
        for line in lines:
            order = json.loads(line)
            if order["t"] == "job":
                self._prepare(order)
            elif order["t"] == "scales":
                self._job = self._job.scaled(order["payload_scale"])
            elif order["t"] == "fork":
                self._fork(order)
            elif order["t"] == "signal":
                self._signal(order["pid"], order["signal"])

    def _prepare(self, order: dict[str, Any]) -> None:
        from emulator.job import Job
        from emulator.measuring import rehearse

        try:
            self._job = Job.from_order(order)
            rehearse(self._job)
        except Exception:  # noqa: BLE001  (the supervisor is told whatever it was)
            say({"t": "failed", "why": traceback.format_exc()})
            return
        say(READY)

    def _fork(self, order: dict[str, Any]) -> None:
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._child(order, parent)
        self._children.add(pid)
        say({"t": "forked", "pid": pid, "role": order["role"], "index": order.get("index"), "life": order.get("life")})

    def _child(self, order: dict[str, Any], parent: int) -> NoReturn:
        status = 1
        try:
            die_with_parent(parent)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            nowhere = os.open(os.devnull, os.O_RDWR)
            os.dup2(nowhere, 0)
            os.dup2(nowhere, 1)
            from emulator.roles import play

            play(self._job, order)
            status = 0
        except BaseException:  # noqa: BLE001  (a forked child must never return into its parent's code)
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)

    def _signal(self, pid: int, number: int) -> None:
        if pid in self._children:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def _reap(self) -> None:
        for pid in list(self._children):
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                self._children.discard(pid)
                say({"t": "exited", "pid": pid, "status": os.waitstatus_to_exitcode(status)})

    def _end_all(self) -> None:
        for pid in self._children:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in self._children:
            with suppress(ChildProcessError):
                os.waitpid(pid, 0)


def say(message: dict[str, Any]) -> None:
    """Tell the supervisor."""
    os.write(1, json.dumps(message).encode() + b"\n")


def main() -> None:
    """Load what children share, then serve."""
    die_with_parent(int(sys.argv[1]))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the supervisor ends us, by way of our input
    import torch

    torch.set_num_threads(1)
    say({"t": "loaded"})
    Zygote().run()


if __name__ == "__main__":
    main()
