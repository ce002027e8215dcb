"""What TCP puts in front of fair sharing: ceilings by window and loss, handshakes and slow start, in closed form."""

from math import inf, sqrt
from typing import Final, Literal

Congestion = Literal["cubic", "reno", "bbr"]

SEGMENT_BYTES: Final = 1448
INITIAL_WINDOW_BYTES: Final = 10 * SEGMENT_BYTES
MIN_RTO_S: Final = 0.2
_BBR_TOLERATED_LOSS: Final = 0.02


def window_ceiling(window_bytes: float, rtt_s: float) -> float:
    """Return the rate in bytes/s that one window per round trip gives."""
    return window_bytes / rtt_s if rtt_s > 0.0 else inf


def loss_ceiling(congestion: Congestion, loss: float, rtt_s: float, segment_bytes: float = SEGMENT_BYTES) -> float:
    """Return the rate in bytes/s that congestion control holds at a packet loss probability.

    Reno: Mathis et al. 1997. CUBIC: RFC 9438, never below Reno. BBR ignores losses below 2 %; above, where it backs off
    like the others, it is counted as CUBIC.
    """
    if loss <= 0.0 or rtt_s <= 0.0 or (congestion == "bbr" and loss < _BBR_TOLERATED_LOSS):
        return inf
    segments = sqrt(1.5 / loss)
    if congestion != "reno":
        segments = max(segments, 1.054 * (rtt_s / loss) ** 0.75)
    return segments * segment_bytes / rtt_s


def handshake_s(rtt_s: float, *, tls: bool) -> float:
    """Return the time from opening a connection to its first byte of payload: one round trip, one more with TLS 1.3."""
    return (2.0 if tls else 1.0) * rtt_s


def retransmission_timeout_s(rtt_s: float) -> float:
    """Return the idle time after which a connection forgets its window (RFC 2861, with Linux's least 200 ms)."""
    return rtt_s + MIN_RTO_S


def slow_start_s(
    size_bytes: float, rate: float, rtt_s: float, initial_window_bytes: float = INITIAL_WINDOW_BYTES
) -> float:
    """Return the time a flow in slow start takes to drain: a window per round trip, doubling, up to `rate` bytes/s."""
    elapsed = 0.0
    window = initial_window_bytes
    left = size_bytes
    while window < rate * rtt_s and left > window:
        left -= window
        elapsed += rtt_s
        window *= 2.0
    return elapsed + left / min(rate, window / rtt_s if rtt_s > 0.0 else inf)


def slow_start_progress(
    elapsed_s: float, rate: float, rtt_s: float, initial_window_bytes: float = INITIAL_WINDOW_BYTES
) -> tuple[float, int]:
    """Return the bytes that a flow in slow start has sent after `elapsed_s`, and how often its window has doubled."""
    sent = 0.0
    window = initial_window_bytes
    doublings = 0
    while window < rate * rtt_s and (doublings + 1) * rtt_s <= elapsed_s:
        sent += window
        window *= 2.0
        doublings += 1
    pace = min(rate, window / rtt_s if rtt_s > 0.0 else inf)
    return sent + pace * (elapsed_s - doublings * rtt_s), doublings
