"""What a router gets and gives: the public interface of the contest, version 1.

A router is a class in a Python file of yours. It is made once per seed, as `MyRouter()` or, if its `__init__` takes an
argument, as `MyRouter(seed)`, and needs one method:

    def route(self, request) -> list[int]

which returns one miner per layer, first layer first, for one new activation. It may have a second one,

    def rebalance(self, state) -> dict[int, int]

which is called between two epochs, when nothing is in flight, and returns the layers of the miners that shall move; a
miner that serves several takes the following ones as well (after the last comes the first).

What it gets are the plain objects below. They are what the router is told, not what is: the state of a layer is up to
`staleness` old, a miner that is listed may have dropped since, and one that came back may not be listed yet. Nobody
tells a router what it has sent itself, but it can remember, and it is told at once what became of it.

Only the standard library is used here, so that the process that runs a router starts quickly.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

INTERFACE_VERSION: Final = 1
"""Grows when an attribute changes its meaning or goes; new attributes do not change it."""


@dataclass(frozen=True, slots=True)
class Miner:
    """A miner as last known. Times in seconds, rates in bit/s; queues and cache are those of this layer.

    `forward_s` and `backward_s` are what one operation takes it, `waiting_s` the time of all operations that it had
    queued for all its layers. `latency_s` is what it adds to each of its messages.
    """

    miner: int
    layers: tuple[int, ...]
    forward_s: float
    backward_s: float
    bandwidth_bps: float
    latency_s: float
    forward_queue: int
    backward_queue: int
    cache_free: int
    waiting_s: float


@dataclass(frozen=True, slots=True)
class Layer:
    """The miners that were there when the state of this layer was last told, `age_s` seconds ago."""

    miners: tuple[Miner, ...]
    age_s: float


@dataclass(frozen=True, slots=True)
class Request:
    """One activation that wants a route.

    `now_s` is simulated time since the start, `epoch` counts from 0. `completed` and `lost` are the activations of
    which that became known since the last call. A message from miner a to miner b takes `message_s` plus both
    latencies plus `activation_bytes` at the lower of both bandwidths, more when either is busy with others.
    """

    version: int
    now_s: float
    epoch: int
    activation: int
    layers: tuple[Layer, ...]
    cache: int
    activation_bytes: float
    message_s: float
    completed: tuple[int, ...]
    lost: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class State:
    """What is known between two epochs: every miner that is there, as it is now, by layer; queues are empty."""

    version: int
    now_s: float
    epoch: int
    layers: tuple[Layer, ...]


class Router(Protocol):
    """What `route` promises; `rebalance` is optional."""

    def route(self, request: Request) -> Sequence[int]:
        """Return one miner per layer."""
