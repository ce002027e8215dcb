"""The control protocol: what is no message is an error that says so, whatever it is."""

import asyncio
import json
import socket
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orionbed.fleet import control
from orionbed.fleet.control import Channel, ControlError

Pair = tuple[Channel, socket.socket]


@pytest.fixture(name="ends")
def _ends() -> Iterator[Pair]:
    one, other = socket.socketpair()
    other.settimeout(5.0)
    channel = Channel(one)
    yield channel, other
    channel.close()
    other.close()


def read(data: bytes, most: int = control.MOST_BYTES) -> control.Message:
    async def from_bytes() -> control.Message:
        reader = asyncio.StreamReader()
        reader.feed_data(data)
        reader.feed_eof()
        return await control.read(reader, most)

    return asyncio.run(from_bytes())


def framed(body: bytes) -> bytes:
    return struct.pack("!I", len(body)) + body


def test_a_message_arrives_as_it_was_sent(ends: Pair) -> None:
    channel, other = ends
    message = {"t": "report", "spans": [[1, 2.5, "é"]], "none": None}
    other.sendall(control.encoded(message))
    assert channel.receive() == message
    channel.send(message)
    assert read(other.recv(1 << 16)) == message


def test_messages_come_one_by_one_however_they_are_cut(ends: Pair) -> None:
    channel, other = ends
    for byte in control.encoded({"t": "one"}) + control.encoded({"t": "two"}):
        other.send(bytes([byte]))
    assert [channel.receive()["t"], channel.receive()["t"]] == ["one", "two"]


def test_a_large_message_comes_in_many_parts(ends: Pair) -> None:
    channel, other = ends
    channel.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    other.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 22)
    message = {"t": "x", "text": "a" * 150_000}
    other.sendall(control.encoded(message))
    assert channel.receive() == message


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (b"", "no JSON"),
        (b"{", "no JSON"),
        (b"\xff\xfe", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b"[]", "no type"),
        (b"7", "no type"),
        (b"null", "no type"),
        (b"{}", "no type"),
        (b'{"t": 7}', "no type"),
        (b'{"T": "hello"}', "no type"),
    ],
)
def test_garbage_is_no_message(ends: Pair, body: bytes, what: str) -> None:
    channel, other = ends
    other.sendall(framed(body))
    with pytest.raises(ControlError, match=what):
        channel.receive()
    with pytest.raises(ControlError, match=what):
        read(framed(body))


@given(st.binary(max_size=64))
def test_whatever_comes_is_a_message_or_an_error(data: bytes) -> None:
    try:
        message = control.decoded(data)
    except ControlError:
        return
    assert isinstance(message["t"], str)
    assert json.loads(data) == message


def test_what_is_too_long_is_refused_before_it_comes(ends: Pair) -> None:
    channel, other = ends
    other.sendall(struct.pack("!I", control.MOST_BYTES + 1))
    with pytest.raises(ControlError, match="was announced"):
        channel.receive()
    with pytest.raises(ControlError, match="17 bytes was announced, 16 is the most"):
        read(struct.pack("!I", 17) + b"x" * 17, most=16)


def test_what_is_too_long_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "MOST_BYTES", 16)
    with pytest.raises(ControlError, match="longer than 16"):
        control.encoded({"t": "a long one"})


@pytest.mark.parametrize("length", [0, 2, 4, 7])
def test_a_message_that_breaks_off_is_the_end(ends: Pair, length: int) -> None:
    channel, other = ends
    part = control.encoded({"t": "hello"})[:length]
    other.sendall(part)
    other.close()
    with pytest.raises(ControlError, match="gone"):
        channel.receive()
    with pytest.raises(ControlError):
        read(part)
