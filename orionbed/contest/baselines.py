"""The routers that ship with the contest, written against the same interface as anybody's."""

import random
from collections import defaultdict
from math import log
from typing import Final

from orionbed.contest.interface import Miner, Request, Router


class RandomRouter:
    """Any known miner of each layer, equally likely: the baseline that scores 0."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def route(self, request: Request) -> list[int]:
        return [self._random.choice(layer.miners).miner for layer in request.layers]


class SwarmRouter:
    """IOTA's rule: weight = log(free cache slots) + 1/(1 + forward queue); a miner without a free slot gets none.

    As in `orionbed.schedule.routers`, all are equal where all weights are zero.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def route(self, request: Request) -> list[int]:
        return [self._choose(layer.miners) for layer in request.layers]

    def _choose(self, miners: tuple[Miner, ...]) -> int:
        weights = [log(m.cache_free) + 1.0 / (1.0 + m.forward_queue) if m.cache_free > 0 else 0.0 for m in miners]
        return self._random.choices(miners, weights if any(weights) else None)[0].miner


class LeastCompletionRouter:
    """Sends each activation where it is expected to be done first, layer by layer.

    What is stale is not used: the router counts what it has sent and not heard of since. A miner with n activations on
    their way is expected to take (n + 1) times its forward and backward for the next one; the message to it is added.
    Miners on whose routes much was lost count as slower by the share that was lost.
    """

    def __init__(self) -> None:
        self._epoch = -1
        self._routes: dict[int, list[int]] = {}
        self._num_open: defaultdict[int, int] = defaultdict(int)
        self._num_sent: defaultdict[int, int] = defaultdict(int)
        self._num_lost: defaultdict[int, int] = defaultdict(int)

    def route(self, request: Request) -> list[int]:
        self._take_in(request)
        route: list[int] = []
        before: Miner | None = None
        for layer in request.layers:
            before = min(layer.miners, key=lambda miner: self._expected_s(request, before, miner))
            route.append(before.miner)
        self._routes[request.activation] = route
        for miner in route:
            self._num_open[miner] += 1
            self._num_sent[miner] += 1
        return route

    def _take_in(self, request: Request) -> None:
        """Strike out what is no longer on its way; between two epochs everything is flushed."""
        if request.epoch != self._epoch:
            self._epoch = request.epoch
            self._routes.clear()
            self._num_open.clear()
        for activation in request.completed + request.lost:
            for miner in self._routes.pop(activation, ()):
                self._num_open[miner] -= 1
                self._num_lost[miner] += activation in request.lost

    def _expected_s(self, request: Request, before: Miner | None, miner: Miner) -> float:
        busy_s = (self._num_open[miner.miner] + 1) * (miner.forward_s + miner.backward_s)
        risk = 1.0 + self._num_lost[miner.miner] / (self._num_sent[miner.miner] + 10.0)
        return busy_s * risk + 2.0 * hop_s(request, before, miner)


def hop_s(request: Request, before: Miner | None, miner: Miner) -> float:
    """Return what one message from `before` to `miner` takes when nothing else is on their links."""
    if before is None or before.miner == miner.miner:
        return 0.0
    rate_bps = min(before.bandwidth_bps, miner.bandwidth_bps)
    return request.message_s + before.latency_s + miner.latency_s + 8.0 * request.activation_bytes / rate_bps


BASELINES: Final = ("random", "swarm", "least-completion")


def make_baseline(name: str, seed: int) -> Router:
    """Return the baseline called `name` (`random`, `swarm`, `least-completion`); ValueError if there is none."""
    if name == "random":
        return RandomRouter(seed)
    if name == "swarm":
        return SwarmRouter(seed)
    if name == "least-completion":
        return LeastCompletionRouter()
    raise ValueError(f"no baseline is called '{name}'")
