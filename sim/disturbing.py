"""Networks whose connections faults get at: slowed, delayed, cut, corrupted, and put right again.

A connection that is not as it should be has a `Disturbance` and leaves the fast path, so that networks without faults
lose nothing. When a disturbance changes, what is under way on the connection is taken out of the solver with what it
still has to send and put back under the new conditions. A capacity becomes a resource of its own on the pair's way:
all of its transfers share it. A way that is cut has a ceiling of 0: connections stay and carry nothing.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from itertools import count
from math import inf
from typing import Any, Final, NamedTuple

import numpy as np

from orionbed.fault_effects import LinkState, num_chunks
from orionbed.streams import Streams
from sim.clock import nothing
from sim.filling import Flow, Resource
from sim.in_order import InOrderNetwork
from sim.network import Network
from sim.transfer import ALONE, FLYING, OVER, SHARING, WAITING, Connection, Transfer

Pair = tuple[int, int]
_AS_IT_IS: Final = LinkState()

MOST_ROUNDS: Final = 20
"""A chunk that was corrupted so many times running is taken to get through the next time."""
_FIRST_NUMBER: Final = 1 << 40
"""Resources of pairs are numbered from here on, behind all others."""


@dataclass(frozen=True, slots=True)
class Disturbance:
    """What faults make of the way from one peer to another; the defaults change nothing.

    `there` is the way itself, `back` that of its acknowledgements, of which only delays and blocks matter. `paused`
    says that one of the ends stands still. `capacity` is what the pair carries, bytes/s.
    """

    there: LinkState = _AS_IT_IS
    back: LinkState = _AS_IT_IS
    paused: bool = False
    capacity: float = inf


CALM: Final = Disturbance()


class _Own(NamedTuple):
    """What a connection is without faults."""

    route: tuple[Resource, ...]
    delay_s: float
    ceiling: float


class DisturbedNetwork(Network):
    """A network with faults of its connections.

    For each pair `touched` counts transfers that were under way when a disturbance of it changed or were sent while
    there was one, `corrupted` chunks and `resent_bytes` their bytes. `refused(transfer)` is called one round trip after
    a transfer has begun over a way that resets it; true if the caller has seen to it, else it waits for better times.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.random = Streams(0)
        self.refused: Callable[[Transfer], bool] | None = None
        self.touched: Counter[Pair] = Counter()
        self.corrupted: Counter[Pair] = Counter()
        self.resent_bytes: defaultdict[Pair, float] = defaultdict(float)
        self._disturbances: dict[Pair, Disturbance] = {}
        self._own: dict[Connection, _Own] = {}
        self._resources: dict[Pair, Resource] = {}
        self._next_number = count(_FIRST_NUMBER).__next__
        # Bytes that may yet begin on connections whose acknowledgements do not come back.
        self._room: dict[Connection, float] = {}

    # ---------------------------------------------------------------- what faults do

    def disturb(self, disturbances: Mapping[Pair, Disturbance]) -> None:
        """From now on these pairs are disturbed like this, or no more where it is `CALM`."""
        changed = {
            pair: disturbance
            for pair, disturbance in disturbances.items()
            if disturbance != self._disturbances.get(pair, CALM)
        }
        there = ((pair, self._connections[pair[0]].get(pair[1])) for pair in changed)
        connections = {connection: changed[pair] for pair, connection in there if connection is not None}
        taken = self._take_out(connections)
        for pair, disturbance in changed.items():
            if disturbance == CALM:
                del self._disturbances[pair]
            else:
                self._disturbances[pair] = disturbance
        for connection, disturbance in connections.items():
            self._apply(connection, disturbance)
        for flow, left, is_slow in taken:
            self._put_back(flow.arg, left, flow.ceiling if is_slow else inf)

    def cut(self, pairs: Collection[Pair]) -> list[Transfer]:
        """Close the connections of these pairs; return what is under way on them and has not drained, oldest first."""
        now = self._clock.now
        found = [
            t
            for t in self._undelivered()
            if (t.source, t.target) in pairs
            and (t.state in {WAITING, SHARING} or (t.state == ALONE and t.drained_s > now))
        ]
        for source, target in pairs:
            connection = self._connections[source].get(target)
            if connection is not None:
                connection.reset()
        return sorted(found, key=lambda t: (t.started_s, t.source, t.target, t.size_bytes))

    def begin_anew(self, transfer: Transfer) -> float:
        """Let a transfer that has not drained begin from its first byte; return the bytes that were sent in vain."""
        if transfer.state == ALONE:
            self._hand_over(transfer)
        if transfer.state != SHARING:
            return 0.0
        connection = transfer.connection
        wasted = transfer.size_bytes - self.fair_share.stop(transfer.flow)
        self._leave_shared(connection)
        connection.sent_bytes += wasted
        transfer.state = OVER
        # The old one may lie on the clock's heap.
        anew = Transfer()
        anew.connection, anew.size_bytes, anew.started_s = connection, transfer.size_bytes, transfer.started_s
        anew.fn, anew.arg, anew.delay_s = transfer.deliver, transfer.arg, transfer.delay_s
        self._open(anew)
        return wasted

    def hold(self, peer: int, until_s: float) -> None:
        """Deliver what has drained and is about to reach a peer not before `until_s`."""
        now = self._clock.now
        for transfer in list(self._undelivered()):
            if transfer.target != peer or transfer.source == peer:
                continue
            if transfer.state == ALONE and transfer.drained_s <= now:
                transfer.deliver = transfer.fn
                transfer.fn = nothing
                transfer.state = FLYING
                self._flying[transfer] = None
            elif transfer.state == FLYING:
                transfer.call.cancel()
            else:
                continue
            at_s = max(until_s, transfer.drained_s + transfer.delay_s)
            transfer.call = self._clock.call_at(at_s, self._arrive, transfer)

    # ---------------------------------------------------------------- connections

    def _connect(self, source: int, target: int) -> Connection:
        connection = super()._connect(source, target)
        disturbance = self._disturbances.get((source, target))
        if disturbance is not None:
            self._apply(connection, disturbance)
        return connection

    def _apply(self, connection: Connection, disturbance: Disturbance) -> None:
        """Make a connection what the disturbance makes of it."""
        there, back = disturbance.there, disturbance.back
        pair = connection.source, connection.target
        own = self._own.get(connection)
        if own is None:
            own = self._own[connection] = _Own(
                connection.route, connection.delay_s - connection.record_delay_s, connection.ceiling
            )
        delay_s = there.delay(own.delay_s)
        rtt_s = delay_s + back.delay(own.delay_s)
        ceiling = own.ceiling
        if rtt_s != 2.0 * own.delay_s or there.loss:
            ceiling = self._routes.ceiling(*pair, rtt_s, there.loss)
        if there.blocked or disturbance.paused:
            ceiling = 0.0
        connection.delay_s = delay_s + connection.record_delay_s
        connection.rtt_s, connection.earliest_s = rtt_s, -0.5 * delay_s
        connection.ceiling = ceiling
        connection.route = own.route
        if disturbance.capacity < inf:
            connection.route = (own.route[0], self._resource(pair, disturbance.capacity), *own.route[1:])
        connection.fast = False
        if not back.blocked:
            self._room.pop(connection, None)
            return
        # Without an open connection not even the handshake comes back.
        window_bytes = connection.streams * self.transport.window_bytes if connection.ready_s < inf else 0.0
        self._room.setdefault(connection, window_bytes)
        self._take_room(connection, 0.0)

    def _resource(self, pair: Pair, capacity: float) -> Resource:
        """Return what the transfers of a pair share; there are none on it at the moment."""
        resource = self._resources.get(pair)
        if resource is None:
            name = f"pair:{pair[0]}>{pair[1]}"
            resource = self._resources[pair] = Resource(name, self._next_number(), capacity)
        resource.capacity = capacity
        return resource

    def _take_room(self, connection: Connection, num_bytes: float) -> None:
        """Let bytes begin that nobody will acknowledge; when the window is full no further transfer moves."""
        self._room[connection] -= num_bytes
        if self._room[connection] <= 0.0:
            connection.ceiling = 0.0

    def _take_out(self, connections: Collection[Connection]) -> list[tuple[Flow, float, bool]]:
        """Take all flows of some connections out of the solver: flow, bytes left, whether it is in slow start."""
        now = self._clock.now
        for connection in connections:
            link = connection.up
            if now < link.busy_until_s < inf and link.guest.connection is connection:
                self._hand_over(link.guest)
        flows = [flow for flow in self.fair_share.flows if flow.arg.connection in connections]
        return [(flow, self.fair_share.stop(flow), flow.ceiling < flow.arg.connection.ceiling) for flow in flows]

    def _put_back(self, transfer: Transfer, left: float, ceiling: float) -> None:
        """Let a transfer go on with what it has left; `ceiling` is that of its slow start."""
        connection = transfer.connection
        self.touched[connection.source, connection.target] += 1
        ceiling = min(ceiling, connection.ceiling)
        if connection in self._room:
            self._take_room(connection, left)
        transfer.flow = Flow(
            connection.route, left, self._ended, transfer, weight=connection.streams, ceiling=ceiling
        )  # fmt: skip
        self.fair_share.start(transfer.flow)

    # ---------------------------------------------------------------- transfers

    def _open(self, transfer: Transfer) -> None:
        connection = transfer.connection
        pair = connection.source, connection.target
        disturbance = self._disturbances.get(pair)
        if disturbance is None:
            super()._open(transfer)
            return
        there = disturbance.there
        self.touched[pair] += 1
        if there.jitter_sd_s:
            extra_s = self.random.get(f"jitter/{pair[0]}/{pair[1]}").normal(0.0, there.jitter_sd_s)
            transfer.delay_s += max(float(extra_s), -0.5 * connection.delay_s)
        if there.corrupt:
            self._corrupt(transfer, there.corrupt)
        if there.blocked == "reset" and self.refused is not None:
            transfer.state = WAITING
            transfer.call = self._clock.call_in(connection.rtt_s, self._refuse, transfer)
            self._waiting[transfer] = None
            return
        super()._open(transfer)

    def _refuse(self, transfer: Transfer) -> None:
        assert self.refused is not None
        if not self.refused(transfer):
            del self._waiting[transfer]
            super()._open(transfer)

    def _begin(self, transfer: Transfer) -> None:
        connection = transfer.connection
        has_room_only = connection in self._room
        # The ceiling of such a connection falls while its transfers run, which a guest of the links would not notice.
        may_go_alone, self._fast = self._fast, self._fast and not has_room_only
        super()._begin(transfer)
        self._fast = may_go_alone
        if (connection.source, connection.target) in self._disturbances:
            connection.fast = False
        if has_room_only:
            self._take_room(connection, transfer.size_bytes)

    def _corrupt(self, transfer: Transfer, chance: float) -> None:
        """Add to a transfer the chunks that arrive corrupted and are sent again, until all have come intact.

        The receiver asks for a chunk again when it has come, and is heard half a round trip later. That costs a round
        trip, less the time that the rest of the message takes to drain.
        """
        connection, now = transfer.connection, self._clock.now
        pair = connection.source, connection.target
        for link in connection.route:
            if now >= link.until_s:
                link.refresh(now)
        rate = min(self._own[connection].ceiling, connection.up.capacity, connection.down.capacity)
        number = num_chunks(transfer.size_bytes, rate)
        if number == 0:
            return
        chunk_bytes = transfer.size_bytes / number
        random = self.random.get(f"corrupt/{pair[0]}/{pair[1]}")
        bad = np.flatnonzero(random.random(number) < chance)
        if not len(bad):
            return
        rest_s = (number - 1 - int(bad[-1])) * chunk_bytes / rate
        transfer.delay_s += max(0.0, connection.rtt_s - rest_s)
        total = again = len(bad)
        for _ in range(MOST_ROUNDS - 1):
            again = int(random.binomial(again, chance))
            if not again:
                break
            total += again
            transfer.delay_s += connection.rtt_s
        transfer.size_bytes += total * chunk_bytes
        connection.sent_bytes += total * chunk_bytes
        self.corrupted[pair] += total
        self.resent_bytes[pair] += total * chunk_bytes


class DisturbedInOrderNetwork(DisturbedNetwork, InOrderNetwork):
    """The same with connections that carry one message at a time."""
