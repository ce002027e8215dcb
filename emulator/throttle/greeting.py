"""The first three frames of a connection: both ends prove that they know the run's secret.

The target sends a nonce; the source answers with its own, who it is, and a keyed hash of all that; the target answers
with another. Without them a connection carries nothing, so a stray local process can inject nothing.
"""

import hashlib
import hmac
import struct
from typing import Final, NamedTuple

from emulator.throttle.frames import Frame, FrameError, Kind, small_frame

NONCE_BYTES: Final = 16
_WHO: Final = struct.Struct("<IIQd16s")
_PROOF_BYTES: Final = 32


class Who(NamedTuple):
    """What a source says of itself: its index, which life of it this is, its window, and the connection's number."""

    source: int
    target: int
    life: int
    window_bytes: float
    connection: bytes


def challenge(nonce: bytes) -> bytes:
    """Return the frame with which the target begins."""
    return small_frame(Kind.CHALLENGE, nonce)


def hello(token: bytes, frame: Frame, who: Who) -> bytes:
    """Return the source's answer to a challenge; FrameError if it is none."""
    nonce = bytes(frame.payload)
    if frame.kind is not Kind.CHALLENGE or len(nonce) != NONCE_BYTES:
        raise FrameError("a challenge was expected")
    said = _WHO.pack(*who)
    return small_frame(Kind.HELLO, said + _proof(token, b"hello", nonce, said))


def welcome(token: bytes, frame: Frame, nonce: bytes) -> tuple[Who, bytes]:
    """Return who greets, and the target's answer; FrameError if the proof is wrong."""
    payload = bytes(frame.payload)
    if frame.kind is not Kind.HELLO or len(payload) != _WHO.size + _PROOF_BYTES:
        raise FrameError("a hello was expected")
    said = payload[: _WHO.size]
    if not hmac.compare_digest(payload[_WHO.size :], _proof(token, b"hello", nonce, said)):
        raise FrameError("a hello without the run's secret")
    answer = _proof(token, b"welcome", nonce, said)
    return Who(*_WHO.unpack(said)), small_frame(Kind.WELCOME, answer)


def check_welcome(token: bytes, frame: Frame, nonce: bytes, who: Who) -> None:
    """Check the target's answer; FrameError if it does not know the secret either."""
    expected = _proof(token, b"welcome", nonce, _WHO.pack(*who))
    if frame.kind is not Kind.WELCOME or not hmac.compare_digest(bytes(frame.payload), expected):
        raise FrameError("a welcome without the run's secret")


def _proof(token: bytes, role: bytes, nonce: bytes, said: bytes) -> bytes:
    return hmac.new(token, role + nonce + said, hashlib.sha256).digest()
