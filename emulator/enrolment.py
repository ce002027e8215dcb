"""The first conversation of a joining host: both ends prove that they know the token, then the host gets a certificate.

It happens over TLS, but the host has no certificate yet and cannot check the supervisor's other than by fingerprint. So
each end's proof covers the fingerprint that it sees: somebody in between would show another one. With long-lived keys
each end signs the same with its own, and is asked for one that the other end trusts.
"""

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import asdict
from typing import Final

from emulator.identity import Identity, UnknownKeyError
from orionbed.fleet import control
from orionbed.fleet.control import ControlError, Message
from orionbed.fleet.tls import Credentials, TlsError
from orionbed.fleet.tokens import JoinToken

WITHIN_S: Final = 10.0
MOST_BYTES: Final = 16 * 1024
"""Longest message of those who have not proven anything."""
_NONCE_BYTES: Final = 16


async def enrol(
    first: Message,
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    token: JoinToken,
    identity: Identity,
    issue: Callable[[str], Credentials],
) -> None:
    """Give a certificate to one that knows the token, as the supervisor; `first` is what it said.

    `issue` gets the name under which its key is trusted, empty where none is asked for. UnknownKeyError: that fails.
    """
    reader, writer = connection
    nonces = f"{first.get('nonce')} {secrets.token_hex(_NONCE_BYTES)}"
    mine = token.proof("supervisor", nonces, token.fingerprint)
    shown = identity.shown("supervisor", nonces, token.fingerprint)
    writer.write(control.encoded({"t": "challenge", "nonces": nonces, "proof": mine, **shown}))
    answer = await asyncio.wait_for(control.read(reader, MOST_BYTES), WITHIN_S)
    if not token.proves(answer.get("proof"), "host", nonces, token.fingerprint):
        raise ControlError("a host that does not know the token")
    try:
        name = identity.known(answer, "host", nonces, token.fingerprint)
    except UnknownKeyError as error:
        writer.write(control.encoded({"t": "refused", "why": str(error)}))
        raise
    writer.write(control.encoded({"t": "certificate", **asdict(issue(name))}))
    await writer.drain()


async def obtain(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    token: JoinToken,
    seen: str,
    identity: Identity | None = None,
) -> Credentials:
    """Return a certificate, as a joining host that sees the fingerprint `seen`.

    TlsError: another supervisor's, or one of the two ends has no key that the other trusts.
    """
    identity = identity or Identity()
    nonce = secrets.token_hex(_NONCE_BYTES)
    writer.write(control.encoded({"t": "enrol", "nonce": nonce}))
    challenge = await asyncio.wait_for(control.read(reader, MOST_BYTES), WITHIN_S)
    nonces = challenge.get("nonces")
    fresh = isinstance(nonces, str) and nonces.startswith(f"{nonce} ")
    if not fresh or not token.proves(challenge.get("proof"), "supervisor", str(nonces), seen):
        raise TlsError("the supervisor there does not know this token")
    try:
        identity.known(challenge, "supervisor", str(nonces), seen)
    except UnknownKeyError as error:
        raise TlsError(f"the supervisor there is not trusted: {error}") from None
    shown = identity.shown("host", str(nonces), seen)
    writer.write(control.encoded({"t": "proof", "proof": token.proof("host", str(nonces), seen), **shown}))
    given = await asyncio.wait_for(control.read(reader, MOST_BYTES), WITHIN_S)
    if given["t"] == "refused":
        raise TlsError(f"the supervisor there does not take this host: {given.get('why')}")
    return Credentials(str(given.get("key")), str(given.get("certificate")), str(given.get("authority")))
