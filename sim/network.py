"""Messages between peers, and between peers and the object store, over shared links in simulated time.

A transfer drains through its route at the rate that max-min sharing gives (`sim.fairshare`) and is delivered a one-way
delay later. Most transfers of a pipeline find their links idle and leave them before anything changes. For those the
answer is known at the start: such a transfer becomes a guest of its links and costs one event, its delivery. When a
second transfer comes to one of the links in time, the guest is handed to the solver with what it still has to send. The
result is the same as if everything went through the solver.
"""

from collections.abc import Callable, Iterator
from heapq import heappush
from itertools import chain
from math import inf
from typing import Any

import numpy as np

from orionbed import tcp
from orionbed.links import Jitter
from orionbed.streams import Block, Streams
from sim.clock import NORMAL, Clock, nothing
from sim.fairshare import FairShare
from sim.filling import Flow
from sim.links import Floats, PeerLinks, Storage, Transport
from sim.routes import Routes
from sim.transfer import ALONE, FLYING, OVER, SHARING, WAITING, Connection, Transfer


class Network:
    """All transfers between `links.num_peers` peers and the object store, whose index is `storage`.

    `send`, `to_storage` and `from_storage` call `deliver(arg)` when the last byte has arrived; messages of one
    connection arrive in the order in which they drained. Random numbers come from the streams named network/... alone.
    A clock serves one network.
    `pruned=False` and `fast=False` switch off what makes it quick, for tests; the results are the same.
    """

    def __init__(
        self,
        clock: Clock,
        links: PeerLinks,
        streams: Streams,
        *,
        transport: Transport | None = None,
        jitter: Jitter | None = None,
        storage: Storage | None = None,
        pruned: bool = True,
        fast: bool = True,
    ) -> None:
        self.storage = links.num_peers
        self.transport = transport or Transport()
        self.fair_share = FairShare(clock, pruned=pruned)
        self._clock = clock
        self._fast = fast
        self._connections: list[dict[int, Connection]] = [{} for _ in range(links.num_peers + 1)]
        self._routes = Routes(links, self.transport, storage or Storage())
        self._waiting: dict[Transfer, None] = {}
        self._flying: dict[Transfer, None] = {}
        self._jitter: Callable[[], float] | None = None
        if jitter is not None:
            rng = streams.get("network/jitter")
            self._jitter = Block(lambda size: jitter.draw(rng, size)).take

    def send(  # noqa: C901
        self, source: int, target: int, size_bytes: float, deliver: Callable[[Any], object], arg: Any = None
    ) -> Transfer:
        """Start to send `size_bytes` from peer to peer now. ValueError: negative size; IndexError: no such peer.

        Written out at length because it is the hot path of the whole simulator: no calls of builtins, no loops.
        """
        connection = self._connections[source].get(target)
        if connection is None:
            connection = self._connect(source, target)
        if not size_bytes >= 0.0:
            raise ValueError(f"cannot send {size_bytes} bytes")
        clock = self._clock
        now = clock.now
        connection.sent_bytes += size_bytes
        transfer = Transfer()
        transfer.connection = connection
        transfer.size_bytes = size_bytes
        transfer.fn = deliver
        transfer.arg = arg
        transfer.started_s = now
        transfer.slow = False
        delay = connection.delay_s
        jitter = self._jitter
        if jitter is not None:
            extra = jitter()
            delay += extra if extra > connection.earliest_s else connection.earliest_s  # noqa: FURB136
        transfer.delay_s = delay
        if not connection.fast:
            self._open(transfer)
            return transfer
        up = connection.up
        down = connection.down
        if up.busy_until_s <= now and down.busy_until_s <= now:
            if now >= up.until_s:
                up.refresh(now)
            if now >= down.until_s:
                down.refresh(now)
            rate = connection.ceiling
            if up.capacity < rate:  # noqa: PLR1730
                rate = up.capacity
            if down.capacity < rate:  # noqa: PLR1730
                rate = down.capacity
            if rate > 0.0:
                drained = now + size_bytes / rate
                if drained <= up.until_s and drained <= down.until_s:
                    transfer.state = ALONE
                    transfer.rate = rate
                    transfer.begun_s = now
                    transfer.drained_s = drained
                    up.guest = down.guest = transfer
                    up.busy_until_s = down.busy_until_s = drained
                    at = drained + delay
                    transfer.before_s = before = connection.last_delivery_s
                    if at < before:  # noqa: PLR1730
                        at = before
                    connection.last_delivery_s = at
                    heappush(clock.heap, (at, NORMAL, clock.next_number(), transfer))
                    return transfer
        self._share(transfer)
        return transfer

    def to_storage(self, peer: int, size_bytes: float, done: Callable[[Any], object], arg: Any = None) -> Transfer:
        """Start to upload `size_bytes` to the store now, over the store's number of connections."""
        return self.send(peer, self.storage, size_bytes, done, arg)

    def from_storage(self, peer: int, size_bytes: float, done: Callable[[Any], object], arg: Any = None) -> Transfer:
        """Start to download `size_bytes` from the store now, over the store's number of connections."""
        return self.send(self.storage, peer, size_bytes, done, arg)

    def cancel(self, transfer: Transfer) -> float:
        """Destroy what has not drained and never deliver it; return the destroyed bytes, rounded to a whole byte.

        What had drained counts as delivered. A transfer that has arrived stays so: 0.
        """
        now = self._clock.now
        connection = transfer.connection
        left = 0.0
        if transfer.state == ALONE:
            if transfer.drained_s > now:
                left = transfer.size_bytes - self._sent_alone(transfer)
                self._leave_alone(transfer)
            transfer.fn = nothing
        elif transfer.state == SHARING:
            left = self.fair_share.stop(transfer.flow)
            self._leave_shared(connection)
        elif transfer.state == WAITING:
            left = transfer.size_bytes
            transfer.call.cancel()
            del self._waiting[transfer]
        elif transfer.state == FLYING:
            transfer.call.cancel()
            del self._flying[transfer]
        transfer.state = OVER
        if left < transfer.size_bytes:
            left = min(float(round(left)), transfer.size_bytes)
        connection.destroyed_bytes += left
        transfer.destroyed_bytes = left
        return left

    def cancel_peer(self, peer: int) -> list[Transfer]:
        """Destroy all that is on its way from or to a peer and close its connections; return it, oldest first."""
        doomed = [t for t in self._undelivered() if peer in {t.source, t.target}]
        doomed.sort(key=lambda t: (t.started_s, t.source, t.target, t.size_bytes))
        for transfer in doomed:
            self.cancel(transfer)
        for connection in self._all_connections():
            if peer in {connection.source, connection.target} and connection.route:
                connection.reset()
        return doomed

    @property
    def bytes_up(self) -> Floats:
        """Bytes that have left each peer so far (n,)."""
        return self._drained()[0][: self.storage]

    @property
    def bytes_down(self) -> Floats:
        """Bytes that each peer's downlink has taken in so far (n,)."""
        return self._drained()[1][: self.storage]

    @property
    def bytes_stored(self) -> tuple[float, float]:
        """Bytes that the object store has taken in, and that have been read from it, so far."""
        out, into = self._drained()
        return float(into[self.storage]), float(out[self.storage])

    @property
    def bytes_sent(self) -> float:
        """Bytes that were given to `send` and its siblings so far."""
        return sum(c.sent_bytes for c in self._all_connections())

    @property
    def bytes_destroyed(self) -> float:
        """Bytes that were cancelled before they drained."""
        return sum(c.destroyed_bytes for c in self._all_connections())

    @property
    def bytes_delivered(self) -> float:
        """Bytes that have drained so far: sent, less those destroyed and those in flight."""
        return self.bytes_sent - self.bytes_destroyed - self.bytes_in_flight

    @property
    def bytes_in_flight(self) -> float:
        """Bytes that have yet to drain."""
        return sum(self.left(t) for t in self._undelivered())

    def left(self, transfer: Transfer) -> float:
        """Return the bytes of a transfer that have yet to drain."""
        if transfer.state == SHARING:
            return transfer.flow.left(self._clock.now)
        if transfer.state == ALONE and transfer.drained_s > self._clock.now:
            return transfer.size_bytes - self._sent_alone(transfer)
        return transfer.size_bytes if transfer.state == WAITING else 0.0

    def encryption_s(self, source: int, target: int, size_bytes: float, sent_s: float) -> float:
        """Return how much later a message from peer to peer has arrived for its encryption."""
        connection = self._connections[source].get(target)
        return 0.0 if connection is None else self._routes.encryption_s(connection, size_bytes, sent_s)

    def _all_connections(self) -> Iterator[Connection]:
        return chain.from_iterable(row.values() for row in self._connections)

    def _undelivered(self) -> Iterator[Transfer]:
        yield from self._waiting
        yield from (flow.arg for flow in self.fair_share.flows)
        yield from self._flying
        for call in self._clock.scheduled():
            if type(call) is Transfer and call.state == ALONE:
                yield call

    def _drained(self) -> tuple[Floats, Floats]:
        out, into = np.zeros(self.storage + 1), np.zeros(self.storage + 1)
        for connection in self._all_connections():
            num_bytes = connection.sent_bytes - connection.destroyed_bytes
            out[connection.source] += num_bytes
            into[connection.target] += num_bytes
        for transfer in self._undelivered():
            left = self.left(transfer)
            out[transfer.source] -= left
            into[transfer.target] -= left
        return out, into

    def _connect(self, source: int, target: int) -> Connection:
        connection = self._routes.connect(source, target)
        self._connections[source][target] = connection
        return connection

    def _open(self, transfer: Transfer) -> None:
        """Let a transfer begin when its connection is ready: at once, or after the handshake."""
        connection, transport = transfer.connection, self.transport
        now = begin = self._clock.now
        if not connection.route:
            transfer.deliver = transfer.fn
            self._fly(transfer, now)
            return
        slow = True
        opening_s = tcp.handshake_s(connection.rtt_s, tls=transport.tls)
        if not transport.keep_warm:
            begin = now + opening_s
        elif connection.ready_s == inf:
            connection.ready_s = begin = now + opening_s
        elif now <= connection.ready_s:
            # Also when it opens at this very instant: behind those that wait already.
            begin = connection.ready_s
        else:
            idle_s = now - connection.drained_s if connection.num_sharing == 0 else 0.0
            slow = transport.slow_start_after_idle and idle_s > tcp.retransmission_timeout_s(connection.rtt_s)
        transfer.slow = slow and connection.rtt_s > 0.0
        if begin > now or begin == connection.ready_s:
            transfer.state = WAITING
            transfer.call = self._clock.call_at(begin, self._begin, transfer)
            self._waiting[transfer] = None
        else:
            self._begin(transfer)

    def _begin(self, transfer: Transfer) -> None:
        """Let a transfer contend from now on: alone if it can, else in the hands of the solver."""
        connection, transport = transfer.connection, self.transport
        now = self._clock.now
        self._waiting.pop(transfer, None)
        route = connection.route
        if self._fast and len(route) <= 2:
            connection.fast = transport.keep_warm and not transport.slow_start_after_idle
            if all(r.busy_until_s <= now for r in route):
                for r in route:
                    if now >= r.until_s:
                        r.refresh(now)
                rate = min(connection.ceiling, *(r.capacity for r in route))
                if rate > 0.0:
                    window = connection.initial_window_bytes
                    size_bytes = transfer.size_bytes
                    lasts_s = size_bytes / rate
                    if transfer.slow:
                        lasts_s = tcp.slow_start_s(size_bytes, rate, connection.rtt_s, window)
                    if now + lasts_s <= min(r.until_s for r in route):
                        self._go_alone(transfer, rate, now + lasts_s)
                        return
        self._share(transfer)

    def _go_alone(self, transfer: Transfer, rate: float, drained_s: float) -> None:
        """Make a transfer the guest of its links (`send` has the same lines for the common case)."""
        connection = transfer.connection
        transfer.state = ALONE
        transfer.rate = rate
        transfer.begun_s = self._clock.now
        transfer.drained_s = connection.drained_s = drained_s
        for r in connection.route:
            r.guest = transfer
            r.busy_until_s = drained_s
        transfer.before_s = connection.last_delivery_s
        connection.last_delivery_s = at = max(drained_s + transfer.delay_s, transfer.before_s)
        heappush(self._clock.heap, (at, NORMAL, self._clock.next_number(), transfer))

    def _sent_alone(self, transfer: Transfer) -> float:
        elapsed_s = self._clock.now - transfer.begun_s
        if transfer.slow:
            connection = transfer.connection
            window = connection.initial_window_bytes
            return tcp.slow_start_progress(elapsed_s, transfer.rate, connection.rtt_s, window)[0]
        return transfer.rate * elapsed_s

    def _leave_alone(self, transfer: Transfer) -> None:
        connection = transfer.connection
        connection.last_delivery_s = transfer.before_s
        connection.drained_s = self._clock.now
        for r in connection.route:
            r.guest = None
            r.busy_until_s = -inf

    def _share(self, transfer: Transfer) -> None:
        """Hand a transfer to the solver, and before it the guests of the links on its way."""
        connection = transfer.connection
        now = self._clock.now
        for r in connection.route:
            if now < r.busy_until_s < inf:
                self._hand_over(r.guest)
        ceiling = connection.ceiling
        if transfer.slow:
            ceiling = min(ceiling, connection.initial_window_bytes / connection.rtt_s)
            if ceiling < connection.ceiling:
                self._clock.call_at(now + connection.rtt_s, self._double, transfer)
        transfer.deliver = transfer.fn
        self.fair_share.start(self._flow(transfer, transfer.size_bytes, ceiling))

    def _hand_over(self, guest: Transfer) -> None:
        """Hand the transfer that has been alone on its links to the solver, with what it still has to send."""
        connection = guest.connection
        now = self._clock.now
        self._leave_alone(guest)
        # Its entry on the clock's heap stays there and does nothing.
        guest.deliver = guest.fn
        guest.fn = nothing
        if not guest.slow:
            flow = self._flow(guest, guest.size_bytes, connection.ceiling)
            self.fair_share.adopt(flow, guest.begun_s, guest.rate)
            return
        rtt_s, window = connection.rtt_s, connection.initial_window_bytes
        sent, doublings = tcp.slow_start_progress(now - guest.begun_s, guest.rate, rtt_s, window)
        ceiling = min(connection.ceiling, window * 2.0**doublings / rtt_s)
        if ceiling < connection.ceiling:
            self._clock.call_at(max(now, guest.begun_s + (doublings + 1) * rtt_s), self._double, guest)
        flow = self._flow(guest, max(0.0, guest.size_bytes - sent), ceiling)
        self.fair_share.adopt(flow, now, min(guest.rate, ceiling))

    def _flow(self, transfer: Transfer, size_bytes: float, ceiling: float) -> Flow:
        connection = transfer.connection
        connection.num_sharing += 1
        transfer.state = SHARING
        weight = connection.streams
        transfer.flow = Flow(connection.route, size_bytes, self._ended, transfer, weight=weight, ceiling=ceiling)
        return transfer.flow

    def _double(self, transfer: Transfer) -> None:
        """Let a flow in slow start have twice its window, a round trip after the last time."""
        if transfer.state == SHARING:
            connection, flow = transfer.connection, transfer.flow
            ceiling = min(2.0 * flow.ceiling, connection.ceiling)
            self.fair_share.set_ceiling(flow, ceiling)
            if ceiling < connection.ceiling:
                self._clock.call_in(connection.rtt_s, self._double, transfer)

    def _leave_shared(self, connection: Connection) -> None:
        connection.num_sharing -= 1
        connection.drained_s = self._clock.now

    def _ended(self, flow: Flow) -> None:
        transfer: Transfer = flow.arg
        connection = transfer.connection
        self._leave_shared(connection)
        transfer.drained_s = now = self._clock.now
        connection.last_delivery_s = at = max(now + transfer.delay_s, connection.last_delivery_s)
        self._fly(transfer, at)

    def _fly(self, transfer: Transfer, at: float) -> None:
        """Have a drained transfer delivered."""
        transfer.state = FLYING
        transfer.drained_s = self._clock.now
        transfer.call = self._clock.call_at(at, self._arrive, transfer)
        self._flying[transfer] = None

    def _arrive(self, transfer: Transfer) -> None:
        del self._flying[transfer]
        transfer.state = OVER
        transfer.deliver(transfer.arg)
