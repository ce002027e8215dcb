"""Which peer of the next stage gets an activation, from what is known of the peers there.

What is known is a `StageView`: the last status each peer broadcast, so it is stale by up to the broadcast interval.
"""

from collections.abc import Callable
from math import log
from typing import Protocol

Uniform = Callable[[], float]


class StageView:
    """The last known status of the peers of one stage.

    `version` grows with every change, so that routers can keep what they derived from a view.
    """

    __slots__ = ("free_cache", "fresh", "peers", "queue", "speed", "version")

    def __init__(self, peers: list[int], speed: list[float], free_cache: int) -> None:
        self.peers = peers
        self.speed = speed
        self.free_cache = [free_cache] * len(peers)
        self.queue = [0] * len(peers)
        self.fresh = [True] * len(peers)
        self.version = 0

    def update(self, replica: int, free_cache: int, queue: int) -> None:
        """Take in a broadcast of the peer at position `replica`."""
        if self.free_cache[replica] != free_cache or self.queue[replica] != queue or not self.fresh[replica]:
            self.free_cache[replica] = free_cache
            self.queue[replica] = queue
            self.fresh[replica] = True
            self.version += 1

    def add(self, peer: int, speed: float) -> int:
        """Take in a peer that has come from another stage, not heard of yet; return its position."""
        self.peers.append(peer)
        self.speed.append(speed)
        self.free_cache.append(0)
        self.queue.append(0)
        self.fresh.append(False)
        self.version += 1
        return len(self.peers) - 1

    def drop(self, replica: int) -> None:
        """The peer at position `replica` has not been heard of, or has left training."""
        if self.fresh[replica]:
            self.fresh[replica] = False
            self.version += 1


class Router(Protocol):
    """Chooses a peer, or `None` when no peer of the stage is known to be there."""

    def choose(self, view: StageView, own_replica: int) -> int | None:
        """Return the chosen peer of `view`."""


class ReplicaRouter:
    """Always the own replica's peer; the next one in turn where that peer is gone."""

    def choose(self, view: StageView, own_replica: int) -> int | None:
        count = len(view.peers)
        for offset in range(count):
            position = (own_replica + offset) % count
            if view.fresh[position]:
                return view.peers[position]
        return None


class _WeightedRouter:
    """Draws a peer with probability proportional to a weight; uniformly where all weights are zero."""

    def __init__(self, uniform: Uniform) -> None:
        self._uniform = uniform
        self._view: StageView | None = None
        self._version = -1
        self._total = 0.0
        self._choices: list[tuple[float, int]] = []

    def choose(self, view: StageView, own_replica: int) -> int | None:  # noqa: ARG002
        if view.version != self._version or view is not self._view:
            self._derive(view)
        if not self._choices:
            return None
        point = self._uniform() * self._total
        for bound, peer in self._choices:
            if point < bound:
                return peer
        return self._choices[-1][1]

    def _derive(self, view: StageView) -> None:
        self._view, self._version = view, view.version
        known = [position for position in range(len(view.peers)) if view.fresh[position]]
        weights = [self._weight(view, position) for position in known]
        if not any(weights):
            weights = [1.0] * len(known)
        self._choices, self._total = [], 0.0
        for position, weight in zip(known, weights, strict=True):
            if weight > 0.0:
                self._total += weight
                self._choices.append((self._total, view.peers[position]))

    def _weight(self, view: StageView, position: int) -> float:
        raise NotImplementedError


class RandomRouter(_WeightedRouter):
    """Any peer, equally likely."""

    def _weight(self, view: StageView, position: int) -> float:  # noqa: ARG002
        return 1.0


class SwarmRouter(_WeightedRouter):
    """IOTA's rule: weight = log(free cache slots) + 1/(1 + forward queue); a peer without a free slot gets none."""

    def _weight(self, view: StageView, position: int) -> float:
        free = view.free_cache[position]
        return log(free) + 1.0 / (1.0 + view.queue[position]) if free > 0 else 0.0


class ShortestQueueRouter:
    """The peer with the shortest known forward queue; the freest cache, then chance, decides between equals."""

    def __init__(self, uniform: Uniform) -> None:
        self._uniform = uniform

    def choose(self, view: StageView, own_replica: int) -> int | None:  # noqa: ARG002
        known = [p for p in range(len(view.peers)) if view.fresh[p]]
        if not known:
            return None
        shortest = min((view.queue[p], -view.free_cache[p]) for p in known)
        best = [p for p in known if (view.queue[p], -view.free_cache[p]) == shortest]
        return view.peers[best[int(self._uniform() * len(best))]]


class FastestRouter:
    """Weighted round robin by measured speed, as SWARM's stochastic wiring does it (arXiv 2301.11913).

    A peer that has been away, or is new, starts level with the one that is next in turn: it is not owed what was sent
    to others meanwhile.
    """

    def __init__(self) -> None:
        self._sent: dict[int, float] = {}
        self._present: set[int] = set()

    def choose(self, view: StageView, own_replica: int) -> int | None:
        known = [p for p in range(len(view.peers)) if view.fresh[p]]
        if not known:
            return None
        self._welcome(view, known)
        count = len(view.peers)

        def finish(position: int) -> tuple[float, int]:
            return (self._sent[view.peers[position]] + 1.0) / view.speed[position], (position - own_replica) % count

        chosen = view.peers[min(known, key=finish)]
        self._sent[chosen] += 1.0
        return chosen

    def _welcome(self, view: StageView, known: list[int]) -> None:
        """Level the counts of peers that were not there the last time."""
        peers = {view.peers[position] for position in known}
        if peers == self._present:
            return
        level = min(
            (self._sent[view.peers[p]] / view.speed[p] for p in known if view.peers[p] in self._present), default=0.0
        )
        for position in known:
            peer = view.peers[position]
            if peer not in self._present:
                self._sent[peer] = max(self._sent.get(peer, 0.0), level * view.speed[position])
        self._present = peers


def make_router(name: str, uniform: Uniform) -> Router:
    """Return the router called `name` (`replica`, `random`, `swarm`, `shortest-queue`, `fastest`)."""
    if name == "replica":
        return ReplicaRouter()
    if name == "random":
        return RandomRouter(uniform)
    if name == "swarm":
        return SwarmRouter(uniform)
    if name == "shortest-queue":
        return ShortestQueueRouter(uniform)
    if name == "fastest":
        return FastestRouter()
    raise ValueError(f"no router is called '{name}'")
