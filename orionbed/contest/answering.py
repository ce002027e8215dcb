"""Whoever answers for a router: a baseline in this process here, a user's class in a process of its own elsewhere."""

import time
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from orionbed.contest.interface import Router
from orionbed.contest.told import Told, plain_moves, plain_route

FaultKind = Literal["late", "raised", "wrong", "gone"]


class RouterError(ValueError):
    """A router cannot be used; the message says which, what is wrong and where."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is the same in all requests of one seed: see `orionbed.contest.interface.Request`."""

    seed: int
    num_layers: int
    cache: int
    activation_bytes: float
    message_s: float


class Fault(Exception):  # noqa: N818 -- no error of ours
    """One call was not answered as it should be. `kind`: late, raised, wrong, or gone when the process has ended."""

    def __init__(self, kind: FaultKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Answering(Protocol):
    """One router during one seed."""

    @property
    def num_calls(self) -> int:
        """How often it was asked."""

    @property
    def asking_s(self) -> float:
        """Wall time of all questions and answers."""

    @property
    def thinking_s(self) -> float:
        """The part of it that is the router's own."""

    def tell(self, layer: int, at_s: float, told: list[list[Any]]) -> None:
        """Tell the router the state of a layer, with its next call."""

    def route(self, now_s: float, epoch: int, activation: int, completed: list[int], lost: list[int]) -> list[int]:
        """Return the router's route as it stands. Raises Fault."""

    def rebalance(self, now_s: float, epoch: int) -> dict[int, int]:
        """Return the layers of miners that shall move; none if the router has no `rebalance`. Raises Fault."""

    def close(self) -> None:
        """End what was started."""


class InProcess:
    """A router that is one of ours."""

    def __init__(self, router: Router, facts: Facts) -> None:
        self.num_calls = 0
        self.thinking_s = 0.0
        self._router = router
        self._told = Told(facts.num_layers, facts.cache, facts.activation_bytes, facts.message_s)

    def tell(self, layer: int, at_s: float, told: list[list[Any]]) -> None:
        self._told.tell(layer, at_s, told)

    def route(self, now_s: float, epoch: int, activation: int, completed: list[int], lost: list[int]) -> list[int]:
        request = self._told.request(now_s, epoch, activation, completed, lost)
        self.num_calls += 1
        begun_s = time.perf_counter()
        answer = self._router.route(request)
        self.thinking_s += time.perf_counter() - begun_s
        return plain_route(answer)

    @property
    def asking_s(self) -> float:
        """The same as `thinking_s`: there is nothing between."""
        return self.thinking_s

    def rebalance(self, now_s: float, epoch: int) -> dict[int, int]:
        decide = getattr(self._router, "rebalance", None)
        if decide is None:
            return {}
        self.num_calls += 1
        return plain_moves(decide(self._told.state(now_s, epoch)))

    def close(self) -> None:
        """Nothing was started."""
