"""Who is let in: those who know the run's secret, and with TLS show a certificate of its authority; nobody else."""

import socket
import struct
import time
import zlib
from contextlib import suppress
from datetime import timedelta

import pytest

from orionbed.fleet.certificates import Authority
from orionbed.transport import incoming
from orionbed.transport.frames import Kind, head
from orionbed.transport.greeting import Hello, Identity, greet
from orionbed.transport.pipe import PlainPipe
from tests.orionbed.transport.conftest import TOKEN, Peer, Peers, introduce


def hung_up(sock: socket.socket, within_s: float = 10.0) -> bool:
    """Whether the other end closes the connection."""
    sock.settimeout(within_s)
    with suppress(ConnectionError):
        while sock.recv(4096):
            pass
    return True


def greeted(peer: Peer, index: int = 5) -> socket.socket:
    """Return a connection to a peer that is let in."""
    sock = socket.create_connection(peer.endpoint.address)
    greet(PlainPipe(sock), TOKEN, Hello(Identity.new(index, 0), (0, 1 << 62)), peer.endpoint.index)
    return sock


def test_a_stranger_is_hung_up_on(peers: Peers) -> None:
    (peer,) = peers(1)
    with socket.create_connection(peer.endpoint.address) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\n\r\n" * 20)
        assert hung_up(sock)
    assert not peer.delivered


def test_who_says_nothing_is_hung_up_on(peers: Peers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incoming, "GREET_WITHIN_S", 0.3)
    (peer,) = peers(1)
    with socket.create_connection(peer.endpoint.address) as sock:
        started = time.monotonic()
        assert hung_up(sock)
        assert time.monotonic() - started < 3.0


def test_no_more_than_so_many_strangers_are_listened_to(peers: Peers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incoming, "MOST_STRANGERS", 3)
    (peer,) = peers(1)
    waiting = [socket.create_connection(peer.endpoint.address) for _ in range(3)]
    try:
        assert all(len(sock.recv(100)) > 0 for sock in waiting)
        with socket.create_connection(peer.endpoint.address) as late:
            assert hung_up(late, within_s=2.0)
    finally:
        for sock in waiting:
            sock.close()


def test_another_secret_is_refused_by_both_ends(peers: Peers) -> None:
    (peer,) = peers(1)
    other = Peer(1, token=b"another", patience_s=0.5)
    try:
        introduce([peer, other])
        other.endpoint.send(0, b"", b"x")
        other.wait_for_loss()
        assert not peer.delivered
    finally:
        other.endpoint.close()


def test_a_hello_cannot_be_replayed_to_another_peer(peers: Peers) -> None:
    one, _ = peers(2)
    with socket.create_connection(one.endpoint.address) as sock, pytest.raises(ConnectionError):
        greet(PlainPipe(sock), TOKEN, Hello(Identity.new(5, 0), (0, 1 << 62)), 1)


@pytest.mark.parametrize(
    "frame",
    [
        head(Kind.MESSAGE, 1 << 20, 0, 0),
        head(Kind.MESSAGE, 0, 1 << 40, 0),
        head(Kind.ACKNOWLEDGED, 0, 0, 0),
        head(Kind.MESSAGE, 0, 0, 1) + struct.pack("!I", zlib.crc32(b"")),
        b"nonsense" * 8,
    ],
    ids=["a long header", "a huge body", "an answer", "a gap", "nonsense"],
)
def test_frames_that_may_not_be_end_the_connection(peers: Peers, frame: bytes) -> None:
    (peer,) = peers(1)
    with greeted(peer) as sock:
        sock.sendall(frame)
        assert hung_up(sock)
    assert not peer.delivered


def test_with_tls_everything_arrives_encrypted(peers: Peers) -> None:
    authority = Authority()
    one, other = peers(2, credentials=authority.issue("peers"))
    for k in range(20):
        one.endpoint.send(1, b"%d" % k, bytes([k]) * (k * 100_000))
        other.endpoint.send(0, b"%d" % k, bytes([k]) * (k * 100_000))
        if k == 10:
            one.endpoint.cut(1, "a test")
    for peer in (one, other):
        came = peer.wait_for(20)
        assert [each.header for each in came] == [b"%d" % k for k in range(20)]
        assert all(each.body == bytes([k]) * (k * 100_000) for k, each in enumerate(came))


@pytest.mark.parametrize(
    ("mine", "theirs", "named"),
    [
        ("foreign", "good", "certificate verify failed"),
        ("expired", "good", "certificate expired"),
        ("good", "foreign", "certificate verify failed"),
        ("good", "expired", "certificate has expired"),
        (None, "good", "as one does that waits for TLS"),
        ("good", None, "wrong version number"),
    ],
)
def test_a_connection_that_tls_forbids_says_why(mine: str | None, theirs: str | None, named: str) -> None:
    authority = Authority()
    credentials = {
        "good": authority.issue("a peer"),
        "expired": authority.issue("an old one", timedelta(minutes=-30)),
        "foreign": Authority().issue("somebody in between"),
        None: None,
    }
    peers = [Peer(0, credentials=credentials[theirs]), Peer(1, credentials=credentials[mine], patience_s=0.2)]
    try:
        peers[1].endpoint.set_address(0, peers[0].endpoint.address)
        peers[1].endpoint.send(0, b"", b"x")
        assert named in peers[1].wait_for_loss()[0][3]
        assert not peers[0].delivered
    finally:
        for peer in peers:
            peer.endpoint.close()


def test_with_tls_strangers_and_other_authorities_are_refused(peers: Peers) -> None:
    (peer,) = peers(1, credentials=Authority().issue("one"))
    others = [Peer(1, credentials=Authority().issue("another"), patience_s=0.5), Peer(2, patience_s=0.5)]
    try:
        for other in others:
            other.endpoint.set_address(0, peer.endpoint.address)
            other.endpoint.send(0, b"", b"x")
            assert "no connection to peer 0" in other.wait_for_loss()[0][3]
        assert not peer.delivered
    finally:
        for other in others:
            other.endpoint.close()
