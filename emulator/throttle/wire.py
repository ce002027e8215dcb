"""A non-blocking connection: bytes that wait to be written, plain or with TLS."""

import socket
import ssl
import struct
from collections import deque
from typing import Final

_MAX_BUFFERS: Final = 64
_LINGER_NONE: Final = struct.pack("ii", 1, 0)
_BUFFER_BYTES: Final = 4 * 1024**2

Buffer = bytes | bytearray | memoryview


class Wire:
    """One TCP connection whose writes never block: what the socket does not take is remembered.

    `flush`, `read_into` and `shake_hands` raise OSError (ssl.SSLError is one) when the connection is broken.
    """

    def __init__(self, sock: socket.socket, tls: ssl.SSLContext | None = None, *, server_side: bool = False) -> None:
        sock.settimeout(0.0)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
        self._tls = tls
        self._server_side = server_side
        self.sock = sock
        self.shaken = tls is None
        self._wants_write = False
        self._waiting: deque[Buffer] = deque()

    def connected(self) -> None:
        """Begin with TLS once the TCP connection stands; OSError if it does not stand."""
        error = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, "cannot connect")
        if self._tls is not None:
            self.sock = self._tls.wrap_socket(
                self.sock, server_side=self._server_side, do_handshake_on_connect=False, suppress_ragged_eofs=True
            )

    @property
    def encrypted(self) -> bool:
        """Whether it uses TLS."""
        return self._tls is not None

    @property
    def wants_write(self) -> bool:
        """Whether it waits until it can write."""
        return bool(self._waiting) or self._wants_write

    def shake_hands(self) -> bool:
        """Go on with the TLS handshake; return whether it is done."""
        if not self.shaken:
            assert isinstance(self.sock, ssl.SSLSocket)
            self._wants_write = False
            try:
                self.sock.do_handshake()
                self.shaken = True
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLWantWriteError:
                self._wants_write = True
        return self.shaken

    def put(self, *buffers: Buffer) -> None:
        """Append bytes; they are not copied and must stay as they are until they are written."""
        self._waiting.extend(buffers)

    def flush(self) -> None:
        """Write what the socket takes."""
        waiting = self._waiting
        try:
            while waiting:
                if self._tls is None:
                    buffers = (
                        list(waiting) if len(waiting) <= _MAX_BUFFERS else [waiting[i] for i in range(_MAX_BUFFERS)]
                    )
                    self._drop(self.sock.sendmsg(buffers))
                elif len(waiting[0]):
                    self._drop(self.sock.send(waiting[0]))
                else:
                    waiting.popleft()
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return

    def read_into(self, buffer: memoryview) -> int:
        """Read what is there; return how much, -1 for nothing yet, 0 for the end of the connection."""
        try:
            return self.sock.recv_into(buffer)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return -1

    def close(self, *, reset: bool = False) -> None:
        """Close it; with `reset` the other end sees an error rather than an end."""
        if reset:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NONE)
        self.sock.close()
        self._waiting.clear()

    def _drop(self, num_bytes: int) -> None:
        """Forget bytes that have been written."""
        waiting = self._waiting
        while waiting and num_bytes >= len(waiting[0]):
            num_bytes -= len(waiting.popleft())
        if num_bytes:
            waiting[0] = memoryview(waiting[0])[num_bytes:]
