"""The network in virtual time: messages drain at max-min fair rates, computed anew from nothing at every change.

Written for few flows and plain reading: the simulator's network is another piece of code with other shortcuts, so that
each checks the other. A connection carries one message after the other; a new one takes a handshake, and its first
message starts slowly.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf

from orionbed import tcp

Resource = tuple[str | int, ...]
Profile = Callable[[float], tuple[float, float]]
_CLOSE = 1e-9


@dataclass(frozen=True, slots=True)
class Route:
    """From one participant to another: shared resources crossed, one-way delay, and TCP's part."""

    resources: tuple[Resource, ...]
    delay_s: float
    ceiling: float
    streams: int
    initial_window_bytes: float
    handshake_s: float


@dataclass(slots=True, eq=False)
class Message:
    """A message on its way; `number` is its sender's."""

    source: int
    target: int
    number: int
    left: float
    delay_s: float


@dataclass(slots=True, eq=False)
class _Connection:
    route: Route
    ready_s: float = inf
    waiting: deque[Message] = field(default_factory=deque)
    ceiling: float = inf
    doubles_s: float = inf
    last_delivery_s: float = -inf
    drained_s: float = -inf


class Fluid:
    """All messages under way. `now_s` moves on with `advance` alone."""

    def __init__(
        self,
        route: Callable[[int, int], Route],
        capacity: Callable[[Resource], Profile],
        jitter: Callable[[], float] | None,
        *,
        keep_warm: bool,
        slow_start_after_idle: bool,
    ) -> None:
        self.now_s = 0.0
        self.bytes_delivered = 0.0
        self._route, self._capacity, self._jitter = route, capacity, jitter
        self._keep_warm, self._slow_after_idle = keep_warm, slow_start_after_idle
        self._connections: dict[tuple[int, int], _Connection] = {}
        self._profiles: dict[Resource, Profile] = {}
        self._flying: list[tuple[float, int, Message]] = []
        self._rates: dict[_Connection, float] = {}
        self._changes_s = inf
        self._count = 0

    def send(self, source: int, target: int, number: int, num_bytes: float) -> None:
        """Start to send a message now."""
        connection = self._connections.get((source, target))
        if connection is None:
            connection = self._connections[source, target] = _Connection(self._route(source, target))
        route = connection.route
        extra = self._jitter() if self._jitter is not None else 0.0
        message = Message(source, target, number, num_bytes, route.delay_s + max(extra, -0.5 * route.delay_s))
        connection.waiting.append(message)
        if len(connection.waiting) == 1:
            self._open(connection)
        self._solve()

    def _open(self, connection: _Connection) -> None:
        """Let the message at the head of a connection begin, after a handshake where one is needed."""
        route = connection.route
        idle_s = self.now_s - connection.drained_s
        rtt_s = 2.0 * route.delay_s
        cold = connection.ready_s == inf or not self._keep_warm
        if cold:
            connection.ready_s = self.now_s + route.handshake_s
        elif not (self._slow_after_idle and idle_s > tcp.retransmission_timeout_s(rtt_s)):
            connection.ceiling, connection.doubles_s = route.ceiling, inf
            return
        connection.ceiling, connection.doubles_s = route.ceiling, inf
        if rtt_s > 0.0 and route.initial_window_bytes / rtt_s < route.ceiling:
            connection.ceiling = route.initial_window_bytes / rtt_s
            connection.doubles_s = max(self.now_s, connection.ready_s) + rtt_s

    def next_s(self) -> float:
        """Return when next something happens: a delivery, the end of a message, a change of a rate."""
        found = min((at_s for at_s, _, _ in self._flying), default=inf)
        found = min(found, self._changes_s)
        for connection, rate in self._rates.items():
            if rate > 0.0:
                found = min(found, self.now_s + connection.waiting[0].left / rate)
        for connection in self._active():
            found = min(found, connection.doubles_s)
            if connection.ready_s > self.now_s:
                found = min(found, connection.ready_s)
        return found

    def advance(self, to_s: float) -> list[Message]:
        """Move on to `to_s`, at most `next_s()`; return the messages that are delivered at that moment."""
        for connection, rate in self._rates.items():
            head = connection.waiting[0]
            head.left -= rate * (to_s - self.now_s)
            if head.left <= _CLOSE * max(1.0, rate):
                head.left = 0.0
        self.now_s = to_s
        for connection in list(self._active()):
            if to_s >= connection.doubles_s:
                self._double(connection)
            if connection in self._rates and connection.waiting[0].left == 0.0:
                self._drained(connection)
        delivered = [message for at_s, _, message in sorted(self._flying, key=lambda f: f[:2]) if at_s <= to_s]
        self._flying = [flight for flight in self._flying if flight[0] > to_s]
        self._solve()
        return delivered

    def _double(self, connection: _Connection) -> None:
        connection.ceiling = min(2.0 * connection.ceiling, connection.route.ceiling)
        more = connection.ceiling < connection.route.ceiling
        connection.doubles_s = connection.doubles_s + 2.0 * connection.route.delay_s if more else inf

    def _drained(self, connection: _Connection) -> None:
        message = connection.waiting.popleft()
        connection.drained_s = self.now_s
        connection.last_delivery_s = at_s = max(self.now_s + message.delay_s, connection.last_delivery_s)
        self._count += 1
        self._flying.append((at_s, self._count, message))
        if connection.waiting:
            self._open(connection)

    def _active(self) -> list[_Connection]:
        return [connection for connection in self._connections.values() if connection.waiting]

    def _solve(self) -> None:
        """Share all resources anew: raise one level for all until a resource is full or a ceiling is met."""
        open_ = [c for c in self._active() if c.ready_s <= self.now_s]
        rest: dict[Resource, float] = {}
        self._changes_s = inf
        for connection in open_:
            for resource in connection.route.resources:
                if resource not in rest:
                    rest[resource], until_s = self._profile(resource)(self.now_s)
                    self._changes_s = min(self._changes_s, until_s)
        self._rates = {}
        while open_:
            weights = {
                r: sum(c.route.streams for c in open_ if r in c.route.resources)
                for c in open_
                for r in c.route.resources
            }
            level = min((rest[r] / weight for r, weight in weights.items()), default=inf)
            capped = [c for c in open_ if c.ceiling / c.route.streams <= level]
            if not capped:
                full = {r for r, weight in weights.items() if rest[r] / weight <= level * (1.0 + 1e-12)}
                capped = [c for c in open_ if full.intersection(c.route.resources)]
            for connection in capped:
                rate = min(connection.ceiling, level * connection.route.streams)
                self._rates[connection] = rate
                for resource in connection.route.resources:
                    rest[resource] = max(0.0, rest[resource] - rate)
            open_ = [c for c in open_ if c not in self._rates]

    def _profile(self, resource: Resource) -> Profile:
        if resource not in self._profiles:
            self._profiles[resource] = self._capacity(resource)
        return self._profiles[resource]
