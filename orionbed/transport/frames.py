"""What travels on a connection once both ends have greeted: messages one way, acknowledgements the other.

A message is a head, its header, its body, and the CRC-32 of both. The CRC comes last, so that bytes leave while it is
still being computed. A head has a CRC of its own: a damaged length would make everything after it unreadable.
"""

import struct
import zlib
from enum import IntEnum
from typing import Final, NamedTuple

MOST_HEADER_BYTES: Final = 1 << 16
MOST_BODY_BYTES: Final = 1 << 32
CONTROL: Final = 1 << 62
"""Sequence number of the first control message; those of data begin at 0."""

_HEAD: Final = struct.Struct("!BxxxIQQ")
_ANSWER: Final = struct.Struct("!BxxxQ")
_CRC: Final = struct.Struct("!I")
HEAD_BYTES: Final = _HEAD.size + _CRC.size
ANSWER_BYTES: Final = _ANSWER.size + _CRC.size
CRC_BYTES: Final = _CRC.size


class FrameError(ConnectionError):
    """What came in is nothing that this protocol sends."""


class Kind(IntEnum):
    """What a frame is."""

    MESSAGE = 1
    SKIP = 2  # the source has given up a message: go on with the next
    ACKNOWLEDGED = 3  # all of this class up to here have been delivered
    REFUSED = 4  # damaged: send it again, with all of its class after it


class Head(NamedTuple):
    """The beginning of a message."""

    kind: Kind
    header_bytes: int
    body_bytes: int
    sequence: int


def head(kind: Kind, header_bytes: int, body_bytes: int, sequence: int) -> bytes:
    """Return the head of a message."""
    return _checked(_HEAD.pack(kind, header_bytes, body_bytes, sequence))


def read_head(data: memoryview) -> Head:
    """Return the head that `HEAD_BYTES` bytes hold; FrameError if they hold none, or a message that is too large."""
    number, header_bytes, body_bytes, sequence = _HEAD.unpack(_intact(data))
    if number not in {Kind.MESSAGE, Kind.SKIP}:
        raise FrameError(f"a frame of kind {number} where a message was expected")
    if header_bytes > MOST_HEADER_BYTES or body_bytes > MOST_BODY_BYTES:
        raise FrameError(f"a message with a header of {header_bytes} and a body of {body_bytes} bytes")
    return Head(Kind(number), header_bytes, body_bytes, sequence)


def answer(kind: Kind, sequence: int) -> bytes:
    """Return what the target says of a message."""
    return _checked(_ANSWER.pack(kind, sequence))


def read_answer(data: memoryview) -> tuple[Kind, int]:
    """Return kind and sequence number that `ANSWER_BYTES` bytes hold; FrameError if they hold none."""
    number, sequence = _ANSWER.unpack(_intact(data))
    if number not in {Kind.ACKNOWLEDGED, Kind.REFUSED}:
        raise FrameError(f"a frame of kind {number} where an answer was expected")
    return Kind(number), sequence


def crc_bytes(crc: int) -> bytes:
    """Return a CRC as it travels."""
    return _CRC.pack(crc)


def lane_of(sequence: int) -> int:
    """Return the class of a message: 0 for data, 1 for control."""
    return int(sequence >= CONTROL)


def _checked(packed: bytes) -> bytes:
    return packed + _CRC.pack(zlib.crc32(packed))


def _intact(data: memoryview) -> memoryview:
    packed = data[: -_CRC.size]
    if _CRC.pack(zlib.crc32(packed)) != data[-_CRC.size :]:
        raise FrameError("a damaged frame")
    return packed
