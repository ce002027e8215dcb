"""A blocking connection, plain or with TLS, that one thread may read while another writes, and that any may reset."""

import select
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Any, Final, Protocol

IDLE_S, PROBE_EVERY_S, PROBES, UNHEARD_S = 5, 5, 3, 20
_RESET: Final = struct.pack("ii", 1, 0)

Buffer = bytes | bytearray | memoryview


class Pipe(Protocol):
    """Both kinds of connection. OSError: it is broken."""

    @property
    def sock(self) -> socket.socket: ...
    def send(self, data: Buffer, /) -> None: ...
    def receive_into(self, view: memoryview, /) -> int: ...
    def until(self, deadline_s: float | None, /) -> None: ...
    def shake_hands(self) -> None: ...
    def end(self) -> None: ...
    def reset(self) -> None: ...
    def close(self) -> None: ...


class _Socket:
    """How a connection over a socket ends."""

    sock: socket.socket

    def end(self) -> None:
        """End the connection: what waits for it, in any thread, ends; what has been sent still arrives."""
        _end(self.sock)

    def reset(self) -> None:
        """Break the connection: as `end`, and what is under way is lost."""
        with suppress(OSError):
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        _end(self.sock)

    def close(self) -> None:
        """Give the socket back; nobody may use it any more."""
        self.sock.close()


class PlainPipe(_Socket):
    """A connection without TLS."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def until(self, deadline_s: float | None) -> None:
        """Have what waits end with TimeoutError at this second of the monotonic clock; None: never."""
        self.sock.settimeout(_left_s(deadline_s))

    def shake_hands(self) -> None:
        """Do what a connection without TLS has to do first, which is nothing."""

    def send(self, data: Buffer) -> None:
        """Send everything."""
        self.sock.sendall(data)

    def receive_into(self, view: memoryview) -> int:
        """Wait for bytes; return how many came, 0 at the end."""
        return self.sock.recv_into(view)


class TlsPipe(_Socket):
    """A connection with TLS.

    An SSL object must not be used by two threads at once. So the socket never blocks: the lock is held for one record,
    and waiting happens outside it.
    """

    sock: ssl.SSLSocket

    def __init__(self, sock: ssl.SSLSocket) -> None:
        self.sock = sock
        self._lock = threading.Lock()
        self._deadline_s: float | None = None
        sock.settimeout(0.0)

    def until(self, deadline_s: float | None) -> None:
        """Have what waits end with TimeoutError at this second of the monotonic clock; None: never."""
        self._deadline_s = deadline_s

    def send(self, data: Buffer) -> None:
        """Send everything."""
        view = memoryview(data)
        while view:
            view = view[self._patiently(self.sock.send, view) :]

    def receive_into(self, view: memoryview) -> int:
        """Wait for bytes; return how many came, 0 at the end."""
        return int(self._patiently(self.sock.recv_into, view))

    def shake_hands(self) -> None:
        """Agree with the other end on keys. ssl.SSLError: it cannot be trusted, or does not trust this one."""
        self._patiently(self.sock.do_handshake)

    def _patiently(self, call: Callable[..., Any], *args: Any) -> Any:
        """Do something with the SSL object as soon as that need not wait."""
        while True:
            try:
                with self._lock:
                    return call(*args)
            except ssl.SSLWantReadError:
                self._wait(select.POLLIN)
            except ssl.SSLWantWriteError:
                self._wait(select.POLLOUT)

    def _wait(self, event: int) -> None:
        poll = select.poll()
        poll.register(self.sock.fileno(), event)
        left_s = _left_s(self._deadline_s)
        if not poll.poll(None if left_s is None else 1000.0 * left_s):
            raise TimeoutError("the other end took too long")


def make_pipe(sock: socket.socket, tls: ssl.SSLContext | None, *, server_side: bool, deadline_s: float) -> Pipe:
    """Return a pipe over a connected socket, which it takes over; with TLS, hands must be shaken next."""
    try:
        tune(sock)
        pipe: Pipe = PlainPipe(sock)
        if tls is not None:
            pipe = TlsPipe(tls.wrap_socket(sock, server_side=server_side, do_handshake_on_connect=False))
    except BaseException:
        sock.close()
        raise
    pipe.until(deadline_s)
    return pipe


def tune(sock: socket.socket) -> None:
    """Have small messages leave at once, and the connection end when the other machine is not heard of any more."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    options = {
        "TCP_KEEPIDLE": IDLE_S, "TCP_KEEPINTVL": PROBE_EVERY_S, "TCP_KEEPCNT": PROBES,
        "TCP_USER_TIMEOUT": 1000 * UNHEARD_S,
    }  # fmt: skip
    for name, value in options.items():
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _end(sock: socket.socket) -> None:
    with suppress(OSError):
        # Not the SSL socket's own method, which would take TLS off a connection that another thread still uses.
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


def _left_s(deadline_s: float | None) -> float | None:
    return None if deadline_s is None else max(1e-3, deadline_s - monotonic())
