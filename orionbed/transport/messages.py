"""Messages on their way out: what waits, what has been written and not yet been acknowledged, in order."""

import zlib
from collections import deque
from collections.abc import Iterator
from time import monotonic
from typing import Any, Final

from orionbed.transport.frames import MOST_BODY_BYTES, MOST_HEADER_BYTES, FrameError, Kind, crc_bytes, head

Body = Any
"""Bytes, or another contiguous buffer, or a function without arguments that returns one."""

PART_BYTES: Final = 512 * 1024
MOST_REFUSED: Final = 8


class Message:
    """A message on its way out. It holds its body until the other end has it, or it has failed."""

    __slots__ = ("began_s", "body", "given_s", "header", "num_refused", "num_sent", "sequence", "skipped")

    def __init__(self, sequence: int, header: bytes, body: Body) -> None:
        self.sequence = sequence
        self.header = header
        self.body = body if callable(body) else as_bytes(body)
        self.given_s = monotonic()
        self.began_s = 0.0
        self.num_sent = 0
        self.num_refused = 0
        self.skipped = False

    @property
    def num_bytes(self) -> int:
        """Bytes of the body; 0 as long as it is not there."""
        return 0 if callable(self.body) else len(self.body)

    def resolve(self) -> None:
        """Wait for the body to be there. Whatever the function raises that gives it; ValueError: it is too large."""
        if callable(self.body):
            self.body = as_bytes(self.body())

    def skip(self) -> None:
        """Give the message up; its place in the order remains."""
        self.skipped = True
        self.header, self.body = b"", memoryview(b"")

    def pieces(self) -> Iterator[bytes | memoryview]:
        """Yield what is to be written, in order."""
        kind = Kind.SKIP if self.skipped else Kind.MESSAGE
        header, body = self.header, self.body
        yield head(kind, len(header), len(body), self.sequence) + header
        crc = zlib.crc32(header)
        for at in range(0, len(body), PART_BYTES):
            part = body[at : at + PART_BYTES]
            crc = zlib.crc32(part, crc)
            yield part
        yield crc_bytes(crc)


def as_bytes(buffer: Any) -> memoryview:
    """Return a buffer as plain bytes, not copied. ValueError: it is larger than a message may be."""
    view = memoryview(buffer)
    if view.nbytes > MOST_BODY_BYTES:
        raise ValueError(f"cannot send a body of {view.nbytes} bytes")
    return view.cast("B") if view.nbytes else memoryview(b"")


class Lane:
    """The messages of one class, data or control, to one peer: each has been written, or waits to be."""

    def __init__(self, base: int) -> None:
        self._next = base
        self.waiting: deque[Message] = deque()
        self.written: deque[Message] = deque()

    def __bool__(self) -> bool:
        return bool(self.waiting or self.written)

    @property
    def first(self) -> int:
        """Sequence number of the first message that is not acknowledged, or of the next one to come."""
        if self.written:
            return self.written[0].sequence
        return self.waiting[0].sequence if self.waiting else self._next

    def add(self, header: bytes, body: Body) -> Message:
        """Let a message wait. ValueError: it is too large."""
        if len(header) > MOST_HEADER_BYTES:
            raise ValueError(f"cannot send a header of {len(header)} bytes")
        message = Message(self._next, header, body)
        self._next += 1
        self.waiting.append(message)
        return message

    def take(self) -> Message:
        """Return the next message, as one that is being written."""
        message = self.waiting.popleft()
        self.written.append(message)
        return message

    def acknowledged(self, sequence: int) -> list[Message]:
        """Take out all messages up to a number; the other end has them. FrameError: there never was such a one."""
        if sequence >= self._next:
            raise FrameError(f"message {sequence} was acknowledged before it was sent")
        done = []
        for messages in (self.written, self.waiting):
            while messages and messages[0].sequence <= sequence:
                done.append(messages.popleft())
        return done

    def rewind(self, sequence: int = 0) -> None:
        """Have the messages from a number on wait again."""
        while self.written and self.written[-1].sequence >= sequence:
            self.waiting.appendleft(self.written.pop())

    def clear(self) -> list[Message]:
        """Take out all messages."""
        found = [*self.written, *self.waiting]
        self.written.clear()
        self.waiting.clear()
        return found
