"""The supervisor's hold on the processes it started: it starts them through a zygote and is told how each ended."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

Event = dict[str, Any]
_ENDS_WITHIN_S = 10.0


class Nursery:
    """Starts and ends processes. `on_event` hears that one was forked or has exited."""

    def __init__(self, on_event: Callable[[Event], None]) -> None:
        self._on_event = on_event
        self._buffer = b""
        self._ended = asyncio.Event()
        environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        self._zygote = subprocess.Popen(  # noqa: S603  (this very interpreter)
            [sys.executable, "-m", "emulator.zygote", str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
        assert self._zygote.stdout is not None
        os.set_blocking(self._zygote.stdout.fileno(), False)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._zygote.stdout.fileno(), self._read)

    def _read(self) -> None:
        assert self._zygote.stdout is not None
        data = self._zygote.stdout.read()
        if data == b"":
            self._loop.remove_reader(self._zygote.stdout.fileno())
            self._ended.set()
            self._on_event({"t": "ended"})
            return
        *lines, self._buffer = (self._buffer + (data or b"")).split(b"\n")
        for line in lines:
            self._on_event(json.loads(line))

    def order(self, order: Event) -> None:
        """Give the zygote an order: a job, a fork, or a signal for one of its children."""
        assert self._zygote.stdin is not None
        with suppress(BrokenPipeError):  # its end is an event of its own
            self._zygote.stdin.write(json.dumps(order).encode() + b"\n")
            self._zygote.stdin.flush()

    def signal(self, pid: int, number: signal.Signals) -> None:
        """Send a signal to a child."""
        self.order({"t": "signal", "pid": pid, "signal": int(number)})

    def close(self) -> None:
        """End everything and wait until it has ended; harmless when it has."""
        assert self._zygote.stdin is not None
        assert self._zygote.stdout is not None
        with suppress(ValueError, OSError):
            self._loop.remove_reader(self._zygote.stdout.fileno())
        with suppress(BrokenPipeError, OSError):
            self._zygote.stdin.close()
        try:
            self._zygote.wait(_ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._zygote.kill()
            self._zygote.wait()
        self._zygote.stdout.close()
