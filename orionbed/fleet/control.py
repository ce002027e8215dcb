"""The control protocol between a supervisor and what it runs: bounded JSON messages, each after its length.

One flat protocol for peers on this machine and on others. It carries no pickles and no code: whoever holds the token
can say what a peer did, and nothing else.
"""

import asyncio
import json
import struct
from typing import Any, Final

from orionbed.fleet.stream import Stream

MOST_BYTES: Final = 64 * 1024 * 1024
_LENGTH: Final = struct.Struct("!I")
Message = dict[str, Any]


class ControlError(ConnectionError):
    """The other end said something that is no message, or went away."""


def encoded(message: Message) -> bytes:
    """Return a message as it travels. Raises ControlError when it is too long."""
    body = json.dumps(message, separators=(",", ":")).encode()
    if len(body) > MOST_BYTES:
        raise ControlError(f"a message of {len(body)} bytes is longer than {MOST_BYTES}")
    return _LENGTH.pack(len(body)) + body


def decoded(body: bytes) -> Message:
    """Return the message of a frame's body. Raises ControlError."""
    try:
        message = json.loads(body)
    except (ValueError, RecursionError):
        raise ControlError("what came is no JSON") from None
    if not isinstance(message, dict) or not isinstance(message.get("t"), str):
        raise ControlError("what came is no message: it has no type")
    return message


def _length(head: bytes, most: int = MOST_BYTES) -> int:
    (length,) = _LENGTH.unpack(head)
    if length > most:
        raise ControlError(f"a message of {length} bytes was announced, {most} is the most")
    return int(length)


async def read(reader: asyncio.StreamReader, most: int = MOST_BYTES) -> Message:
    """Read one message of at most so many bytes. Raises ControlError when the other end is gone."""
    try:
        return decoded(await reader.readexactly(_length(await reader.readexactly(_LENGTH.size), most)))
    except (asyncio.IncompleteReadError, OSError) as error:
        raise ControlError(str(error) or "the other end is gone") from None


class Channel:
    """A blocking end of the protocol, for peers. Not thread-safe but for one reader beside one writer."""

    def __init__(self, connection: Stream) -> None:
        self.socket = connection

    def send(self, message: Message) -> None:
        """Send one message. Raises OSError when the other end is gone."""
        self.socket.sendall(encoded(message))

    def receive(self) -> Message:
        """Wait for one message. Raises ControlError when the other end is gone."""
        length = _length(self._exactly(_LENGTH.size))
        return decoded(self._exactly(length))

    def _exactly(self, count: int) -> bytes:
        parts = []
        while count:
            try:
                part = self.socket.recv(min(count, 1 << 20))
            except OSError as error:
                raise ControlError(str(error)) from None
            if not part:
                raise ControlError("the other end is gone")
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    def close(self) -> None:
        """Close it; harmless when it is closed."""
        self.socket.close()
