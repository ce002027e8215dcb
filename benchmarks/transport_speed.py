"""Throughput and latency of the transport between peers, beside bare sockets.

    python -m benchmarks.transport_speed

One 64 MiB body at a time from one thread to another over loopback, and messages of 64 bytes there and back, with and
without TLS; the best and the median of several. A bare socket is `sendall` and `recv_into` in two threads, into memory
that is used again; the transport hands over a new body each time, and adds a CRC-32 at both ends. All in one run, so
that the ratios hold whatever the machine is doing. What CRC-32 alone does on this machine is printed beside it.
"""

import socket
import threading
import time
import zlib
from collections.abc import Callable
from queue import SimpleQueue
from statistics import median
from typing import Any

from orionbed.transport.endpoint import Delivery, Endpoint

LARGE_BYTES = 64 << 20
SMALL_BYTES = 64
NUM_LARGE = 8
NUM_SMALL = 2000
Times = tuple[list[float], list[float]]


def bare() -> Times:
    """Seconds of large messages and of round trips of small ones over a bare socket."""
    listener = socket.create_server(("127.0.0.1", 0))
    near = socket.create_connection(listener.getsockname())
    far, _ = listener.accept()
    for sock in (near, far):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    thread = threading.Thread(target=_echo, args=(far,))
    thread.start()
    body, answer = bytes(LARGE_BYTES), memoryview(bytearray(SMALL_BYTES))

    def large() -> None:
        near.sendall(body)
        near.recv_into(answer[:1])

    def small() -> None:
        near.sendall(body[:SMALL_BYTES])
        _fill(near, answer)

    times = _timed(large, NUM_LARGE), _timed(small, NUM_SMALL)
    near.close()
    thread.join()
    far.close()
    listener.close()
    return times


def _echo(sock: socket.socket) -> None:
    into = memoryview(bytearray(LARGE_BYTES))
    for _ in range(NUM_LARGE):
        _fill(sock, into)
        sock.sendall(b"x")
    for _ in range(NUM_SMALL):
        _fill(sock, into[:SMALL_BYTES])
        sock.sendall(into[:SMALL_BYTES])


def _fill(sock: socket.socket, view: memoryview) -> None:
    while view:
        view = view[sock.recv_into(view) :]


def ours(credentials: Any) -> Times:
    """Seconds of large messages and of round trips of small ones over the transport."""
    come: SimpleQueue[Delivery] = SimpleQueue()

    def failed(*what: object) -> None:
        raise ConnectionError(what)

    def answer(delivery: Delivery) -> None:
        far.send(0, b"", b"" if len(delivery.body) > SMALL_BYTES else delivery.body)

    far = Endpoint(1, token=b"", deliver=answer, failed=failed, credentials=credentials)
    near = Endpoint(0, token=b"", deliver=come.put, failed=failed, credentials=credentials)
    near.set_address(1, far.address)
    far.set_address(0, near.address)
    body = bytes(LARGE_BYTES)

    def large() -> None:
        near.send(1, b"", body)
        come.get()

    def small() -> None:
        near.send(1, b"", body[:SMALL_BYTES])
        come.get()

    small()
    times = _timed(large, NUM_LARGE), _timed(small, NUM_SMALL)
    near.close()
    far.close()
    return times


def _timed(what: Callable[[], object], times: int) -> list[float]:
    found = []
    for _ in range(times):
        started = time.perf_counter()
        what()
        found.append(time.perf_counter() - started)
    return found


def main() -> None:
    """Measure and print."""
    from orionbed.backends import BackendError
    from orionbed.fleet.certificates import Authority

    rows = [("bare socket", bare()), ("transport", ours(None))]
    missing = ""
    try:
        rows.append(("transport with TLS", ours(Authority().issue("benchmark"))))
    except BackendError as error:
        missing = str(error)
    _, (large, small) = rows[0]
    print(f"{'':<20} {'64 MiB best':>12} {'of bare':>8} {'median':>12} {'of bare':>8} {'64 B back':>10} {'x bare':>7}")
    for name, (large_s, small_s) in rows:
        best, middle = (8e-9 * LARGE_BYTES / found for found in (min(large_s), median(large_s)))
        print(
            f"{name:<20} {best:>5.1f} Gbit/s {min(large) / min(large_s):>8.0%} {middle:>5.1f} Gbit/s "
            f"{median(large) / median(large_s):>8.0%} {1e6 * median(small_s):>7.0f} us "
            f"{median(small_s) / median(small):>7.1f}"
        )
    body = bytes(LARGE_BYTES)
    crc_s = min(_timed(lambda: zlib.crc32(body), 3))
    print(f"CRC-32 alone: {8e-9 * LARGE_BYTES / crc_s:.1f} Gbit/s")
    if missing:
        print(f"\n*** TLS WAS LEFT OUT: {missing} ***")


if __name__ == "__main__":
    main()
