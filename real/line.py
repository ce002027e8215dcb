"""A process' line to the supervisor: it says that it is alive, and when the supervisor is gone, so is the process."""

import math
import os
import queue
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from orionbed.fleet.control import Channel, ControlError, Message
from orionbed.fleet.stream import dial
from orionbed.fleet.tls import Tls
from real.job import Job

BEATS_EVERY_S: Final = 1.0
TELLS_EVERY_S: Final = 0.1


class Line:
    """Connected and introduced. `doing` is what the process is at; it travels with every beat and every message.

    OSError: the supervisor is not there, or another is.
    """

    def __init__(self, job: Job, index: int, life: int) -> None:
        credentials = job.credentials
        tls = None if credentials is None else Tls(credentials.server(), credentials.client(), credentials.fingerprint)
        self.doing = "starting"
        self._channel = Channel(dial(job.control, tls))
        self._turn = threading.Lock()
        self._told_s = 0.0
        self._closed = threading.Event()
        self._heard: queue.SimpleQueue[Message] = queue.SimpleQueue()
        hello = {"t": "hello", "role": "peer", "token": job.token, "index": index, "life": life, "pid": os.getpid()}
        self._channel.send(hello)
        threading.Thread(target=self._beat, daemon=True).start()
        threading.Thread(target=self._listen, daemon=True).start()

    def tell(self, message: Message) -> None:
        """Tell the supervisor. OSError: it is gone."""
        with self._turn:
            self._told_s = time.monotonic()
            self._channel.send({"doing": self.doing} | message)

    def tell_last(self, message: Message) -> None:
        """Tell the last thing there is to tell: from now on the supervisor may be gone. OSError: it is gone already."""
        self._closed.set()
        self.tell(message)

    def at(self, doing: str) -> None:
        """Note what the process is at, and tell it unless something was told a moment ago."""
        self.doing = doing
        if time.monotonic() - self._told_s > TELLS_EVERY_S:
            self.tell({"t": "alive"})

    def receive(self) -> Message:
        """Wait for what the supervisor says next."""
        return self._heard.get()

    def wait_for(self, what: str) -> Message:
        """Wait until the supervisor has said something of this type; other things are passed over."""
        while True:
            message = self._heard.get()
            if message["t"] == what:
                return message

    def ask_clock(self) -> Message:
        """Ask for the supervisor's clock (`at_s`), and when the run began on it (`origin_s`; None: it has not)."""
        self.tell({"t": "clock"})
        return self.wait_for("clock")

    def _beat(self) -> None:
        while not self._closed.wait(BEATS_EVERY_S):
            try:
                self.tell({"t": "alive"})
            except OSError:
                self._gone()

    def _listen(self) -> None:
        try:
            while True:
                self._heard.put(self._channel.receive())
        except (ControlError, OSError):
            self._gone()

    def _gone(self) -> None:
        """Nobody is left to train for: a process that went on would never be ended."""
        if not self._closed.is_set():
            os._exit(1)

    def close(self) -> None:
        """Hang up."""
        self._closed.set()
        self._channel.close()


@contextmanager
def introduced(job: Job, index: int, life: int) -> Iterator[Line]:
    """Be on the line while a process lives, and tell what ends it early. OSError: the supervisor is not there."""
    line = Line(job, index, life)
    try:
        yield line
    except BaseException as error:
        with suppress(OSError):
            line.tell({"t": "failed", "why": traceback.format_exception_only(error)[-1].strip()})
        raise
    finally:
        line.close()


def offset_s(line: Line, num_tries: int = 8) -> tuple[float, float]:
    """Return how far the supervisor's clock is ahead of ours, and how uncertain that is: half the best round trip."""
    best = (0.0, math.inf)
    for _ in range(num_tries):
        asked_s = time.monotonic()
        theirs_s = float(line.ask_clock()["at_s"])
        answered_s = time.monotonic()
        uncertain_s = (answered_s - asked_s) / 2.0
        if uncertain_s < best[1]:
            best = (theirs_s - (asked_s + answered_s) / 2.0, uncertain_s)
    return best
