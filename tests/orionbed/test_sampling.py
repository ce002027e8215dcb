"""Draws of the uncertain inputs, and the bands over them."""

import operator
import threading
from typing import Any

import pytest

from orionbed.processes import in_processes
from orionbed.runs import RunError
from orionbed.sampling import QUANTITIES, bands, one_draw
from orionbed.scenario import Scenario, apply, load


@pytest.fixture(scope="module")
def scenario() -> Scenario:
    """Two stages of one peer for a minute, with two uncertain inputs."""
    return apply(
        load("minimal"),
        {
            "pipeline.stages": 2,
            "pipeline.replicas": 1,
            "peers.sites": {"virginia": 1, "oregon": 1},
            "merge": "none",
            "churn": "none",
            "run.samples_horizon": 60.0,
            "datacenter.horizon": 10.0,
            "uncertain": {
                "network.uplink.median": {"dist": "uniform", "low": "100 Mbps", "high": "400 Mbps"},
                "pipeline.schedule.window": {"choice": [1, 2, 4]},
            },
        },
    )


def test_a_draw_is_the_same_whenever_it_is_made(scenario: Scenario) -> None:
    first = {index: one_draw(scenario, "sim", 0, index) for index in (0, 1)}
    again = {index: one_draw(scenario, "sim", 0, index) for index in (1, 0)}
    assert first == again
    assert first[0]["draw"] == 0
    assert list(first[0]) == ["draw", "network.uplink.median", "pipeline.schedule.window", *QUANTITIES]
    assert first[0]["network.uplink.median"] != first[1]["network.uplink.median"]
    assert 1e8 <= first[0]["network.uplink.median"] <= 4e8
    assert all(first[0][name] > 0.0 for name in QUANTITIES)


def test_another_seed_draws_other_values(scenario: Scenario) -> None:
    rows = [one_draw(scenario, "sim", seed, 0) for seed in (0, 1)]
    assert rows[0]["network.uplink.median"] != rows[1]["network.uplink.median"]


def test_an_input_that_is_drawn_makes_a_difference(scenario: Scenario) -> None:
    only_window = scenario.model_copy(update={"uncertain": {"pipeline.schedule.window": {"choice": [1, 4]}}})
    rows = [one_draw(only_window, "sim", 0, index) for index in range(8)]
    by_window: dict[int, list[float]] = {1: [], 4: []}
    for row in rows:
        by_window[row["pipeline.schedule.window"]].append(row["tokens_per_s"])
    assert max(by_window[1]) < min(by_window[4])


def test_a_draw_that_cannot_be_says_which_and_what_to_do(scenario: Scenario) -> None:
    uncertain = {"network.correlation": {"dist": "normal", "mean": 0.9, "sd": 50.0}}
    with pytest.raises(RunError, match="draw 7 of `uncertain` is no good, narrow the distribution") as caught:
        one_draw(scenario.model_copy(update={"uncertain": uncertain}), "sim", 0, 7)
    assert "network.correlation" in str(caught.value)


def row(value: float | None) -> dict[str, Any]:
    return {name: (value if name == "relative_speed" else float(value or 0.0)) for name in QUANTITIES}


def test_bands_are_quantiles_by_summary_key() -> None:
    found = bands([row(float(value)) for value in range(101)])
    assert found == {key: [5.0, 50.0, 95.0] for key in QUANTITIES.values()}


def test_bands_interpolate_between_few_draws() -> None:
    assert bands([row(1.0), row(3.0), row(2.0)])["mfu.wall_clock"] == pytest.approx([1.1, 2.0, 2.9])
    assert bands([row(1.0)])["mfu.wall_clock"] == [1.0, 1.0, 1.0]


def test_bands_leave_out_what_a_draw_does_not_have() -> None:
    assert bands([row(None), row(2.0)])["datacenter.relative_speed"] == [2.0, 2.0, 2.0]
    assert "datacenter.relative_speed" not in bands([row(None)])


def test_results_come_in_the_order_of_the_arguments() -> None:
    counts: list[int] = []
    assert in_processes(operator.sub, [(9, 1), (9, 2), (9, 3)], 2, counts.append) == [8, 7, 6]
    assert counts == [1, 2, 3]


def test_one_failure_ends_all() -> None:
    with pytest.raises(ZeroDivisionError):
        in_processes(operator.floordiv, [(1, 0), *[(9, 3)] * 50], 1)


def test_nothing_to_do_starts_no_process() -> None:
    assert in_processes(operator.sub, [], 2) == []


def test_other_threads_than_the_first_may_start_processes() -> None:
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(in_processes(operator.sub, [(2, 1)], 1)))
    thread.start()
    thread.join()
    assert results == [[1]]
