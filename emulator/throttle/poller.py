"""Waiting for sockets with deadlines finer than a millisecond."""

import select
import socket
from collections.abc import Callable
from typing import Final

_READ: Final = select.EPOLLIN | select.EPOLLRDHUP
_WRITE: Final = select.EPOLLOUT


class Poller:
    """Calls a handler for each socket that can be read or written; `bell` is the one that other threads ring.

    The timeouts of epoll are whole milliseconds, those of select microseconds; so select waits for the epoll object.
    """

    def __init__(self, bell: socket.socket) -> None:
        self._bell = bell
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

    def wait(self, timeout_s: float, patience_s: float) -> None:
        """Wait at most so many real seconds, then call the handlers of all sockets that are ready.

        Waking up is what costs most. So a wait that is no longer than `patience_s` is ended by the bell alone.
        """
        timeout_s = max(timeout_s, 0.0)
        awaited: list[socket.socket | select.epoll] = [self._bell]
        if timeout_s > patience_s:
            awaited.append(self._epoll)
        select.select(awaited, (), (), timeout_s)
        for fd, _ in self._epoll.poll(0):
            handler = self._handlers.get(fd)
            if handler is not None:  # else an earlier handler closed it
                handler()

    def close(self) -> None:
        """Close the epoll object."""
        self._epoll.close()
