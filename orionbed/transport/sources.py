"""What this peer knows of another that sends to it: which message comes next, and over which connection."""

import threading
from time import monotonic

from orionbed.transport.counts import ReceivedCount
from orionbed.transport.frames import CONTROL, FrameError, Head, lane_of
from orionbed.transport.greeting import Hello, Identity
from orionbed.transport.pipe import Pipe


class Source:
    """One other peer. `absent_since_s`: when its connection ended without another (monotonic clock), if it has.

    Messages are taken with the lock held, so that an earlier connection has no say once a new one is greeted.
    """

    def __init__(self, index: int) -> None:
        self.index = index
        self.lock = threading.Lock()
        self.identity: Identity | None = None
        self.pipe: Pipe | None = None
        self.absent_since_s: float | None = None
        self.counts: list[ReceivedCount] = []
        self.expected = [0, CONTROL]
        self._refused = [False, False]

    def attach(self, hello: Hello, pipe: Pipe) -> tuple[int, int]:
        """Let a connection take over; return what is expected next. FrameError: the peer has been started anew since.

        What the source has given up before its `first` messages is not waited for.
        """
        with self.lock:
            known = self.identity
            if known is not None and hello.source.life < known.life:
                raise FrameError(f"an earlier life of peer {self.index}")
            if self.pipe is not None:
                self.pipe.reset()
            if known != hello.source:
                self.identity = hello.source
                self.counts.append(ReceivedCount(self.index, hello.source.life))
                self.expected = list(hello.first)
            self.expected = [max(pair) for pair in zip(self.expected, hello.first, strict=True)]
            self._refused = [False, False]
            self.pipe, self.absent_since_s = pipe, None
            return self.expected[0], self.expected[1]

    def detach(self, pipe: Pipe) -> None:
        """The connection has ended."""
        with self.lock:
            if self.pipe is pipe:
                self.pipe, self.absent_since_s = None, monotonic()

    def judge(self, head: Head, *, intact: bool) -> str:
        """Return what is to become of a message: `take`, `refuse`, `repeat` (it is here already) or `drop`."""
        lane = lane_of(head.sequence)
        count = self.counts[-1]
        if head.sequence < self.expected[lane]:
            count.num_duplicates += 1
            count.duplicate_bytes += head.body_bytes
            return "repeat"
        if head.sequence > self.expected[lane]:
            if not self._refused[lane]:
                raise FrameError(f"message {head.sequence} came where {self.expected[lane]} was expected")
            count.num_duplicates += 1
            count.duplicate_bytes += head.body_bytes
            return "drop"
        if not intact:
            count.num_damaged += 1
            count.damaged_bytes += head.body_bytes
            self._refused[lane] = True
            return "refuse"
        return "take"

    def taken(self, head: Head) -> None:
        """A message has been delivered, or was skipped."""
        lane = lane_of(head.sequence)
        self.expected[lane] += 1
        self._refused[lane] = False
