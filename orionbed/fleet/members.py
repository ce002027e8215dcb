"""Those who take part in a run, as the supervisor knows them, and the door they come in by."""

import asyncio
import hmac
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from orionbed.fleet import control
from orionbed.fleet.control import ControlError, Message
from orionbed.fleet.stream import keep_alive

Status = Literal["starting", "up", "training", "merging", "benched", "down"]
HELLO_WITHIN_S = 10.0
HELLO_MOST_BYTES = 16 * 1024
Other = Callable[[Message, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass(slots=True, eq=False)
class Member:
    """One participant: a peer, or the store. `life` counts how often it was started again; host 0 is this machine."""

    index: int
    role: str
    life: int = 0
    host: int = 0
    status: Status = "starting"
    pid: int = 0
    address: list[Any] | None = None
    writer: asyncio.StreamWriter | None = None
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    up: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    fetched: asyncio.Event = field(default_factory=asyncio.Event)
    not_served: asyncio.Event = field(default_factory=asyncio.Event)
    final: Message | None = None
    finished: asyncio.Event = field(default_factory=asyncio.Event)
    counted: asyncio.Event = field(default_factory=asyncio.Event)
    last_at_s: float = 0.0
    num_steps: int = 0
    version: int = 0

    def reborn(self) -> None:
        """Become the next life of the same participant."""
        self.life += 1
        self.status, self.pid, self.address, self.writer = "starting", 0, None, None
        for event in (self.arrived, self.up, self.ended, self.fetched):
            event.clear()

    def tell(self, message: Message) -> None:
        """Send a command; one that is gone hears nothing."""
        if self.writer is not None and not self.writer.is_closing():
            self.writer.write(control.encoded(message))


def certified(writer: asyncio.StreamWriter) -> bool:
    """Whether the other end has shown a certificate, which TLS has then found good."""
    return bool(writer.get_extra_info("peercert"))


class Door:
    """Listens for participants and lets in those that know the token and are expected.

    With TLS they must have a certificate as well. Whoever begins with anything but a hello is left to `other`. `left`
    hears when the connection of a participant's life has ended.
    """

    def __init__(
        self,
        token: str,
        expected: Callable[[Message], Member | None],
        hear: Callable[[Member, Message], None],
        other: Other | None = None,
        left: Callable[[Member, int], None] = lambda _member, _life: None,
    ) -> None:
        self._token, self._expected, self._hear, self._other, self._left = token, expected, hear, other, left
        self._encrypted = False
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    async def open(self, host: str, port: int = 0, ssl: Any = None) -> tuple[str, int]:
        """Listen; return where."""
        self._encrypted = ssl is not None
        patience = {"ssl_handshake_timeout": HELLO_WITHIN_S} if self._encrypted else {}
        self._server = await asyncio.start_server(
            self._enter, host, port, ssl=ssl, limit=1 << 20, backlog=512, **patience
        )
        name = self._server.sockets[0].getsockname()
        return str(name[0]), int(name[1])

    async def _enter(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            hello = await asyncio.wait_for(control.read(reader, HELLO_MOST_BYTES), HELLO_WITHIN_S)
            if self._other is not None and hello["t"] != "hello":
                await self._other(hello, reader, writer)
                return
            member = self._admitted(hello) if certified(writer) or not self._encrypted else None
            if member is None:
                return
            if self._encrypted:
                keep_alive(writer.get_extra_info("socket"))
            member.writer = writer
            member.arrived.set()
            life = member.life
            try:
                while True:
                    message = await control.read(reader)
                    message["life"] = life
                    self._hear(member, message)
            finally:
                self._left(member, life)
        except (ControlError, TimeoutError, OSError):
            pass  # the nursery tells how a participant ended
        except asyncio.CancelledError:
            pass  # the program ends, as this task does now; Python 3.11 would print a cancelled one's traceback
        finally:
            self._tasks.discard(task)
            self._writers.discard(writer)
            writer.close()

    def _admitted(self, hello: Message) -> Member | None:
        known = hmac.compare_digest(str(hello.get("token", "")).encode(errors="replace"), self._token.encode())
        return self._expected(hello) if known and hello["t"] == "hello" else None

    async def close(self) -> None:
        """Listen no more and hang up on everybody."""
        if self._server is not None:
            self._server.close()
        for writer in list(self._writers):
            writer.close()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=HELLO_WITHIN_S)
        if self._server is not None:
            await self._server.wait_closed()
