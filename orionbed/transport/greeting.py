"""How a connection begins: both ends prove that they know the run's secret and say where they left off.

The target sends a nonce; the source answers with its own, who it is and the first message it still has, and a keyed
hash of all that; the target answers with which message it expects, and its proof. Until then nothing else is read.
"""

import hmac
import os
import struct
from dataclasses import dataclass
from typing import Final, NamedTuple

from orionbed.transport.frames import FrameError
from orionbed.transport.pipe import Pipe
from orionbed.transport.reader import exactly

_MAGIC: Final = b"orionbed transport 1"
_NONCE_BYTES: Final = 16
_PROOF_BYTES: Final = 32
_HELLO: Final = struct.Struct("!IIQ8s16sQQ")
_WELCOME: Final = struct.Struct("!Q8sQQ")


@dataclass(frozen=True, slots=True)
class Identity:
    """One peer's end: its index, how often the peer has been started, what sets this end apart from all others."""

    index: int
    life: int
    birth: bytes

    @classmethod
    def new(cls, index: int, life: int) -> "Identity":
        """Return an identity that no other end has."""
        return cls(index, life, os.urandom(8))


class Hello(NamedTuple):
    """What a source says of itself; `first` are its first data and its first control message not yet acknowledged."""

    source: Identity
    first: tuple[int, int]


class Welcome(NamedTuple):
    """What a target says of itself; `expected` are the next data and the next control message that it will take."""

    target: Identity
    expected: tuple[int, int]


def greet(pipe: Pipe, token: bytes, hello: Hello, target: int) -> Welcome:
    """Greet as the source of a connection. FrameError: the other end is a stranger; OSError: it hung up."""
    challenge = exactly(pipe, len(_MAGIC) + _NONCE_BYTES)
    if not challenge.startswith(_MAGIC):
        raise FrameError("the other end does not speak this protocol")
    source, first = hello
    nonce = os.urandom(_NONCE_BYTES)
    said = _HELLO.pack(source.index, target, source.life, source.birth, nonce, *first)
    pipe.send(said + _proof(token, b"hello", challenge + said))
    answer = exactly(pipe, _WELCOME.size + _PROOF_BYTES)
    told, proof = answer[: _WELCOME.size], answer[_WELCOME.size :]
    if not hmac.compare_digest(proof, _proof(token, b"welcome", challenge + said + told)):
        raise FrameError("the other end does not know the run's secret")
    life, birth, data, control = _WELCOME.unpack(told)
    return Welcome(Identity(target, life, birth), (data, control))


class Challenge:
    """The greeting as its target leads it: first `hear`, then `welcome`."""

    def __init__(self, pipe: Pipe, token: bytes) -> None:
        self._pipe, self._token = pipe, token
        self._transcript = _MAGIC + os.urandom(_NONCE_BYTES)

    def hear(self, index: int) -> Hello:
        """Return who greets; `index` is whom it must want. FrameError: a stranger; OSError: it hung up."""
        self._pipe.send(self._transcript)
        received = exactly(self._pipe, _HELLO.size + _PROOF_BYTES)
        said, proof = received[: _HELLO.size], received[_HELLO.size :]
        self._transcript += said
        if not hmac.compare_digest(proof, _proof(self._token, b"hello", self._transcript)):
            raise FrameError("a hello without the run's secret")
        source, target, life, birth, _, data, control = _HELLO.unpack(said)
        if target != index:
            raise FrameError(f"a hello for peer {target}")
        return Hello(Identity(source, life, birth), (data, control))

    def welcome(self, welcome: Welcome) -> None:
        """Let the source in."""
        target, expected = welcome
        told = _WELCOME.pack(target.life, target.birth, *expected)
        self._pipe.send(told + _proof(self._token, b"welcome", self._transcript + told))


def _proof(token: bytes, role: bytes, transcript: bytes) -> bytes:
    return hmac.digest(token, role + transcript, "sha256")
