"""The routers that ship, decision by decision; and scores."""

from collections import Counter
from math import log

import pytest

from orionbed.contest.baselines import BASELINES, LeastCompletionRouter, RandomRouter, SwarmRouter, hop_s, make_baseline
from orionbed.contest.interface import INTERFACE_VERSION, Layer, Miner, Request
from orionbed.contest.results import EpochResult, SeedResult
from orionbed.contest.scoring import score, standings


def miner(number: int, **changes) -> Miner:
    values = {
        "layers": (0,), "forward_s": 1.0, "backward_s": 3.0, "bandwidth_bps": 8e6, "latency_s": 0.01,
        "forward_queue": 0, "backward_queue": 0, "cache_free": 5, "waiting_s": 0.0, **changes,
    }  # fmt: skip
    return Miner(miner=number, **values)


def request(*layers: list[Miner], number: int = 0, epoch: int = 0, completed=(), lost=()) -> Request:
    return Request(
        version=INTERFACE_VERSION, now_s=0.0, epoch=epoch, activation=number,
        layers=tuple(Layer(tuple(miners), 0.0) for miners in layers),
        cache=5, activation_bytes=1e6, message_s=0.03, completed=tuple(completed), lost=tuple(lost),
    )  # fmt: skip


def test_random_is_uniform() -> None:
    router = RandomRouter(1)
    asked = request([miner(3), miner(5), miner(9)])
    counts = Counter(router.route(asked)[0] for _ in range(6000))
    assert set(counts) == {3, 5, 9}
    assert all(abs(count - 2000) < 150 for count in counts.values())


def test_swarm_weighs_free_slots_and_queues() -> None:
    router = SwarmRouter(1)
    asked = request([miner(0, cache_free=5), miner(1, cache_free=2, forward_queue=1), miner(2, cache_free=0)])
    counts = Counter(router.route(asked)[0] for _ in range(8000))
    expected = (log(5) + 1.0) / (log(5) + 1.0 + log(2) + 0.5)
    assert counts[0] / 8000 == pytest.approx(expected, abs=0.02)
    assert counts[2] == 0
    nobody = request([miner(0, cache_free=0), miner(1, cache_free=0)])
    assert {router.route(nobody)[0] for _ in range(50)} == {0, 1}


def test_least_completion_deals_by_speed() -> None:
    router = LeastCompletionRouter()
    fast, slow = miner(0, forward_s=1.0, backward_s=1.0), miner(1, forward_s=3.0, backward_s=3.0)
    counts = Counter(router.route(request([fast, slow], number=n))[0] for n in range(40))
    assert counts == {0: 30, 1: 10}


def test_least_completion_counts_what_is_on_its_way() -> None:
    router = LeastCompletionRouter()
    same = [miner(0), miner(1)]
    assert [router.route(request(same, number=n))[0] for n in range(4)] == [0, 1, 0, 1]
    assert router.route(request(same, number=4, completed=[1, 3])) == [1]
    # A merge has flushed all.
    assert router.route(request(same, number=5, epoch=1)) == [0]


def test_least_completion_avoids_who_loses_and_who_is_far() -> None:
    router = LeastCompletionRouter()
    same = [miner(0), miner(1)]
    for n in range(20):
        router.route(request(same, number=n))
    assert router.route(request(same, number=20, completed=range(1, 20, 2), lost=range(0, 20, 2))) == [1]
    near, far = miner(2, latency_s=0.01), miner(1, latency_s=0.02)
    assert LeastCompletionRouter().route(request([miner(0)], [far, near])) == [0, 2]


def test_a_hop_takes_the_slower_link_and_both_latencies() -> None:
    one, other = miner(0, bandwidth_bps=8e6), miner(1, bandwidth_bps=4e6, latency_s=0.02)
    assert hop_s(request([one]), one, other) == pytest.approx(0.03 + 0.01 + 0.02 + 2.0)
    assert hop_s(request([one]), one, one) == hop_s(request([one]), None, one) == 0.0


def test_baselines_are_made_by_name() -> None:
    for name in BASELINES:
        assert make_baseline(name, 0).route(request([miner(4)])) == [4]
    with pytest.raises(ValueError, match="no baseline is called 'x'"):
        make_baseline("x", 0)


def result(router: str, seed: int, *times_s: float) -> SeedResult:
    epochs = tuple(EpochResult(time_s, 100.0, 7, 5, 1, 1, 0) for time_s in times_s)
    return SeedResult(router, seed, 3, epochs, 7, 0, {}, "", 0.2, 0.1)


def test_random_scores_0_the_bound_1_and_worse_than_random_less() -> None:
    random = result("random", 0, 300.0, 500.0)
    assert score(random, random) == 0.0
    assert score(result("x", 0, 100.0, 100.0), random) == 1.0
    assert score(result("x", 0, 200.0, 300.0), random) == 0.5
    assert score(result("x", 0, 300.0, 800.0), random) == -0.5


def test_a_standing_has_median_and_range_over_seeds() -> None:
    times = {0: 100.0, 1: 150.0, 2: 300.0}
    runs = [result("x", seed, time_s) for seed, time_s in times.items()]
    mine, random = standings(runs + [result("random", seed, 300.0) for seed in times])
    assert mine.scores == (1.0, 0.75, 0.0)
    assert (mine.score, mine.spread, mine.epoch_s) == (0.75, (0.0, 1.0), 150.0)
    assert mine.of_ceiling == pytest.approx(2 / 3)
    assert (random.router, random.scores) == ("random", (0.0, 0.0, 0.0))
    plain = mine.plain()
    assert plain["score"] == 0.75
    assert "thinking_s" not in plain["seeds"][0]
    assert plain["seeds"][1]["total_s"] == 150.0
