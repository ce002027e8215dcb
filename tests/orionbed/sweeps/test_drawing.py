"""Sweeps whose seeds also draw the uncertain inputs."""

import pytest

from orionbed.scenario import Scenario, apply, load
from orionbed.sweeps import running


@pytest.fixture(name="scenario")
def _scenario() -> Scenario:
    drawn = {
        "peers.overhead": {"dist": "uniform", "low": "0 s", "high": "1 s"},
        "pipeline.schedule.window": {"choice": list(range(1, 200))},
    }
    return apply(load("minimal"), {"uncertain": drawn}, from_file=True)


def test_each_seed_draws_anew_and_the_same_for_every_case(scenario: Scenario) -> None:
    other = apply(scenario, {"network.uplink": 5e8})
    for seed in (0, 1):
        one, two = (running._drawn(case, seed) for case in (scenario, other))
        assert one.peers.overhead == two.peers.overhead
        assert one.pipeline.schedule == two.pipeline.schedule
    assert running._drawn(scenario, 0).peers.overhead != running._drawn(scenario, 1).peers.overhead


def test_a_key_that_a_case_changes_is_not_drawn_and_moves_no_other(scenario: Scenario) -> None:
    case = apply(scenario, {"peers.overhead": 7.0})
    assert running._drawn(case, 3).peers.overhead == 7.0
    assert running._drawn(case, 3).pipeline.schedule == running._drawn(scenario, 3).pipeline.schedule
