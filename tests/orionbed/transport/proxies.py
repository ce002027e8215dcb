"""A proxy between two endpoints that does what bad networks do."""

import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self


class Proxy:
    """Passes connections on to `target`, damages the n-th one at bytes `flip[n]` and breaks it after `cut[n]`.

    That holds for the way there; what comes back is left alone.
    """

    def __init__(
        self, target: tuple[str, int], flip: dict[int, list[int]] | None = None, cut: dict[int, int] | None = None
    ) -> None:
        self._target, self._flip, self._cut = target, flip or {}, cut or {}
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = ("127.0.0.1", self._listener.getsockname()[1])
        self.num_connections = 0
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                number = self.num_connections
                self.num_connections += 1
                far = socket.create_connection(self._target)
                self._sockets += [near, far]
                for ends in ((near, far, number), (far, near, None)):
                    thread = threading.Thread(target=self._pass_on, args=ends, daemon=True)
                    self._threads.append(thread)
                    thread.start()

    def _pass_on(self, source: socket.socket, sink: socket.socket, number: int | None) -> None:
        flips = list(self._flip.get(number, [])) if number is not None else []
        cut = self._cut.get(number, 1 << 60) if number is not None else 1 << 60
        passed = 0
        with suppress(OSError):
            while data := bytearray(source.recv(65536)):
                for at in flips:
                    if passed <= at < passed + len(data):
                        data[at - passed] ^= 0x10
                sink.sendall(data[: max(0, cut - passed)])
                passed += len(data)
                if passed >= cut:
                    break
        for each in (source, sink):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for each in [self._listener, *self._sockets]:
            each.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
