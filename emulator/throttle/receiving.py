"""The receiving half of an endpoint: connections from other peers, what passes the downlink, credits."""

import os
import socket
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from heapq import heappop, heappush
from math import inf
from typing import Final

from emulator.throttle import greeting
from emulator.throttle.counters import Lateness, ReceivedCount
from emulator.throttle.downlink import Downlink, Passed
from emulator.throttle.frames import MAX_CREDITS, Frame, FrameError, Kind, credit_frame, nack_frame
from emulator.throttle.incoming import Assembly, Incoming
from emulator.throttle.link import Link
from emulator.throttle.paths import PathPlan
from emulator.throttle.poller import Poller
from emulator.throttle.wire import Wire
from orionbed.fleet.clock import PacedClock

_GREETING_REAL_S: Final = 5.0
_PATIENCE_REAL_S: Final = 0.001
_IDLE_CREDIT_REAL_S: Final = 0.01


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message that has come in: enqueued at run second `sent_s`, complete at `stamp_s`; `message` is its number."""

    source: int
    header: bytes
    body: memoryview | bytes
    sent_s: float
    stamp_s: float
    message: int


Deliver = Callable[[Delivery], None]


class _Connection:
    """A connection from a peer that may not have said yet who it is. `credits` wait to be sent back."""

    __slots__ = ("check_s", "credits", "incoming", "link", "nonce", "patience_s", "who")

    link: Link

    def __init__(self, greeted_by_s: float) -> None:
        self.nonce = os.urandom(greeting.NONCE_BYTES)
        self.who: greeting.Who | None = None
        self.incoming = Incoming(-1)
        self.credits: deque[tuple[int, int, float]] = deque()  # message, bytes, run second at which they have passed
        self.check_s = greeted_by_s  # afterwards: when to look whether credits are due
        self.patience_s = 0.0  # how long after the fact a credit may leave in reality


class Receiving:
    """Everything that an endpoint receives; only for the I/O thread, but for `counts` and the two latenesses.

    Chunks are let through the downlink as late as deliveries and credits allow, many at a time.
    """

    def __init__(
        self,
        index: int,
        *,
        clock: PacedClock,
        poller: Poller,
        scratch: memoryview,
        listener: socket.socket,
        downlink: Downlink,
        plan: Callable[[int], PathPlan],
        deliver: Deliver,
        lead_s: float,
        token: bytes,
        tls: ssl.SSLContext | None,
    ) -> None:
        self._index = index
        self._clock = clock
        self._poller = poller
        self._scratch = scratch
        self._listener = listener
        self._downlink = downlink
        self._plan = plan
        self._deliver = deliver
        self._lead_s = lead_s
        self._token = token
        self._tls = tls
        self._strangers: dict[_Connection, None] = {}
        self._connections: dict[int, _Connection] = {}
        self._ended: list[ReceivedCount] = []
        self._due: deque[tuple[float, Incoming, Assembly]] = deque()
        self._to_self: list[tuple[float, int, Delivery]] = []
        self._checks: list[float] = []  # a heap of moments at which `step` has something to do
        self._num_corrupted = 0
        self._num_last = 0  # chunks at the downlink that may complete a message
        self.lateness = Lateness()
        self.frame_lateness = Lateness()
        poller.add(listener, self._accept)

    def from_self(self, delivery: Delivery) -> None:
        """Deliver a message of the peer to itself at its stamp."""
        heappush(self._to_self, (delivery.stamp_s, delivery.message, delivery))

    def step(self, now_s: float) -> None:
        """Do all that is due: let chunks pass, deliver messages, send credits back."""
        while (passed := self._downlink.serve(now_s)) is not None:
            self._take(passed)
        self._deliver_due(now_s)
        checks = self._checks
        if not checks or checks[0] > now_s:
            return
        while checks and checks[0] <= now_s:
            heappop(checks)
        for connection in list(self._connections.values()):
            if connection.check_s <= now_s:
                self._send_credits(connection, now_s)
        for connection in list(self._strangers):
            if now_s >= connection.check_s:
                connection.link.close()
                del self._strangers[connection]

    def next_step_s(self, now_s: float) -> float:
        """Return when `step` has something to do, if no frame comes in before."""
        at_s = self._downlink.backlog_s(now_s) if self._num_last else inf
        if self._checks:
            at_s = min(at_s, self._checks[0])
        if self._due:
            at_s = min(at_s, self._due[0][0])
        if self._to_self:
            at_s = min(at_s, self._to_self[0][0])
        return at_s

    def changed(self, now_s: float) -> None:
        """The downlink's rate or a path has changed: look at everything again."""
        self._downlink.changed()
        for connection in self._connections.values():
            connection.check_s = now_s
        heappush(self._checks, now_s)

    def end(self, peer: int, reason: str) -> None:
        """Close the connection from a peer, if there is one; what it has under way is destroyed."""
        connection = self._connections.get(peer)
        if connection is not None:
            connection.link.close(reset=True)
            self._ended_with(connection, reason)

    def close(self) -> None:
        """Close all connections and the listening socket."""
        for connection in [*self._connections.values(), *self._strangers]:
            connection.link.close()
        self._poller.remove(self._listener)

    def counts(self) -> tuple[list[ReceivedCount], int]:
        """Return what each connection, also earlier ones, has brought, and how many damaged chunks were found."""
        here = list(self._connections.values())
        counts = list(self._ended) + [
            self._count(connection, is_open=not connection.link.closed) for connection in here
        ]
        return counts, self._num_corrupted

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:  # nobody is there, or no longer
                return
            connection = _Connection(self._clock.now() + _GREETING_REAL_S / self._clock.dilation)
            heappush(self._checks, connection.check_s)
            wire = Wire(sock, self._tls, server_side=True)
            received, broken = partial(self._received, connection), partial(self._ended_with, connection)
            connection.link = Link(self._poller, wire, self._scratch, received, broken)
            self._strangers[connection] = None
            connection.link.greet(greeting.challenge(connection.nonce))

    def _received(self, connection: _Connection, frame: Frame) -> None:
        if frame.kind is Kind.HELLO:
            self._welcome(connection, frame)
        elif frame.kind is not Kind.DATA:
            raise FrameError(f"a frame of kind {frame.kind.name} from a source")
        else:
            incoming = connection.incoming
            lane = incoming.take(frame)
            self._downlink.wait(lane)
            chunk = lane.chunks[-1]
            self.frame_lateness.add(max(-self._clock.real_until(chunk.arrival_s), 0.0))
            self._num_last += chunk.is_last
            if chunk.is_last:
                heappush(self._checks, chunk.arrival_s)
            if connection.check_s == inf:
                connection.check_s = chunk.arrival_s + connection.patience_s
                heappush(self._checks, connection.check_s)

    def _welcome(self, connection: _Connection, frame: Frame) -> None:
        who, answer = greeting.welcome(self._token, frame, connection.nonce)
        if who.target != self._index:
            raise FrameError(f"a greeting for peer {who.target}")
        older = self._connections.get(who.source)
        if older is not None:
            if older.who is not None and older.who.life > who.life:
                raise FrameError(f"life {who.life} of peer {who.source} is over")
            self.end(who.source, "replaced by a newer connection")
        del self._strangers[connection]
        connection.check_s = inf
        connection.who = who
        connection.incoming.source = who.source
        path = self._plan(who.source).at(self._clock.now())
        dilation = self._clock.dilation
        if who.window_bytes == inf:
            connection.patience_s = _IDLE_CREDIT_REAL_S / dilation
        else:
            connection.patience_s = max(path.owd_s - self._lead_s, _PATIENCE_REAL_S / dilation)
        self._connections[who.source] = connection
        if path.crosses_site:
            self._downlink.cross_site(who.source)
        connection.link.greet(answer)
        connection.link.has_greeted()

    def _take(self, passed: Passed) -> None:
        """A chunk has passed the downlink."""
        connection = self._connections[passed.source.source]
        chunk, finish_s = passed.held, passed.finish_s
        self._num_last -= chunk.is_last
        if not chunk.intact:
            self._num_corrupted += 1
            plan = self._plan(passed.source.source)
            stamp_s = plan.release(finish_s) + plan.at(finish_s).owd_s
            nack = nack_frame(chunk.message.number, chunk.offset, chunk.num_bytes, min(stamp_s, finish_s + 1e6))
            connection.link.send(nack)
            connection.link.flush()
            return
        connection.credits.append((chunk.message.number, chunk.num_bytes, finish_s))
        for message in passed.completed:
            self._due.append((finish_s, passed.source, message))

    def _deliver_due(self, now_s: float) -> None:
        due = self._due
        while due and due[0][0] <= now_s:
            stamp_s, incoming, message = due.popleft()
            incoming.deliver(message)
            delivery = Delivery(incoming.source, message.header, message.body, message.sent_s, stamp_s, message.number)
            self._hand_over(delivery)
        while self._to_self and self._to_self[0][0] <= now_s:
            self._hand_over(heappop(self._to_self)[2])

    def _hand_over(self, delivery: Delivery) -> None:
        self.lateness.add(-self._clock.real_until(delivery.stamp_s))
        self._deliver(delivery)

    def _send_credits(self, connection: _Connection, now_s: float) -> None:
        """Send the credits back that may leave by now, and find out when to look again."""
        waiting = connection.credits
        plan = self._plan(connection.incoming.source)
        ready: list[tuple[int, int, float]] = []
        leaves_s = inf
        while waiting and len(ready) < MAX_CREDITS:
            number, num_bytes, finish_s = waiting[0]
            leaves_s = plan.release(finish_s)
            if leaves_s > max(finish_s, now_s):
                break  # blocked
            ready.append((number, num_bytes, leaves_s + plan.at(leaves_s).owd_s))
            waiting.popleft()
        if ready:
            connection.link.send(credit_frame(ready))
            connection.link.flush()
        if waiting:
            connection.check_s = leaves_s if len(ready) < MAX_CREDITS else now_s
        else:
            arrivals = [lane.chunks[0].arrival_s for lane in connection.incoming.lanes if lane.chunks]
            connection.check_s = max(min(arrivals), now_s) + connection.patience_s if arrivals else inf
        if connection.check_s < inf:
            heappush(self._checks, connection.check_s)

    def _ended_with(self, connection: _Connection, reason: str) -> None:  # noqa: ARG002  (a reset says no more)
        """The connection is gone: deliver what was due before, destroy the rest."""
        if connection in self._strangers:
            connection.link.close()
            del self._strangers[connection]
            return
        incoming = connection.incoming
        self._deliver_due(self._clock.now())
        self._downlink.remove(incoming)
        self._due = deque(entry for entry in self._due if entry[1] is not incoming)
        self._num_last -= sum(chunk.is_last for lane in incoming.lanes for chunk in lane.chunks)
        incoming.destroy()
        del self._connections[incoming.source]
        self._ended.append(self._count(connection, is_open=False))

    def _count(self, connection: _Connection, *, is_open: bool) -> ReceivedCount:
        incoming = connection.incoming
        assert connection.who is not None
        return ReceivedCount(
            connection.who.connection.hex(), incoming.source, self._index, incoming.received_bytes,
            incoming.delivered_bytes, incoming.damaged_bytes, incoming.destroyed_bytes, is_open,
        )  # fmt: skip
