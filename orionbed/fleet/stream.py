"""A blocking connection to the supervisor: plain, or with TLS such that one thread can read while another writes."""

import socket
import ssl
import threading
from contextlib import suppress
from typing import Final, Protocol

from orionbed.fleet.tls import Tls, TlsError, fingerprint

_READ_BYTES: Final = 64 * 1024
_IDLE_S, _PROBE_EVERY_S, _PROBES, _UNHEARD_S = 5, 5, 3, 20


class Stream(Protocol):
    """What a channel needs of a socket."""

    def sendall(self, data: bytes, /) -> None: ...
    def recv(self, count: int, /) -> bytes: ...
    def fileno(self) -> int: ...
    def close(self) -> None: ...


class TlsStream:
    """The connecting end of a TLS connection. OSError: the connection broke, or the other end cannot be trusted.

    An SSL object must not be used by two threads at once, and a read would hold it for as long as nothing comes. So the
    object works on memory, and waiting for the socket happens outside its lock.
    """

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        self._sock = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing)
        self._lock = threading.Lock()
        self._turn = threading.Lock()  # bytes leave in the order in which they were encrypted
        self._shake_hands()

    @property
    def peer(self) -> str:
        """The fingerprint of the other end's certificate."""
        return fingerprint(self._tls.getpeercert(binary_form=True))

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self._sock.fileno()

    def sendall(self, data: bytes) -> None:
        """Send all bytes."""
        view = memoryview(data)
        with self._turn:
            while view:
                with self._lock:
                    view = view[self._tls.write(view) :]
                    encrypted = self._outgoing.read()
                self._sock.sendall(encrypted)

    def recv(self, count: int) -> bytes:
        """Wait for up to `count` bytes; none when the other end has closed."""
        while True:
            with self._lock:
                try:
                    return self._tls.read(count)
                except ssl.SSLWantReadError:
                    pass
                except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                    return b""
            self._flush()
            self._feed()

    def close(self) -> None:
        """Close it; what waits for it in another thread gets an end."""
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()

    def _shake_hands(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._flush()
                self._feed()
            else:
                self._flush()
                return

    def _flush(self) -> None:
        with self._turn:
            with self._lock:
                encrypted = self._outgoing.read()
            if encrypted:
                self._sock.sendall(encrypted)

    def _feed(self) -> None:
        data = self._sock.recv(_READ_BYTES)
        with self._lock:
            if data:
                self._incoming.write(data)
            else:
                self._incoming.write_eof()


def dial(address: tuple[str, int], tls: Tls | None) -> Stream:
    """Connect to the supervisor. OSError: it is not there, or another is."""
    sock = socket.create_connection(address)
    if tls is None or not tls.supervisor:
        return sock
    try:
        keep_alive(sock)
        stream = TlsStream(sock, tls.client)
    except BaseException:
        sock.close()
        raise
    if stream.peer != tls.supervisor:
        stream.close()
        raise TlsError("the supervisor has another certificate than it should have")
    return stream


def keep_alive(sock: socket.socket | None) -> None:
    """Have a connection to another machine end when that machine is not heard of any more; one may be gone already."""
    if sock is None:
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", _IDLE_S), ("TCP_KEEPINTVL", _PROBE_EVERY_S), ("TCP_KEEPCNT", _PROBES)):
        sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000 * _UNHEARD_S)
