"""A machine that joins a run: it lets peers live here, as the supervisor orders, until the run is over."""

import asyncio
import json
import os
import signal
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final, Literal

from emulator.enrolment import WITHIN_S, obtain
from emulator.identity import Identity
from emulator.nursery import Nursery
from orionbed.backends import BackendError
from orionbed.fleet import control
from orionbed.fleet.control import ControlError, Message
from orionbed.fleet.stream import keep_alive
from orionbed.fleet.tls import Credentials, TlsError, fingerprint, stranger, tls_order
from orionbed.fleet.tokens import JoinToken
from orionbed.processes import num_cores
from orionbed.scenario.emulation import host_and_port

Ending = Literal["over", "gone", "interrupted"]
PATIENCE_S: Final = 120.0
HANG_UP_WITHIN_S: Final = 2.0
_AGAIN_AFTER_S: Final = 0.5
_ORDERS: Final = {"fork", "scales", "signal"}
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True, slots=True)
class Joining:
    """Which supervisor to join, and with what."""

    address: str
    token: str
    slots: int
    host: str
    certificates: Path | None
    identity: Identity
    patience_s: float


def join(
    address: str,
    token: str,
    *,
    slots: int = 0,
    host: str = "",
    certificates: Path | None = None,
    key: Path | None = None,
    trusted: Path | None = None,
    say: Callable[[str], None] = lambda _text: None,
    patience_s: float = PATIENCE_S,
) -> Ending:
    """Let peers of the run at `address` (HOST:PORT) live on this machine, and return how that ended.

    `slots` 0 means one per core; peers listen on `host`, by default the address that this machine has towards the
    supervisor, which is waited for as long as `patience_s`. A certificate is kept in memory, or in the folder
    `certificates`; nothing else is left behind. `key` is the file of this machine's key, which a supervisor may ask
    for, `trusted` the file or folder of public keys of which the supervisor must have one. BackendError: the supervisor
    is not there, is another one, or does not want this machine.
    """
    identity = Identity.read(key, trusted, ("--key", "--trusted"))
    return asyncio.run(_join(Joining(address, token, slots, host, certificates, identity, patience_s), say))


async def _join(joining: Joining, say: Callable[[str], None]) -> Ending:
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    in_main = threading.current_thread() is threading.main_thread()
    numbers = [number for number, handler in before.items() if in_main and handler is not signal.SIG_IGN]
    for number in numbers:
        # An exception out of a handler could end in a callback of the loop, which would swallow it.
        loop.add_signal_handler(number, task.cancel)
    try:
        return await _Guest(joining, say).run()
    except asyncio.CancelledError:
        return "interrupted"
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
            signal.signal(number, before[number])


class _Guest:
    """This machine, as a guest of one run."""

    def __init__(self, joining: Joining, say: Callable[[str], None]) -> None:
        try:
            self._address = host_and_port(joining.address)
        except ValueError as error:
            raise BackendError(f"--join: {error}") from None
        self._token = JoinToken.parsed(joining.token)
        self._joining, self._say = joining, say
        self._nursery: Nursery | None = None
        self._until_s = time.monotonic() + joining.patience_s

    async def run(self) -> Ending:
        """Get a certificate, join, and serve."""
        credentials = await self._credentials()
        reader, writer = await self._connected(credentials.client())
        try:
            return await self._serve(credentials, reader, writer)
        finally:
            if self._nursery is not None:
                self._nursery.close()
            await _hang_up(writer)

    # ---------------------------------------------------------------- connecting

    async def _credentials(self) -> Credentials:
        """Return the certificate that lies in the folder, or a new one from the supervisor."""
        token, kept = self._token, self._kept()
        if kept is not None and kept.is_file():
            return _read(kept)
        reader, writer = await self._connected(stranger())
        try:
            found = await obtain(reader, writer, token, _seen(writer), self._joining.identity)
        except TlsError as error:
            raise BackendError(f"{self._joining.address}: {error}") from None
        except (ControlError, TimeoutError):
            raise BackendError(f"{self._joining.address} did not accept this token") from None
        finally:
            await _hang_up(writer)
        if kept is not None:
            _write(kept, found)
        return found

    def _kept(self) -> Path | None:
        folder, print_ = self._joining.certificates, self._token.fingerprint
        return folder / f"orionbed-{print_[:16]}.json" if folder is not None and print_ else None

    async def _connected(self, context: ssl.SSLContext) -> Connection:
        """Connect, as soon as somebody listens, and see that it is the one whom the token speaks of."""
        host, port = self._address
        told = False
        while True:
            try:
                reader, writer = await asyncio.wait_for(
                    asyncio.open_connection(host, port, ssl=context, limit=1 << 20), WITHIN_S
                )
                break
            except ssl.SSLError as error:
                raise BackendError(
                    f"what listens at {self._joining.address} is not this run's supervisor: {error.reason or error}"
                ) from None
            except (OSError, TimeoutError) as error:
                if time.monotonic() > self._until_s:
                    why = getattr(error, "strerror", None) or str(error) or "no answer"
                    raise BackendError(
                        f"no supervisor at {self._joining.address} ({why}); is a run waiting for hosts there?"
                    ) from None
                if not told:
                    self._say(f"waiting for a supervisor at {self._joining.address}")
                told = True
                await asyncio.sleep(_AGAIN_AFTER_S)
        if self._token.fingerprint and _seen(writer) != self._token.fingerprint:
            await _hang_up(writer)
            raise BackendError(f"what listens at {self._joining.address} is not the supervisor that made this token")
        keep_alive(writer.get_extra_info("socket"))
        return reader, writer

    # ---------------------------------------------------------------- serving

    async def _serve(
        self, credentials: Credentials, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> Ending:
        def tell(event: dict[str, Any]) -> None:
            if not writer.is_closing():
                writer.write(control.encoded(event))

        slots = self._joining.slots or num_cores()
        tell({"t": "join", "slots": slots, "version": metadata.version("orionbed")})
        here = self._joining.host or str(writer.get_extra_info("sockname")[0])
        mine = {
            "control": list(self._address), "host": here, "tls": tls_order(credentials, _seen(writer)),
        }  # fmt: skip
        try:
            while True:
                order = await control.read(reader)
                what = order["t"]
                if what == "ping":
                    tell({"t": "pong", "at_s": time.monotonic()})
                elif what == "over":
                    return "over"
                elif what == "refused":
                    raise BackendError(f"{self._joining.address} does not take this host: {order.get('why')}")
                elif what == "start" and self._nursery is None:
                    self._say(f"joined {self._joining.address} with {slots} slots, peers listen on {here}")
                    self._nursery = Nursery(tell)
                else:
                    self._obey(order | mine if what == "job" else order)
        except ControlError:
            if self._nursery is None:
                raise BackendError(f"{self._joining.address} hung up before this host had joined") from None
            return "gone"

    def _obey(self, order: Message) -> None:
        if self._nursery is None or order["t"] not in _ORDERS | {"job"}:
            raise ControlError("an order that makes no sense")
        self._nursery.order(order)


async def _hang_up(writer: asyncio.StreamWriter) -> None:
    writer.close()
    try:
        await asyncio.wait_for(writer.wait_closed(), HANG_UP_WITHIN_S)
    except (OSError, TimeoutError):
        writer.transport.abort()


def _read(path: Path) -> Credentials:
    try:
        return Credentials(**json.loads(path.read_text("ascii")))
    except (ValueError, TypeError):
        raise BackendError(f"{path} is no certificate of this program; remove it") from None


def _write(path: Path, credentials: Credentials) -> None:
    """Write a certificate where nobody but this user can read its key."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as file:
        json.dump(asdict(credentials), file)


def _seen(writer: asyncio.StreamWriter) -> str:
    return fingerprint(writer.get_extra_info("ssl_object").getpeercert(binary_form=True))
