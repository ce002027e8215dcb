"""A message on its way, and the connection that it takes."""

from collections.abc import Callable
from math import inf
from typing import Any, Final

from sim.clock import Call, Scheduled
from sim.filling import Flow, Resource

WAITING: Final = 0
"""For the connection to open."""
ALONE: Final = 1
"""On its links; the transfer itself is the clock's call of its delivery."""
SHARING: Final = 2
"""In the hands of the solver."""
FLYING: Final = 3
"""Drained; `call` will deliver it."""
OVER: Final = 4


class Connection:
    """The way from one peer to another, or to or from the store, and the state of the connection over it."""

    __slots__ = (
        "ceiling", "delay_s", "destroyed_bytes", "down", "drained_s", "earliest_s", "fast", "initial_window_bytes",
        "last_delivery_s", "num_sharing", "ready_s", "record_delay_s", "route", "rtt_s", "sent_bytes", "source",
        "streams", "target", "up",
    )  # fmt: skip

    def __init__(
        self,
        source: int,
        target: int,
        route: tuple[Resource, ...],
        *,
        delay_s: float,
        ceiling: float,
        streams: int,
        initial_window_bytes: float,
        record_delay_s: float = 0.0,
    ) -> None:
        self.source = source
        self.target = target
        self.route = route
        if route:
            self.up, self.down = route[0], route[-1]
        self.record_delay_s = record_delay_s
        self.delay_s = delay_s + record_delay_s
        self.rtt_s = 2.0 * delay_s
        self.earliest_s = -0.5 * delay_s
        self.ceiling = ceiling
        self.streams = float(streams)
        self.initial_window_bytes = streams * initial_window_bytes
        self.sent_bytes = self.destroyed_bytes = 0.0
        self.last_delivery_s = self.drained_s = -inf
        self.num_sharing = 0
        self.reset()

    def reset(self) -> None:
        """Close the connection; the next message opens it again."""
        self.ready_s = inf
        self.fast = False


class Transfer(Scheduled):
    """A message on its way; `Network.cancel` destroys it. `source` and `target` are peers, or `Network.storage`.

    While it is alone on its links it is itself what the clock calls to deliver it.
    """

    __slots__ = (
        "before_s", "begun_s", "call", "connection", "delay_s", "deliver", "destroyed_bytes", "drained_s", "flow",
        "rate", "size_bytes", "slow", "started_s", "state",
    )  # fmt: skip

    connection: Connection
    size_bytes: float
    started_s: float
    begun_s: float
    drained_s: float
    delay_s: float
    destroyed_bytes: float
    before_s: float
    rate: float
    slow: bool
    state: int
    flow: Flow
    call: Call
    deliver: Callable[[Any], object]

    @property
    def source(self) -> int:
        """Index of the peer that sends."""
        return self.connection.source

    @property
    def target(self) -> int:
        """Index of the peer that receives."""
        return self.connection.target

    @property
    def callback(self) -> Callable[[Any], object]:
        """What its arrival calls."""
        return self.deliver if self.state in {SHARING, FLYING} else self.fn
