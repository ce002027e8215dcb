"""The sending half of an endpoint: connections to other peers, chunks that depart, messages that fail."""

import os
import socket
import ssl
from collections.abc import Callable
from errno import EINPROGRESS
from functools import partial
from typing import Final

from emulator.throttle import greeting
from emulator.throttle.counters import SentCount
from emulator.throttle.frames import CONTROL, Frame, FrameError, Kind, data_header, read_credits
from emulator.throttle.link import Link
from emulator.throttle.mishaps import Mishaps
from emulator.throttle.outgoing import Flow, Message
from emulator.throttle.paths import PathPlan
from emulator.throttle.poller import Poller
from emulator.throttle.uplink import Departure, Uplink
from emulator.throttle.wire import Wire
from orionbed.fleet.clock import PacedClock

Address = tuple[str, int]
Failed = Callable[[int, bytes, int, str, float], None]
"""(peer, header, message, reason, run second): a message whose credits did not all come back."""

_SHARE_OF_LEAD: Final = 0.75


class _Connection:
    """A connection to a peer."""

    __slots__ = ("flow", "link", "nonce", "num_resent", "who")

    link: Link

    def __init__(self, flow: Flow, who: greeting.Who) -> None:
        self.flow = flow
        self.who = who
        self.nonce = b""
        self.num_resent = 0


class Sending:
    """Everything that an endpoint sends; only for the I/O thread, but for `departed_bytes` and `counts`.

    `departed_bytes` counts for each peer the bytes that no longer wait, because they have departed or have failed.
    """

    def __init__(
        self,
        index: int,
        *,
        life: int,
        clock: PacedClock,
        poller: Poller,
        scratch: memoryview,
        uplink: Uplink,
        mishaps: Mishaps,
        plan: Callable[[int], PathPlan],
        failed: Failed,
        lead_s: float,
        token: bytes,
        tls: ssl.SSLContext | None,
    ) -> None:
        self._index = index
        self._life = life
        self._clock = clock
        self._poller = poller
        self._scratch = scratch
        self._uplink = uplink
        self._mishaps = mishaps
        self._plan = plan
        self._failed = failed
        self._lead_s = lead_s
        self._token = token
        self._tls = tls
        self._addresses: dict[int, Address] = {}
        self._connections: dict[int, _Connection] = {}
        self._ended: list[SentCount] = []
        self._ever: set[int] = set()
        self._num_resent = 0
        self.num_reconnects = 0
        self.departed_bytes: dict[int, int] = {}

    def set_address(self, peer: int, address: Address | None) -> bool:
        """Take in where a peer listens now; return whether that ends its earlier connections."""
        old = self._addresses.pop(peer, None)
        if address is not None:
            self._addresses[peer] = address
        return old is not None and old != address

    def submit(self, peer: int, message: Message) -> None:
        """Let a message wait for the uplink, over a new connection if there is none; without an address it fails."""
        connection = self._connections.get(peer)
        if connection is None:
            address = self._addresses.get(peer)
            if address is None:
                self._fail(peer, [message], f"peer {peer} has no address")
                return
            try:
                connection = self._open(peer, address, message.stamp_s)
            except OSError as error:
                self._fail(peer, [message], f"cannot connect to peer {peer}: {error.strerror or error}")
                return
        connection.flow.add(message)
        self._uplink.wait(connection.flow)

    def step(self, now_s: float) -> None:
        """Write all frames whose chunks may start within the lead."""
        horizon_s = now_s if self._uplink.shares_link else now_s + self._lead_s
        touched: dict[Link, None] = {}
        while (departure := self._uplink.depart(horizon_s)) is not None:
            touched[self._write(departure)] = None
        for link in touched:
            link.flush()

    @property
    def next_step_s(self) -> float:
        """When `step` has something to do again; somewhat later than possible, so that it has more to do."""
        if self._uplink.shares_link:
            return self._uplink.next_start_s
        return self._uplink.next_start_s - _SHARE_OF_LEAD * self._lead_s

    def end(self, peer: int, reason: str) -> None:
        """Close the connection to a peer, if there is one; its messages fail."""
        connection = self._connections.get(peer)
        if connection is not None:
            connection.link.close(reset=True)
            self._ended_with(connection, reason)

    def close(self) -> None:
        """Close all connections without telling anybody."""
        for connection in list(self._connections.values()):
            connection.link.close()

    def counts(self) -> tuple[list[SentCount], int]:
        """Return what each connection, also earlier ones, has sent, and how many chunks were sent again."""
        here = list(self._connections.values())
        counts = list(self._ended) + [
            self._count(connection, is_open=not connection.link.closed) for connection in here
        ]
        return counts, self._num_resent + sum(connection.num_resent for connection in here)

    def _open(self, peer: int, address: Address, stamp_s: float) -> _Connection:
        sock = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
        wire = Wire(sock, self._tls)
        error = sock.connect_ex(address)
        if error not in {0, EINPROGRESS}:
            sock.close()
            raise OSError(error, os.strerror(error))
        plan = self._plan(peer)
        window_bytes = plan.at(stamp_s).window_bytes
        number = os.urandom(greeting.NONCE_BYTES)
        who = greeting.Who(self._index, peer, self._life, window_bytes, number)
        connection = _Connection(Flow(peer, plan, stamp_s), who)
        received, broken = partial(self._received, connection), partial(self._ended_with, connection)
        connection.link = Link(self._poller, wire, self._scratch, received, broken)
        self._connections[peer] = connection
        self.num_reconnects += peer in self._ever
        self._ever.add(peer)
        return connection

    def _write(self, departure: Departure) -> Link:
        flow, chunk, _, begin_s, arrival_s, corrupt = departure
        connection = self._connections[flow.peer]
        message = chunk.message
        body = message.body[chunk.offset : chunk.offset + chunk.num_bytes]
        header = b"" if chunk.offset else message.header
        frame = data_header(
            header,
            body,
            flags=CONTROL if message.control else 0,
            message=message.number,
            offset=chunk.offset,
            total=message.total,
            begin_s=begin_s,
            arrival_s=arrival_s,
            sent_s=message.stamp_s,
        )
        if corrupt and chunk.num_bytes:
            body = memoryview(self._mishaps.flipped(body))
        connection.link.send(frame + header, body)
        if not chunk.repeated:
            self._leave_queue(flow.peer, chunk.num_bytes)
        return connection.link

    def _received(self, connection: _Connection, frame: Frame) -> None:
        flow = connection.flow
        try:
            if frame.kind is Kind.CREDIT:
                for number, num_bytes, stamp_s in read_credits(frame):
                    flow.credit(number, num_bytes, stamp_s)
            elif frame.kind is Kind.NACK:
                flow.repeat(frame.message, frame.offset, frame.total, frame.arrival_s)
                connection.num_resent += 1
            elif frame.kind is Kind.CHALLENGE:
                connection.nonce = bytes(frame.payload)
                connection.link.greet(greeting.hello(self._token, frame, connection.who))
            else:
                greeting.check_welcome(self._token, frame, connection.nonce, connection.who)
                connection.link.has_greeted()
        except FrameError:
            raise
        except ValueError as error:
            raise FrameError(str(error)) from None
        self._uplink.wait(flow)

    def _ended_with(self, connection: _Connection, reason: str) -> None:
        flow = connection.flow
        del self._connections[flow.peer]
        self._uplink.remove(flow)
        self._ended.append(self._count(connection, is_open=False))
        self._num_resent += connection.num_resent
        self._fail(flow.peer, list(flow.uncredited.values()), reason)

    def _fail(self, peer: int, messages: list[Message], reason: str) -> None:
        now_s = self._clock.now()
        for message in messages:
            self._leave_queue(peer, message.total - message.offset)
        for message in messages:
            self._failed(peer, message.header, message.number, reason, now_s)

    def _leave_queue(self, peer: int, num_bytes: int) -> None:
        self.departed_bytes[peer] = self.departed_bytes.get(peer, 0) + num_bytes

    def _count(self, connection: _Connection, *, is_open: bool) -> SentCount:
        flow = connection.flow
        return SentCount(
            connection=connection.who.connection.hex(),
            source=self._index,
            target=flow.peer,
            first_bytes=flow.departed_bytes,
            repeated_bytes=flow.repeated_bytes,
            num_chunks=flow.num_chunks,
            is_open=is_open,
        )
