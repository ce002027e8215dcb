"""How a connection is doing: what the kernel knows of it, and how long our own messages took."""

import socket
import struct
import sys
from collections import deque
from dataclasses import dataclass
from statistics import median
from typing import Final

LARGE_BYTES: Final = 256 * 1024
_KEPT: Final = 512
_TCP_INFO_BYTES: Final = 192
# Offsets in Linux's struct tcp_info (include/uapi/linux/tcp.h): eight single bytes, 24 words, then what came later.
_RTT_AT, _WINDOW_AT, _RETRANSMITTED_AT, _DELIVERY_RATE_AT = 68, 80, 100, 160


@dataclass(frozen=True, slots=True)
class Telemetry:
    """One peer's connection. None: not known, because nothing was sent, or the kernel does not say.

    `rtt_s` is smoothed, `rtt_variance_s` its mean deviation, as the kernel keeps them. `message_s` is the median time
    from handing a message over until its acknowledgement is here, `large_bps` the median rate (bit/s) of messages of
    at least 256 KiB, from the first byte written to the acknowledgement.
    """

    rtt_s: float | None = None
    rtt_variance_s: float | None = None
    window_segments: int | None = None
    retransmitted_segments: int | None = None
    delivery_bps: float | None = None
    message_s: float | None = None
    large_bps: float | None = None


class MessageTimes:
    """The latest messages' times."""

    def __init__(self) -> None:
        self._message_s: deque[float] = deque(maxlen=_KEPT)
        self._large_bps: deque[float] = deque(maxlen=_KEPT)

    def add(self, num_bytes: int, given_s: float, began_s: float, acknowledged_s: float) -> None:
        """Note a message that has been acknowledged."""
        self._message_s.append(acknowledged_s - given_s)
        if num_bytes >= LARGE_BYTES:
            self._large_bps.append(8.0 * num_bytes / max(acknowledged_s - began_s, 1e-9))

    def medians(self) -> tuple[float | None, float | None]:
        """Return `message_s` and `large_bps`."""
        return _median(self._message_s), _median(self._large_bps)


def telemetry(sock: socket.socket | None, times: MessageTimes) -> Telemetry:
    """Return how a connection is doing; without a socket, how it did."""
    message_s, large_bps = times.medians()
    info = b"" if sock is None or sys.platform != "linux" else _tcp_info(sock)
    if len(info) < _RETRANSMITTED_AT + 4:
        return Telemetry(message_s=message_s, large_bps=large_bps)
    rtt_us, variance_us = struct.unpack_from("=II", info, _RTT_AT)
    (window,) = struct.unpack_from("=I", info, _WINDOW_AT)
    (retransmitted,) = struct.unpack_from("=I", info, _RETRANSMITTED_AT)
    delivery_bps = None
    if len(info) >= _DELIVERY_RATE_AT + 8:
        (bytes_per_s,) = struct.unpack_from("=Q", info, _DELIVERY_RATE_AT)
        delivery_bps = 8.0 * bytes_per_s if bytes_per_s else None
    return Telemetry(
        1e-6 * rtt_us, 1e-6 * variance_us, window, retransmitted, delivery_bps, message_s, large_bps
    )  # fmt: skip


def _tcp_info(sock: socket.socket) -> bytes:
    try:
        return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
    except OSError:
        return b""


def _median(values: deque[float]) -> float | None:
    return median(values) if values else None
