"""How fast bytes move: between pinned memory and a GPU, and over a connection of the machine to itself."""

import socket
import threading
import time
from contextlib import closing
from dataclasses import dataclass
from typing import Final

from real.calibration.measure import Clock, Effort, Mark, Timed, measure, median_of

COPIED_BYTES: Final = 2**26
SENT_BYTES: Final = 2**28
CHUNK_BYTES: Final = 2**20
NUM_MESSAGES: Final = 200
_TIMEOUT_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Loopback:
    """Bits per second of one connection, and the seconds that a small message takes one way."""

    rate_bps: float
    delay_s: float


def measure_loopback() -> Loopback:
    """Time messages and a long transfer between two threads over TCP on 127.0.0.1.

    Raises:
        OSError: the machine lets nobody connect.

    """
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        server.settimeout(_TIMEOUT_S)
        echo = threading.Thread(target=_answer, args=(server,), daemon=True)
        echo.start()
        with closing(socket.create_connection(server.getsockname(), timeout=_TIMEOUT_S)) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            trips = []
            for _ in range(NUM_MESSAGES):
                started_s = time.perf_counter()
                connection.sendall(b"x")
                connection.recv(1)
                trips.append(time.perf_counter() - started_s)
            chunk = bytes(CHUNK_BYTES)
            started_s = time.perf_counter()
            for _ in range(SENT_BYTES // CHUNK_BYTES):
                connection.sendall(chunk)
            connection.recv(1)
            seconds = time.perf_counter() - started_s
        echo.join(_TIMEOUT_S)
    return Loopback(8.0 * SENT_BYTES / seconds, median_of(trips) / 2.0)


def _answer(server: socket.socket) -> None:
    """Send back each of the small messages, and one byte for the long transfer."""
    with closing(server.accept()[0]) as connection:
        connection.settimeout(_TIMEOUT_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(NUM_MESSAGES):
            connection.sendall(connection.recv(1))
        left, buffer = SENT_BYTES, bytearray(CHUNK_BYTES)
        while left:
            received = connection.recv_into(buffer)
            if not received:
                return
            left -= received
        connection.sendall(b"x")


@dataclass(frozen=True, slots=True)
class DeviceCopies:
    """Bytes per second from pinned memory to a GPU and back."""

    to_device: float
    to_host: float


def measure_device_copies(clock: Clock, effort: Effort) -> DeviceCopies:
    """Time copies between pinned memory and the GPU."""
    import torch

    here = torch.zeros(COPIED_BYTES, dtype=torch.uint8, pin_memory=True)
    there = torch.zeros(COPIED_BYTES, dtype=torch.uint8, device="cuda")

    def run(mark: Mark) -> None:
        mark()
        there.copy_(here, non_blocking=True)
        mark()
        here.copy_(there, non_blocking=True)
        mark()

    times = measure([Timed("copies", ("to_device", "to_host"), run)], clock, effort)["copies"]
    return DeviceCopies(*(COPIED_BYTES / median_of(times[section]) for section in ("to_device", "to_host")))
