"""Messages between peers at full speed over plain TCP, for runs in virtual time: whoever needs one waits for it."""

import hmac
import socket
import struct
import threading
from contextlib import suppress
from typing import Final

_HEAD: Final = struct.Struct("!QIQ")
MOST_HEADER_BYTES: Final = 1 << 16
MOST_BODY_BYTES: Final = 1 << 32
WAIT_S: Final = 120.0


class PostError(ConnectionError):
    """A message did not come, or what came is no message."""


class Post:
    """One peer's connections: one to each peer it sends to, opened by it, and those that others open to it."""

    def __init__(self, index: int, token: bytes, host: str) -> None:
        self._index, self._token = index, token
        self._listener = socket.create_server((host, 0), backlog=128)
        name = self._listener.getsockname()
        self.address = (str(name[0]), int(name[1]))
        self.addresses: dict[int, tuple[str, int]] = {}
        self._out: dict[int, socket.socket] = {}
        self._in: list[socket.socket] = []
        self._arrived: dict[tuple[int, int], tuple[bytes, bytes]] = {}
        self._condition = threading.Condition()
        self.bytes_sent = 0
        self.bytes_received = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def send(self, target: int, number: int, header: bytes, body: bytes) -> None:
        """Send a message; it lies with the other peer until that takes it."""
        connection = self._out.get(target)
        if connection is None:
            connection = self._out[target] = socket.create_connection(self.addresses[target])
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.sendall(self._greeting(self._index))
        connection.sendall(_HEAD.pack(number, len(header), len(body)) + header)
        connection.sendall(body)
        self.bytes_sent += len(body)

    def _greeting(self, index: int) -> bytes:
        name = struct.pack("!I", index)
        return name + hmac.digest(self._token, name, "sha256")

    def take(self, source: int, number: int) -> tuple[bytes, bytes]:
        """Wait for a message and return header and body. Raises PostError when it does not come."""
        with self._condition:
            if not self._condition.wait_for(lambda: (source, number) in self._arrived, WAIT_S):
                raise PostError(f"message {number} of peer {source} did not come within {WAIT_S:g} s")
            return self._arrived.pop((source, number))

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._in.append(connection)
                threading.Thread(target=self._read, args=(connection,), daemon=True).start()

    def _read(self, connection: socket.socket) -> None:
        with suppress(OSError, PostError):
            greeting = _exactly(connection, 4 + 32)
            (source,) = struct.unpack("!I", greeting[:4])
            if not hmac.compare_digest(greeting, self._greeting(source)):
                raise PostError("a stranger")
            while True:
                number, header_length, body_length = _HEAD.unpack(_exactly(connection, _HEAD.size))
                if header_length > MOST_HEADER_BYTES or body_length > MOST_BODY_BYTES:
                    raise PostError("a message that is too long")
                header, body = _exactly(connection, header_length), _exactly(connection, body_length)
                with self._condition:
                    self._arrived[source, number] = (header, body)
                    self.bytes_received += len(body)
                    self._condition.notify_all()
        connection.close()

    def close(self) -> None:
        """Close everything."""
        for each in (self._listener, *self._out.values(), *self._in):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


def _exactly(connection: socket.socket, count: int) -> bytes:
    parts = bytearray(count)
    view, at = memoryview(parts), 0
    while at < count:
        received = connection.recv_into(view[at:])
        if not received:
            raise PostError("the other end is gone")
        at += received
    return bytes(parts)
