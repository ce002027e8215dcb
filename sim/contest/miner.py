"""One miner during an epoch: its queues, its cache, and what it computes."""

from collections import deque
from typing import Literal

from sim.clock import Call


class Activation:
    """One activation on its way: down its route and back up.

    `given_up` once everybody knows that it is lost; then nobody works on it or keeps it.
    """

    __slots__ = ("given_up", "number", "route", "state")

    def __init__(self, number: int, route: list[int]) -> None:
        self.number = number
        self.route = route
        self.state: Literal["flying", "completed", "lost"] = "flying"
        self.given_up = False


Work = tuple[Literal["F", "B"], Activation, int]
"""A forward or backward, of which activation, at which layer."""


class ContestMiner:
    """A miner that serves some layers with one GPU, backward before forward, each in the order of arrival.

    A forward begins when its layer has a free slot of the `cache`; the activation keeps that slot until its backward
    has ended. Each layer has slots of its own, so that a layer can always drain into the next.
    """

    __slots__ = ("backwards", "cache", "call", "forwards", "held", "index", "layers", "work")

    def __init__(self, index: int, layers: tuple[int, ...], cache: int) -> None:
        self.index = index
        self.layers = layers
        self.cache = cache
        self.forwards: deque[Work] = deque()
        self.backwards: deque[Work] = deque()
        self.held: dict[int, set[Activation]] = {layer: set() for layer in layers}
        self.work: Work | None = None
        self.call: Call | None = None

    def queue(self, work: Work) -> None:
        """Take in what has arrived."""
        (self.backwards if work[0] == "B" else self.forwards).append(work)

    def next_work(self) -> Work | None:
        """Take the next operation, with its slot if it is a forward; None if the miner computes or has to wait."""
        if self.work is not None:
            return None
        if self.backwards:
            self.work = self.backwards.popleft()
            return self.work
        for position, work in enumerate(self.forwards):
            _, activation, layer = work
            if len(self.held[layer]) < self.cache:
                del self.forwards[position]
                self.held[layer].add(activation)
                self.work = work
                return work
        return None

    def end_work(self) -> Work:
        """Return the operation that has ended; its slot is free again if it was a backward."""
        work = self.work
        assert work is not None
        self.work = self.call = None
        if work[0] == "B":
            self.held[work[2]].discard(work[1])
        return work

    def give_up(self, activation: Activation) -> None:
        """Forget an activation; an operation on it that runs goes on."""
        for queue in (self.forwards, self.backwards):
            kept = [work for work in queue if work[1] is not activation]
            if len(kept) < len(queue):
                queue.clear()
                queue.extend(kept)
        for held in self.held.values():
            held.discard(activation)

    def drop(self) -> list[Activation]:
        """Lose everything, and return the activations that are lost with it, oldest first."""
        holding = {work[1] for work in (*self.forwards, *self.backwards)}
        holding = holding.union(*self.held.values())
        self.forwards.clear()
        self.backwards.clear()
        for held in self.held.values():
            held.clear()
        if self.call is not None:
            self.call.cancel()
        self.work = self.call = None
        return sorted(holding, key=lambda activation: activation.number)

    def num_queued(self, kind: Literal["F", "B"], layer: int) -> int:
        """How many forwards or backwards of a layer wait."""
        return sum(work[2] == layer for work in (self.backwards if kind == "B" else self.forwards))
