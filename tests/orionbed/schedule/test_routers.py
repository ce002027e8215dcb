"""Routers: shares by weight, fallbacks, and peers that are gone."""

from collections import Counter
from collections.abc import Iterator
from math import log

import numpy as np
import pytest

from orionbed.schedule.routers import StageView, make_router

NAMES = ("replica", "random", "swarm", "shortest-queue", "fastest")


def view(free: list[int], queue: list[int] | None = None, speed: list[float] | None = None) -> StageView:
    made = StageView(list(range(10, 10 + len(free))), speed or [1.0] * len(free), 0)
    for position, slots in enumerate(free):
        made.update(position, slots, (queue or [0] * len(free))[position])
    return made


def uniforms(seed: int = 0) -> Iterator[float]:
    generator = np.random.default_rng(seed)
    while True:
        yield float(generator.random())


def shares(name: str, seen: StageView, draws: int = 20_000) -> list[float]:
    numbers = uniforms()
    router = make_router(name, lambda: next(numbers))
    counts = Counter(router.choose(seen, 0) for _ in range(draws))
    return [counts[peer] / draws for peer in seen.peers]


def test_swarm_weighs_log_of_free_cache_and_queue() -> None:
    weights = [log(16) + 1.0, log(4) + 1 / 3, 0.0 + 1.0]
    expected = [w / sum(weights) for w in weights]
    assert shares("swarm", view([16, 4, 1], [0, 2, 0])) == pytest.approx(expected, abs=0.01)


def test_swarm_avoids_full_peers_and_falls_back_to_chance_when_all_are_full() -> None:
    assert shares("swarm", view([0, 3, 0]))[1] == 1.0
    assert shares("swarm", view([0, 0, 0])) == pytest.approx([1 / 3] * 3, abs=0.02)


def test_random_is_uniform() -> None:
    assert shares("random", view([0, 9, 2], [7, 0, 1])) == pytest.approx([1 / 3] * 3, abs=0.02)


def test_shortest_queue_takes_the_shortest() -> None:
    assert shares("shortest-queue", view([5, 5, 5], [2, 1, 3])) == [0.0, 1.0, 0.0]
    assert shares("shortest-queue", view([5, 7, 7], [1, 1, 1]))[0] == 0.0


def test_fastest_shares_by_speed() -> None:
    assert shares("fastest", view([1, 1, 1], speed=[2.0, 1.0, 1.0]), 400) == pytest.approx([0.5, 0.25, 0.25], abs=0.01)


def test_replica_keeps_to_its_own_and_moves_on_when_that_is_gone() -> None:
    router = make_router("replica", lambda: 0.0)
    seen = view([1, 1, 1])
    assert router.choose(seen, 2) == 12
    seen.drop(2)
    assert router.choose(seen, 2) == 10


@pytest.mark.parametrize("name", NAMES)
def test_no_router_chooses_a_peer_that_is_gone(name: str) -> None:
    seen = view([4, 4, 4])
    numbers = uniforms(1)
    router = make_router(name, lambda: next(numbers))
    seen.drop(1)
    assert 11 not in {router.choose(seen, 1) for _ in range(200)}
    seen.drop(0)
    seen.drop(2)
    assert router.choose(seen, 1) is None
    seen.update(1, 1, 0)
    assert router.choose(seen, 0) == 11


def test_an_unknown_router_is_refused() -> None:
    with pytest.raises(ValueError, match="nearest"):
        make_router("nearest", lambda: 0.0)
