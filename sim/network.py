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
from typing import Any, Final

import numpy as np

from orionbed.streams import Block, Streams
from sim import tcp
from sim.clock import NORMAL, Call, Clock, nothing
from sim.fairshare import FairShare
from sim.filling import Flow, Resource
from sim.links import Floats, Jitter, PeerLinks, Storage, Transport
from sim.transfer import ALONE, FLYING, OVER, SHARING, WAITING, Connection, Transfer


class Network:
    """All transfers between `links.num_peers` peers and the object store, whose index is `storage`.

    `send`, `to_storage` and `from_storage` call `deliver(arg)` when the last byte has arrived; messages of one connection
    arrive in the order in which they drained. Random numbers come from the streams named network/... alone.
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
        self.links = links
        self.transport = transport or Transport()
        self.object_store = storage or Storage()
        self.storage = links.num_peers
        self.fair_share = FairShare(clock, pruned=pruned)
        self._clock = clock
        self._fast = fast
        self._connections: list[dict[int, Connection]] = [{} for _ in range(links.num_peers + 1)]
        self._resources: dict[str, Resource] = {}
        self._waiting: dict[Transfer, None] = {}
        self._flying: dict[Transfer, None] = {}
        self._jitter: Callable[[], float] | None = None
        if jitter is not None:
            rng = streams.get("network/jitter")
            self._jitter = Block(lambda size: jitter.draw(rng, size)).take

    def send(
        self, source: int, target: int, size_bytes: float, deliver: Callable[[Any], object], arg: Any = None
    ) -> Transfer:
        """Start to send `size_bytes` from peer to peer now. ValueError for a negative size, IndexError for no such peer."""
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
        delay = connection.delay_s
        jitter = self._jitter
        if jitter is not None:
            extra = jitter()
            delay += extra if extra > connection.earliest_s else connection.earliest_s
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
            if up.capacity < rate:
                rate = up.capacity
            if down.capacity < rate:
                rate = down.capacity
            if rate > 0.0:
                drained = now + size_bytes / rate
                if drained <= up.until_s and drained <= down.until_s:
                    transfer.state = ALONE
                    transfer.slow = False
                    transfer.rate = rate
                    transfer.begun_s = now
                    transfer.drained_s = drained
                    up.guest = down.guest = transfer
                    up.busy_until_s = down.busy_until_s = drained
                    at = drained + delay
                    transfer.before_s = before = connection.last_delivery_s
                    if at < before:
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
        left = min(float(round(left)), transfer.size_bytes)
        connection.destroyed_bytes += left
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

    def _all_connections(self) -> Iterator[Connection]:
        return chain.from_iterable(row.values() for row in self._connections)

    def _undelivered(self) -> Iterator[Transfer]:
        yield from self._waiting
        yield from (flow.arg for flow in self.fair_share.flows)
        yield from self._flying
        for call in self._clock.scheduled():
            if type(call) is Transfer and call.state == ALONE and call.connection in self._mine:
                yield call
