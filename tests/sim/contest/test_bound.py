"""No router beats the bound, whatever the contest; and what the bound counts."""

from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orionbed.contest.interface import Request, State
from orionbed.streams import Streams
from sim.contest.bound import least_epoch_s
from sim.contest.world import draw_world
from tests.sim.contest.conftest import played, quiet

ROUNDING = 1.0 - 1e-9


class Mover:
    """The fewest on their way, and every miner somewhere else in each epoch."""

    def __init__(self) -> None:
        self.sent: dict[int, int] = {}

    def route(self, request: Request) -> list[int]:
        route = [min(layer.miners, key=lambda m: self.sent.get(m.miner, 0)).miner for layer in request.layers]
        for miner in route:
            self.sent[miner] = self.sent.get(miner, 0) + 1
        return route

    def rebalance(self, state: State) -> dict[int, int]:
        miners = sorted({miner.miner for layer in state.layers for miner in layer.miners})
        return {miner: place % len(state.layers) for place, miner in enumerate(miners)}


contests = st.fixed_dictionaries(
    {
        "miners.count": st.integers(3, 9),
        "miners.layers": st.integers(1, 3).map(lambda n: {"least": n, "most": n}),
        "miners.several": st.fixed_dictionaries({"share": st.sampled_from([0.0, 0.5, 1.0]), "layers": st.just(2)}),
        "miners.forward": st.sampled_from(
            [
                "1 s",
                {"dist": "lognormal", "median": "1 s", "sigma": 0.8},
                {"dist": "uniform", "low": "100 ms", "high": "2 s"},
            ]
        ),
        "miners.backward": st.sampled_from([0.5, 1.0, 3.0]),
        "miners.cache": st.integers(1, 4),
        "miners.classes": st.sampled_from([0.0, 0.05]).map(lambda p: {"all": {"share": 1.0, "drop": p, "join": 0.5}}),
        "network.activation": st.sampled_from(["1 B", "1 MB", "20 MB"]),
        "network.bandwidth": st.sampled_from(["100 Mbps", {"dist": "lognormal", "median": "50 Mbps", "sigma": 1.0}]),
        "network.latency": st.sampled_from(["0 s", "50 ms", {"dist": "exponential", "mean": "200 ms"}]),
        "network.overhead": st.sampled_from(["0 s", "100 ms"]),
        "epochs.count": st.just(2),
        "epochs.activations": st.integers(1, 25),
        "epochs.in_flight": st.integers(1, 30),
        "epochs.drift": st.sampled_from([0.0, 0.5]),
    }
)


@given(changes=contests, seed=st.integers(0, 1000))
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
def test_no_router_beats_the_bound(changes, seed: int) -> None:
    contest = quiet(changes)
    for router in ("random", "swarm", "least-completion", Mover()):
        for epoch in played(contest, router, seed).epochs:
            assert epoch.time_s >= epoch.bound_s * ROUNDING
            assert epoch.created == epoch.completed + epoch.lost + epoch.flushed


@given(changes=contests, seed=st.integers(0, 1000))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_who_may_move_can_only_be_faster(changes, seed: int) -> None:
    contest = quiet(changes)
    world = draw_world(contest, Streams(seed))
    moved, stayed = (least_epoch_s(contest, world, may_move=may) for may in (True, False))
    assert 0.0 < moved <= stayed / ROUNDING


def least(changes, **options) -> float:
    contest = quiet(changes)
    return least_epoch_s(contest, draw_world(contest, Streams(0)), **{"may_move": False, **options})


def test_the_bound_of_service() -> None:
    # Two layers, four miners, 3 s each: 500 x 3 s / 2 miners; the upper layer also waits for a forward and a backward.
    assert least({"epochs.activations": 500, "epochs.in_flight": 100}) == pytest.approx(500 * 3 / 2 + 3)
    assert least({"epochs.activations": 500, "epochs.in_flight": 100}, may_move=True) == pytest.approx(500 * 3 / 2)


def test_the_bound_of_caches_is_littles_law() -> None:
    # Layer 0 holds each for 6 s, in 2 x 1 slots.
    assert least({"epochs.activations": 500, "epochs.in_flight": 100, "miners.cache": 1}) == pytest.approx(500 * 6 / 2)
    # Wherever the miners are: 6 s and 3 s in four slots.
    moved = least({"epochs.activations": 500, "epochs.in_flight": 100, "miners.cache": 1}, may_move=True)
    assert moved == pytest.approx(500 * 9 / 4)


def test_the_bound_of_what_is_in_flight() -> None:
    for may_move in (True, False):
        assert least({"epochs.activations": 500, "epochs.in_flight": 1}, may_move=may_move) == pytest.approx(500 * 6)


def test_the_bound_of_one_round_trip() -> None:
    changes = {"epochs.activations": 1, "network.latency": "1 s", "network.overhead": "500 ms"}
    for may_move in (True, False):
        assert least(changes, may_move=may_move) == pytest.approx(2 * 3 + 2 * 2.5)


def test_a_miner_of_several_layers_is_counted_once() -> None:
    """Two miners serve both layers: 500 x 2 operations of 3 s by two miners, although each layer has two."""
    changes = {"miners.count": 2, "miners.several": {"share": 1.0, "layers": 2}, "epochs.activations": 500,
               "epochs.in_flight": 100}  # fmt: skip
    assert least(changes) == pytest.approx(500 * 2 * 3 / 2)


def test_more_of_anything_never_raises_the_bound() -> None:
    base = {"epochs.activations": 200, "epochs.in_flight": 20, "miners.cache": 2, "network.latency": "300 ms",
            "network.activation": "2 MB", "network.bandwidth": "50 Mbps"}  # fmt: skip
    for key, values in (
        ("miners.cache", [1, 2, 4, 8]),
        ("epochs.in_flight", [1, 5, 25, 125]),
        ("network.bandwidth", ["5 Mbps", "50 Mbps", "500 Mbps"]),
    ):
        found = [least({**base, key: value}) for value in values]
        assert all(before >= after for before, after in pairwise(found)), key
        assert found[0] > found[-1]
