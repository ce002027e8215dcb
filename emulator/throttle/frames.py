"""Frames: what goes over the connections, as bytes; and how bytes that are no frames are refused.

Each frame is a header of fixed size and a payload. In a data frame the payload is the first `header_size` bytes of the
message's own header (first frame only), then a chunk of its body. The other kinds use the fields that they need.
"""

import struct
import zlib
from collections.abc import Iterable, Iterator
from enum import IntEnum
from math import isfinite
from typing import Final, NamedTuple

MAX_CHUNK_BYTES: Final = 1024**2
MAX_HEADER_BYTES: Final = 2**16 - 1
MAX_MESSAGE_BYTES: Final = 4 * 1024**3
MAX_GREETING_BYTES: Final = 1024
MAX_CREDITS: Final = 4096

CONTROL: Final = 1
"""Flag: the message is of the control class."""

_HEADER: Final = struct.Struct("<BBHIIIQQQddd")
HEADER_BYTES: Final = _HEADER.size
MAX_FRAME_BYTES: Final = HEADER_BYTES + MAX_HEADER_BYTES + MAX_CHUNK_BYTES
_CREDIT: Final = struct.Struct("<QId")
_MAGIC: Final = 0x6F62_6564


class FrameError(ValueError):
    """Bytes that no honest peer sends: the connection they came over must be closed."""


class Kind(IntEnum):
    """What a frame is for."""

    CHALLENGE = 1  # target to source: a nonce
    HELLO = 2  # source to target: who it is, a nonce, and the proof that it knows the secret
    WELCOME = 3  # target to source: its proof
    DATA = 4  # source to target: a chunk of a message
    CREDIT = 5  # target to source: chunks that the downlink has taken in, and when that is known at the source
    NACK = 6  # target to source: a chunk that must be sent again, and when that is known at the source


_KINDS: Final = tuple(Kind(number) if number in set(Kind) else None for number in range(256))
_DATA: Final = Kind.DATA


class Frame(NamedTuple):
    """A frame as it came in; `payload` points into the receive buffer and is valid only until the next read.

    Its first bit arrives at `begin_s`, its last at `arrival_s`; its message was enqueued at `sent_s`.
    """

    kind: Kind
    flags: int
    header_size: int
    crc: int
    message: int
    offset: int
    total: int
    begin_s: float
    arrival_s: float
    sent_s: float
    payload: memoryview

    @property
    def intact(self) -> bool:
        """Whether the payload has the checksum that the sender took of it."""
        return zlib.crc32(self.payload) == self.crc


def data_header(
    header: bytes,
    chunk: memoryview,
    *,
    flags: int,
    message: int,
    offset: int,
    total: int,
    begin_s: float,
    arrival_s: float,
    sent_s: float,
) -> bytes:
    """Return the header of a data frame whose payload is `header`, then `chunk`."""
    size = len(header)
    crc = zlib.crc32(chunk, zlib.crc32(header)) if size else zlib.crc32(chunk)
    return _HEADER.pack(
        _DATA, flags, size, size + len(chunk), crc, _MAGIC, message, offset, total, begin_s, arrival_s, sent_s
    )


def small_frame(kind: Kind, payload: bytes = b"") -> bytes:
    """Return a complete frame of another kind than data."""
    return _HEADER.pack(kind, 0, 0, len(payload), zlib.crc32(payload), _MAGIC, 0, 0, 0, 0.0, 0.0, 0.0) + payload


def nack_frame(message: int, offset: int, num_bytes: int, stamp_s: float) -> bytes:
    """Return a frame that asks for a chunk again; its source knows at `stamp_s`. `total` carries the chunk's size."""
    return _HEADER.pack(Kind.NACK, 0, 0, 0, 0, _MAGIC, message, offset, num_bytes, stamp_s, stamp_s, 0.0)


def credit_frame(credits_: Iterable[tuple[int, int, float]]) -> bytes:
    """Return a frame that credits chunks: (message, bytes, run second at which its source knows) in order of time."""
    return small_frame(Kind.CREDIT, b"".join([_CREDIT.pack(*credit) for credit in credits_]))


def read_credits(frame: Frame) -> Iterator[tuple[int, int, float]]:
    """Return the entries of a credit frame; FrameError if they are none."""
    if len(frame.payload) % _CREDIT.size or not frame.intact:
        raise FrameError("damaged credits")
    return _CREDIT.iter_unpack(frame.payload)


def parse(buffer: memoryview, *, greeted: bool) -> tuple[list[Frame], int]:
    """Return the complete frames at the start of a buffer, and how many bytes they are.

    Before the two ends have `greeted` only small frames of the greeting are allowed, afterwards only the others.
    FrameError for anything malformed, found as early as the header is there.
    """
    frames: list[Frame] = []
    at = 0
    end = len(buffer)
    unpack = _HEADER.unpack_from
    while end - at >= HEADER_BYTES:
        kind_number, flags, header_size, length, crc, magic, *rest = unpack(buffer, at)
        kind = _KINDS[kind_number]
        if kind is None or magic != _MAGIC or flags > CONTROL:
            raise FrameError("not a frame")
        body = length - header_size
        message, offset, total, begin_s, arrival_s, sent_s = rest
        if kind is _DATA:
            if not 0 <= body <= MAX_CHUNK_BYTES or total > MAX_MESSAGE_BYTES or offset + body > total:
                raise FrameError(f"a chunk of {body} bytes at {offset} of {total}")
            if header_size and offset:
                raise FrameError("a header in the middle of a message")
        elif length > (MAX_GREETING_BYTES if kind <= Kind.WELCOME else MAX_CREDITS * _CREDIT.size) or header_size:
            raise FrameError(f"{length} bytes in a frame of kind {kind.name}")
        if (kind > Kind.WELCOME) is not greeted:
            raise FrameError(f"a frame of kind {kind.name} at the wrong time")
        if not (begin_s <= arrival_s and isfinite(begin_s) and isfinite(arrival_s) and isfinite(sent_s)):
            raise FrameError("times that are none")
        after = at + HEADER_BYTES + length
        if after > end:
            break
        payload = buffer[at + HEADER_BYTES : after]
        frames.append(
            Frame(
                kind, flags, header_size, crc, message, offset, total, begin_s, arrival_s, sent_s, payload
            )
        )  # fmt: skip
        at = after
        if not greeted:
            break  # what follows is read when the greeting has been judged
    return frames, at
