"""Tokens, addresses, certificates, and streams that two threads use."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator

import pytest

from orionbed.backends import BackendError
from orionbed.fleet.certificates import Authority
from orionbed.fleet.control import Channel, ControlError
from orionbed.fleet.stream import TlsStream, dial
from orionbed.fleet.tls import Credentials, Tls, TlsError, fingerprint, tls_order
from orionbed.fleet.tokens import JoinToken
from orionbed.scenario import ScenarioError, load
from orionbed.scenario.emulation import host_and_port

HOME = "127.0.0.1"


def test_a_token_is_read_as_it_is_written() -> None:
    token = JoinToken.made("ab" * 32)
    assert JoinToken.parsed(str(token)) == token
    assert JoinToken.parsed("x" * 16) == JoinToken("x" * 16)
    assert JoinToken.made("ab" * 32, chosen="chosen by the-user".replace(" ", "_")).secret == "chosen_by_the-user"


@pytest.mark.parametrize("text", ["", "short", "x" * 15, "x" * 300, "x" * 20 + " y", "x" * 20 + ".abc", "ü" * 20])
def test_no_token(text: str) -> None:
    with pytest.raises(BackendError, match="is no token"):
        JoinToken.parsed(text)


def test_a_proof_is_good_for_one_role_one_conversation_one_certificate() -> None:
    token, other = JoinToken("x" * 20), JoinToken("y" * 20)
    proof = token.proof("host", "a b", "f")
    assert token.proves(proof, "host", "a b", "f")
    for who, args in (
        (other, ("host", "a b", "f")),
        (token, ("supervisor", "a b", "f")),
        (token, ("host", "a c", "f")),
        (token, ("host", "a b", "g")),
    ):
        assert not who.proves(proof, *args)
    assert not token.proves(None, "host", "a b", "f")
    assert not token.proves("\ud800", "host", "a b", "f")


def test_addresses() -> None:
    assert host_and_port("10.0.0.1:77") == ("10.0.0.1", 77)
    assert host_and_port("[fd00::1]:7777") == ("fd00::1", 7777)
    for text in ("10.0.0.1", ":7", "a:0", "a:65536", "fd00::1:7777", "a b:7", "http://a:7"):
        with pytest.raises(ValueError, match="is no HOST:PORT"):
            host_and_port(text)


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (["emulator.remote_slots=2"], "needs `listen`"),
        (["emulator.listen=nowhere"], "is no HOST:PORT"),
        (["emulator={remote_slots: 2, listen: 'a:1', clock: virtual}"], "needs clock paced"),
        (["emulator={encrypt: true, clock: virtual}"], "needs clock paced"),
        (["emulator.trusted=known"], r"emulator\.trusted: is for hosts that join; give `listen`"),
    ],
)
def test_scenarios_that_cannot_be_joined(sets: list[str], message: str) -> None:
    with pytest.raises(ScenarioError, match=message):
        load("minimal", sets)


@contextlib.contextmanager
def listening(context: ssl.SSLContext, serve: Callable[[ssl.SSLSocket], None]) -> Iterator[tuple[str, int]]:
    """Serve one TLS connection in a thread."""

    def run() -> None:
        with contextlib.suppress(OSError), server.accept()[0] as plain:
            plain.settimeout(10.0)
            with context.wrap_socket(plain, server_side=True) as sock:
                serve(sock)

    with socket.create_server((HOME, 0)) as server:
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield server.getsockname()[:2]
        thread.join(10.0)


def echo(sock: ssl.SSLSocket) -> None:
    while data := sock.recv(1 << 16):
        sock.sendall(data)


def tls_of(mine: Credentials, supervisor: Credentials) -> Tls:
    found = Tls.from_order(tls_order(mine, supervisor.fingerprint))
    assert found is not None
    return found


def refused_or_heard(address: tuple[str, int], tls: Tls) -> bytes:
    """What comes back; a client hears of its refusal when it reads."""
    with contextlib.suppress(OSError):
        stream = dial(address, tls)
        with contextlib.closing(stream):
            stream.sendall(b"hello")
            return stream.recv(5)
    return b""


def test_certificates_of_one_run_trust_each_other_and_no_others() -> None:
    authority, other = Authority(), Authority()
    supervisor, host = authority.issue("supervisor"), authority.issue("host 1")
    assert supervisor.fingerprint == fingerprint(ssl.PEM_cert_to_DER_cert(supervisor.certificate))
    with listening(supervisor.server(), echo) as address:
        stream = dial(address, tls_of(host, supervisor))
        stream.sendall(b"hello")
        assert stream.recv(5) == b"hello"
        stream.close()
    for mine in (other.issue("host 1"), Credentials(host.key, host.certificate, other.issue("x").authority)):
        with listening(supervisor.server(), echo) as address:
            assert not refused_or_heard(address, tls_of(mine, supervisor))


def test_another_host_is_not_taken_for_the_supervisor() -> None:
    authority = Authority()
    supervisor, host = authority.issue("supervisor"), authority.issue("host 1")
    with listening(host.server(), echo) as address, pytest.raises(TlsError):
        dial(address, tls_of(host, supervisor))


def test_one_thread_reads_while_another_writes() -> None:
    authority = Authority()
    supervisor, host = authority.issue("supervisor"), authority.issue("host 1")
    with listening(supervisor.server(), echo) as address:
        stream = dial(address, tls_of(host, supervisor))
        assert isinstance(stream, TlsStream)
        channel, got = Channel(stream), []
        reader = threading.Thread(target=lambda: got.extend(channel.receive() for _ in range(300)), daemon=True)
        reader.start()
        sent = [{"t": "x", "n": n, "body": "y" * (n * 97)} for n in range(300)]
        for message in sent:
            channel.send(message)
        reader.join(20.0)
        assert got == sent
        channel.close()
        with pytest.raises(ControlError):
            channel.receive()
