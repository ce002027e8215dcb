"""Changing a scenario, drawing from what is uncertain, and where numbers come from."""

import pickle

import numpy as np
import pytest

from orionbed.scenario import ScenarioError, apply, assumptions, draw, load, to_yaml
from orionbed.scenario.packaged import scenarios


@pytest.fixture(scope="module")
def minimal():
    return load("minimal")


def test_apply_takes_si_numbers_and_text(minimal):
    changed = apply(
        minimal, {"network.uplink.median": 5e6, "merge.every": "7 min", "run.seed": 4, "network.delay": 0.02}
    )
    assert changed.network.uplink.median == 5e6
    assert changed.merge.every == 420.0
    assert changed.run.seed == 4
    assert changed.network.delay == 0.02
    assert minimal.run.seed == 0


def test_apply_takes_blocks_and_distributions(minimal):
    changed = apply(minimal, {"network.uplink": minimal.network.uplink.scaled(2), "merge": {"every": 60.0}})
    assert changed.network.uplink.median == 400e6
    assert changed.merge.every == 60.0
    assert changed.merge.compute == 10.0


def test_apply_without_values_changes_nothing(minimal):
    assert apply(minimal, {}) == minimal


def test_apply_takes_sources_and_doubts_of_what_it_changes(minimal):
    changed = apply(minimal, {"network.uplink.median": 5e6})
    assert changed.provenance["network.uplink.median"] == "assumed: set by a program"
    assert "network.uplink.median" not in changed.uncertain
    assert "pipeline.schedule.window" in changed.uncertain


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"pipeline.stags": 3}, "pipeline.stags: unknown key; did you mean stages?"),
        ({"model.heads": 3}, "model.heads: 3 heads do not divide hidden 2048"),
        ({"network.uplink.median": "5 mbps"}, "did you mean Mbps?"),
        ({"merge.every": -1.0}, "merge.every: must be at least 0, not -1.0"),
        ({"name": "x", "run": "y"}, "run: must be a mapping"),
    ],
)
def test_apply_refuses(minimal, values, said):
    with pytest.raises(ScenarioError) as error:
        apply(minimal, values)
    assert said in str(error.value)


def test_a_draw_draws_every_uncertain_key(minimal):
    drawn, values = draw(minimal, np.random.default_rng(0))
    assert list(values) == sorted(minimal.uncertain)
    assert drawn.network.uplink.median == values["network.uplink.median"]
    assert 100e6 <= drawn.network.uplink.median <= 400e6
    assert drawn.pipeline.schedule.window == values["pipeline.schedule.window"]
    assert values["pipeline.schedule.window"] in {4, 8, 16}
    assert drawn.uncertain == {}


def test_draws_depend_on_the_generator_alone(minimal):
    reordered = minimal.model_copy(update={"uncertain": dict(reversed(minimal.uncertain.items()))})
    draws = [draw(one, np.random.default_rng(3)) for one in (minimal, minimal, reordered)]
    assert draws[0] == draws[1]
    assert draws[0][1] == draws[2][1]
    rng = np.random.default_rng(3)
    assert draw(minimal, rng)[1] != draw(minimal, rng)[1]


def test_draws_cover_the_distribution(minimal):
    rng = np.random.default_rng(0)
    values = [draw(minimal, rng)[1] for _ in range(60)]
    rates = np.array([value["network.uplink.median"] for value in values])
    assert rates.mean() == pytest.approx(250e6, rel=0.15)
    assert {value["pipeline.schedule.window"] for value in values} == {4, 8, 16}


def test_uncertain_delays_words_and_blocks(minimal):
    doubts = {
        "network.delay": {"dist": "uniform", "low": "10 ms", "high": "40 ms"},
        "network.correlation": {"dist": "uniform", "low": -0.5, "high": 0.5},
        "churn": {"choice": ["none", {"up": "5 h", "down": "1 min"}]},
        "merge.quorum_floor": {"dist": "normal", "mean": 0.3, "sd": 0.01},
        "network.transport.loss": {"choice": [0, "0.1 %"]},
    }
    rng = np.random.default_rng(1)
    doubtful = minimal.model_copy(update={"uncertain": doubts})
    drawn = [draw(doubtful, rng)[0] for _ in range(20)]
    assert all(0.01 <= one.network.delay <= 0.04 for one in drawn)
    assert any(one.network.correlation < 0 for one in drawn)
    assert {one.churn == "none" for one in drawn} == {True, False}
    assert {one.network.transport.loss for one in drawn} == {0.0, 0.001}


@pytest.mark.parametrize("name", scenarios())
def test_packaged_scenarios_draw(name):
    scenario = load(name)
    rng = np.random.default_rng(0)
    for _ in range(3):
        draw(scenario, rng)


def test_every_number_has_a_source(minimal):
    rows = {row["key"]: row for row in assumptions(minimal)}
    assert rows["network.uplink.sigma"] == {
        "key": "network.uplink.sigma",
        "value": "0.3",
        "kind": "assumed",
        "source": "home fibre",
    }
    assert rows["network.uplink.median"]["value"] == "200 Mbps"
    assert rows["cost.gpu_hour"]["value"] == "$1.25/h"
    assert rows["run.duration"] == {
        "key": "run.duration",
        "value": "2 h",
        "kind": "assumed",
        "source": "given without a source",
    }
    assert rows["pipeline.schedule.poll_loop"]["source"] == "default of the schema"
    assert rows["merge.timeout"]["source"] == "default of the schema"
    assert rows["merge.every"]["source"] == "given without a source"
    assert rows["gpus/a100-80gb.peak"]["kind"] == "published"
    assert rows["gpus/a100-80gb.matmul.1.input_gradient"]["source"].startswith("median of only 3 shapes")
    assert not [key for key in rows if key.startswith(("provenance", "uncertain", "name"))]
    assert {row["kind"] for row in rows.values()} <= {"published", "code", "derived", "assumed", "fitted"}


def test_the_most_specific_source_wins(tmp_path):
    path = tmp_path / "s.yaml"
    text = 'extends: minimal\nprovenance: {model: "code: a", model.layers: "published: b, c: d"}\n'
    path.write_text(text, encoding="utf-8")
    rows = {row["key"]: (row["kind"], row["source"]) for row in assumptions(load(path))}
    assert rows["model.hidden"] == ("code", "a")
    assert rows["model.layers"] == ("published", "b, c: d")


@pytest.mark.parametrize("name", scenarios())
def test_yaml_round_trip(tmp_path, name):
    scenario = load(name)
    path = tmp_path / "resolved.yaml"
    path.write_text(to_yaml(scenario), encoding="utf-8")
    assert load(path) == scenario
    assert to_yaml(load(path)) == to_yaml(scenario)
    assert "extends" not in to_yaml(scenario)
    assert str(tmp_path) not in to_yaml(scenario)


@pytest.mark.parametrize(
    "title", ["no", "1e3", "1e-3", "12:30", "~", "", "a: b", "# x", "0x1F", "2026-06", "ä\n'\"", "*x", "="]
)
def test_yaml_round_trip_of_odd_text(tmp_path, minimal, title):
    path = tmp_path / "resolved.yaml"
    path.write_text(to_yaml(minimal.model_copy(update={"title": title})), encoding="utf-8")
    assert load(path).title == title


def test_yaml_round_trip_after_changes(tmp_path, minimal):
    sets = ["network.uplink={choice: [1 Mbps, 2 Mbps]}", "network.uplink.choice.0=3 Mbps", "peers.speed=0.9"]
    scenario = load(
        "minimal", [*sets, "merge.every=0.1 s", "network.downlink={dist: lognormal, median: 1 Gbps, p90: 2 Gbps}"]
    )
    path = tmp_path / "resolved.yaml"
    path.write_text(to_yaml(scenario), encoding="utf-8")
    assert load(path) == scenario


def test_scenarios_travel_between_processes(minimal):
    assert pickle.loads(pickle.dumps(minimal)) == minimal
