"""Frames: what is sent comes out, what is not sent by us closes the connection and nothing else."""

import struct
from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.throttle import frames, greeting
from emulator.throttle.frames import Frame, FrameError, Kind, parse
from emulator.throttle.incoming import Incoming


def data(header=b"h", body=b"body", message=7, offset=0, total=None, flags=0, times=(1.0, 1.5, 0.5)):
    total = len(body) if total is None else total
    begin_s, arrival_s, sent_s = times
    return (
        frames.data_header(
            header, memoryview(body), flags=flags, message=message, offset=offset, total=total,
            begin_s=begin_s, arrival_s=arrival_s, sent_s=sent_s,
        ) + header + body
    )  # fmt: skip


def one(raw, *, greeted=True) -> Frame:
    (frame,), used = parse(memoryview(raw), greeted=greeted)
    assert used == len(raw)
    return frame


def test_a_data_frame_comes_out_as_it_went_in():
    frame = one(data())
    assert frame.kind is Kind.DATA
    assert (bytes(frame.payload), frame.header_size, frame.message, frame.total) == (b"hbody", 1, 7, 4)
    assert (frame.begin_s, frame.arrival_s, frame.sent_s) == (1.0, 1.5, 0.5)
    assert frame.intact


@given(st.binary(max_size=50), st.binary(min_size=1, max_size=300), st.data())
def test_any_changed_byte_of_the_payload_is_found(header, body, draw):
    raw = bytearray(data(header=header, body=body))
    place = draw.draw(st.integers(frames.HEADER_BYTES, len(raw) - 1))
    raw[place] ^= 1 << draw.draw(st.integers(0, 7))
    assert not one(bytes(raw)).intact


def test_incomplete_frames_wait():
    raw = data()
    for size in range(len(raw)):
        assert parse(memoryview(raw[:size]), greeted=True) == ([], 0)
    found, used = parse(memoryview(raw + raw + raw[:10]), greeted=True)
    assert (len(found), used) == (2, 2 * len(raw))


def test_credits_and_requests_come_out_as_they_went_in():
    entries = [(1, 100, 0.5), (2, 0, 0.75)]
    assert list(frames.read_credits(one(frames.credit_frame(entries)))) == entries
    nack = one(frames.nack_frame(3, 4096, 100, 2.5))
    assert (nack.kind, nack.message, nack.offset, nack.total, nack.arrival_s) == (Kind.NACK, 3, 4096, 100, 2.5)
    with pytest.raises(FrameError, match="credits"):
        frames.read_credits(one(frames.small_frame(Kind.CREDIT, b"x")))


def patched(raw, place, form, value):
    changed = bytearray(raw)
    struct.pack_into(form, changed, place, value)
    return bytes(changed)


@pytest.mark.parametrize(
    "raw",
    [
        patched(data(), 0, "<B", 99),
        patched(data(), 1, "<B", 2),
        patched(data(), 2, "<H", 60000),
        patched(data(), 4, "<I", 2**31),
        patched(data(), 12, "<I", 0),
        patched(data(), 24, "<Q", 2**63),
        patched(data(), 32, "<Q", frames.MAX_MESSAGE_BYTES + 1),
        data(offset=1, total=5),
        data(times=(2.0, 1.0, 0.0)),
        data(times=(nan, 1.0, 0.0)),
        data(times=(0.0, inf, 0.0)),
        data(times=(0.0, 1.0, nan)),
        frames.small_frame(Kind.CREDIT, bytes(20 * (frames.MAX_CREDITS + 1))),
        frames.small_frame(Kind.HELLO, b"again"),
    ],
)
def test_malformed_frames_are_refused(raw):
    with pytest.raises(FrameError):
        parse(memoryview(raw), greeted=True)


def test_a_frame_that_claims_too_much_is_refused_before_its_payload_is_there():
    raw = data(header=b"", body=b"", total=2**30)
    with pytest.raises(FrameError):
        parse(memoryview(patched(raw, 4, "<I", frames.MAX_CHUNK_BYTES + 1)), greeted=True)


@given(st.binary(max_size=400), st.booleans())
def test_random_bytes_never_do_more_than_end_the_connection(raw, greeted):
    try:
        found, used = parse(memoryview(raw), greeted=greeted)
    except FrameError:
        return
    assert 0 <= used <= len(raw)
    assert not found


@given(st.integers(0, frames.HEADER_BYTES - 1), st.integers(0, 255), st.booleans())
def test_a_changed_byte_of_a_header_never_breaks_the_target(place, value, second):
    first = data(body=bytes(100), total=300)
    raw = bytearray(data(header=b"", body=bytes(100), offset=100, total=300) if second else first)
    raw[place] = value
    incoming = Incoming(3)
    if second:
        incoming.take(one(first))
    try:
        for frame in parse(memoryview(bytes(raw)), greeted=True)[0]:
            incoming.take(frame)
    except FrameError:
        return
    assert incoming.received_bytes <= 400


def test_nothing_but_a_greeting_is_heard_before_the_greeting():
    with pytest.raises(FrameError, match="wrong time"):
        parse(memoryview(data()), greeted=False)
    with pytest.raises(FrameError, match="2000 bytes"):
        parse(memoryview(frames.small_frame(Kind.HELLO, bytes(2000))), greeted=False)


WHO = greeting.Who(1, 2, 0, 1e6, b"n" * 16)


def greet(source_token=b"t", target_token=b"t", who=WHO):
    nonce = b"c" * greeting.NONCE_BYTES
    hello = greeting.hello(source_token, one(greeting.challenge(nonce), greeted=False), who)
    said, answer = greeting.welcome(target_token, one(hello, greeted=False), nonce)
    greeting.check_welcome(source_token, one(answer, greeted=False), nonce, who)
    return said


def test_both_ends_prove_that_they_know_the_secret():
    assert greet() == WHO
    with pytest.raises(FrameError, match="without the run's secret"):
        greet(source_token=b"other")
    nonce = b"c" * 16
    forged = frames.small_frame(Kind.WELCOME, b"p" * 32)
    with pytest.raises(FrameError, match="welcome without"):
        greeting.check_welcome(b"t", one(forged, greeted=False), nonce, WHO)
    with pytest.raises(FrameError, match="hello was expected"):
        greeting.welcome(b"t", one(forged, greeted=False), nonce)
    with pytest.raises(FrameError, match="challenge was expected"):
        greeting.hello(b"t", one(forged, greeted=False), WHO)


def test_chunks_out_of_place_are_refused():
    incoming = Incoming(3)
    incoming.take(one(data(body=bytes(10), total=30)))
    for raw in (
        data(header=b"", body=bytes(10), offset=20, total=30),
        data(body=bytes(10), total=30),
        data(header=b"", body=bytes(10), offset=10, total=40),
        data(header=b"", body=bytes(10), offset=10, total=30, flags=1),
        data(header=b"", body=bytes(5), offset=5, total=30, message=8),
    ):
        with pytest.raises(FrameError):
            incoming.take(one(raw))
