"""Reading a connection: many small things with one call, large ones straight to where they belong."""

import zlib
from collections.abc import Callable
from typing import Final

from orionbed.transport.pipe import Pipe

_BUFFER_BYTES: Final = 256 * 1024
_PART_BYTES: Final = 512 * 1024


class Ended(ConnectionError):  # noqa: N818 - an end is no error until somebody waited for more
    """The other end has closed the connection."""


class Reader:
    """Reads a pipe through a buffer. `before_waiting` is called each time before it waits for the other end."""

    def __init__(self, pipe: Pipe, before_waiting: Callable[[], None]) -> None:
        self._pipe, self._before_waiting = pipe, before_waiting
        self._buffer = memoryview(bytearray(_BUFFER_BYTES))
        self._begin = self._end = 0

    def exactly(self, count: int) -> memoryview:
        """Return the next bytes, at most as many as the buffer holds; valid until the next call."""
        if self._end - self._begin < count:
            left = self._end - self._begin
            if left:
                self._buffer[:left] = bytes(self._buffer[self._begin : self._end])
            self._begin, self._end = 0, left
            while self._end < count:
                self._end += self._receive(self._buffer[self._end :])
        found = self._buffer[self._begin : self._begin + count]
        self._begin += count
        return found

    def into(self, view: memoryview, crc: int) -> int:
        """Fill a view with the next bytes; return the CRC-32 that continues `crc` with them."""
        at = min(len(view), self._end - self._begin)
        if at:
            view[:at] = self._buffer[self._begin : self._begin + at]
            crc = zlib.crc32(view[:at], crc)
            self._begin += at
        for begin in range(at, len(view), _PART_BYTES):
            part = view[begin : begin + _PART_BYTES]
            got = 0
            while got < len(part):
                got += self._receive(part[got:])
            crc = zlib.crc32(part, crc)
        return crc

    def _receive(self, view: memoryview) -> int:
        self._before_waiting()
        received = self._pipe.receive_into(view)
        if not received:
            raise Ended("the other end is gone")
        return received


def exactly(pipe: Pipe, count: int) -> bytes:
    """Return the next bytes of a pipe and not take one more. Ended: the other end has closed it."""
    data = bytearray(count)
    view = memoryview(data)
    while view:
        received = pipe.receive_into(view)
        if not received:
            raise Ended("the other end hung up")
        view = view[received:]
    return bytes(data)
