"""One directed connection as its target sees it: chunks that wait for their arrival, messages that grow."""

from collections import deque
from math import inf
from typing import NamedTuple

import numpy as np

from emulator.throttle.frames import CONTROL, Frame, FrameError


class Assembly:
    """A message that grows from chunks. `served` counts the intact bytes that have passed the downlink."""

    __slots__ = ("body", "complete", "control", "header", "missing", "number", "received", "sent_s", "served", "total")

    def __init__(self, frame: Frame) -> None:
        self.number = frame.message
        self.total = frame.total
        self.control = bool(frame.flags & CONTROL)
        self.sent_s = frame.sent_s
        self.header = b""
        whole = len(frame.payload) - frame.header_size == frame.total
        # Not zeroed: every byte is written before anybody sees it.
        self.body: bytes | memoryview = b"" if whole else np.empty(frame.total, np.uint8).data
        self.received = 0  # bytes up to which chunks have come, intact or not
        self.served = 0
        self.complete = False  # all of it has passed the downlink
        self.missing: dict[int, int] = {}  # offset -> bytes of chunks that came damaged

    def take(self, frame: Frame) -> bool:
        """Copy a chunk in; return whether it was intact. FrameError: it is not the next one, nor a missing one."""
        num_bytes = len(frame.payload) - frame.header_size
        if frame.offset == self.received and (num_bytes or not self.total) and frame.total == self.total:
            self.received += num_bytes
        elif self.missing.pop(frame.offset, -1) != num_bytes:
            raise FrameError(f"chunk at {frame.offset} of message {self.number} was not expected")
        if not frame.intact:
            self.missing[frame.offset] = num_bytes
            return False
        if frame.header_size:
            self.header = bytes(frame.payload[: frame.header_size])
        if isinstance(self.body, memoryview):
            self.body[frame.offset : frame.offset + num_bytes] = frame.payload[frame.header_size :]
        else:
            self.body = bytes(frame.payload[frame.header_size :])
        return True


class Held(NamedTuple):
    """A chunk that is here in fact but not yet in the run's time; `is_last` if with it all of the message is here."""

    begin_s: float
    arrival_s: float
    num_bytes: int
    message: Assembly
    offset: int
    intact: bool
    is_last: bool


class Lane:
    """The chunks of one class of one connection that wait for the downlink, in order of arrival.

    `ready_s` is when the first one may start to pass, infinite if there is none. `served` is what fair sharing has
    given the lane so far. Messages leave in the order in which they began: one with a damaged chunk holds up the next.
    """

    __slots__ = ("chunks", "control", "number", "owner", "passed_s", "ready_s", "served", "unfinished")

    def __init__(self, owner: "Incoming", *, control: bool) -> None:
        self.owner = owner
        self.control = control
        self.chunks: deque[Held] = deque()
        self.unfinished: deque[Assembly] = deque()
        self.ready_s = inf
        self.passed_s = inf  # when the first chunk has passed the site's shared link
        self.served = 0.0

    def completed(self) -> list[Assembly]:
        """Return the messages that are complete now, with all before them."""
        done: list[Assembly] = []
        while self.unfinished and self.unfinished[0].complete:
            done.append(self.unfinished.popleft())
        return done


class Incoming:
    """The frames of one source. Counts body bytes: received in fact, damaged, delivered, destroyed by a break."""

    def __init__(self, source: int) -> None:
        self.source = source
        self.lanes = (Lane(self, control=False), Lane(self, control=True))
        self.messages: dict[int, Assembly] = {}
        self.last_arrival_s = -inf
        self.received_bytes = 0
        self.damaged_bytes = 0
        self.delivered_bytes = 0
        self.destroyed_bytes = 0
        self.num_damaged = 0

    def take(self, frame: Frame) -> Lane:
        """Hold a data frame; return its lane. FrameError for one that cannot follow what came before."""
        message = self.messages.get(frame.message)
        lane = self.lanes[frame.flags & CONTROL]
        if message is None:
            if frame.offset:
                raise FrameError(f"message {frame.message} begins at {frame.offset}")
            message = self.messages[frame.message] = Assembly(frame)
            lane.unfinished.append(message)
        elif message.control is not lane.control:
            raise FrameError(f"message {frame.message} changes its class")
        intact = message.take(frame)
        num_bytes = len(frame.payload) - frame.header_size
        self.received_bytes += num_bytes
        self.last_arrival_s = arrival_s = max(frame.arrival_s, self.last_arrival_s)
        is_last = message.received == message.total and not message.missing
        begin_s = arrival_s - (frame.arrival_s - frame.begin_s)
        lane.chunks.append(Held(begin_s, arrival_s, num_bytes, message, frame.offset, intact, is_last))
        return lane

    def serve(self, lane: Lane) -> None:
        """Take the first chunk of a lane out, as passed."""
        held = lane.chunks.popleft()
        message = held.message
        if held.intact:
            message.served += held.num_bytes
            message.complete = message.served == message.total
        else:
            self.damaged_bytes += held.num_bytes
            self.num_damaged += 1

    def deliver(self, message: Assembly) -> None:
        """Count a message as delivered."""
        del self.messages[message.number]
        self.delivered_bytes += message.total

    def destroy(self) -> None:
        """The connection is gone: all that has not been delivered is destroyed."""
        self.destroyed_bytes = self.received_bytes - self.delivered_bytes - self.damaged_bytes
        self.messages.clear()
        for lane in self.lanes:
            lane.chunks.clear()
            lane.unfinished.clear()
            lane.ready_s = inf
