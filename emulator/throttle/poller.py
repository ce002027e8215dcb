"""Waiting for sockets with deadlines finer than a millisecond."""

import select
import socket
from collections.abc import Callable
from typing import Final

_READ: Final = select.EPOLLIN | select.EPOLLRDHUP
_WRITE: Final = select.EPOLLOUT


class Poller:
    """Calls a handler for each socket that can be read or written.

    The timeouts of epoll are whole milliseconds, those of select microseconds; so select waits for the epoll object.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[], None]] = {}
        self._writers: set[int] = set()

    def add(self, sock: socket.socket, handler: Callable[[], None], *, write: bool = False) -> None:
        """Call `handler` whenever the socket can be read, and with `write` also when it can be written."""
        fd = sock.fileno()
        self._epoll.register(fd, _READ | _WRITE if write else _READ)
        self._handlers[fd] = handler
        if write:
            self._writers.add(fd)

    def watch_write(self, sock: socket.socket, *, write: bool) -> None:
        """Begin or cease to watch for the moment when the socket can be written."""
        fd = sock.fileno()
        if write is not (fd in self._writers):
            self._epoll.modify(fd, _READ | _WRITE if write else _READ)
            (self._writers.add if write else self._writers.discard)(fd)

    def remove(self, sock: socket.socket) -> None:
        """Forget a socket, before it is closed."""
        fd = sock.fileno()
        if self._handlers.pop(fd, None) is not None:
            self._epoll.unregister(fd)
            self._writers.discard(fd)

    def wait(self, timeout_s: float) -> None:
        """Wait at most so many real seconds, then call the handlers of all sockets that are ready."""
        readable, _, _ = select.select((self._epoll,), (), (), max(timeout_s, 0.0))
        if readable:
            for fd, _ in self._epoll.poll(0):
                handler = self._handlers.get(fd)
                if handler is not None:  # else an earlier handler closed it
                    handler()

    def close(self) -> None:
        """Close the epoll object."""
        self._epoll.close()
