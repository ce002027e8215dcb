"""The reference scenarios: honest, complete, and as exact as the simulator promises."""

from pathlib import Path

import pytest

from orionbed import metrics
from orionbed.plan import make_plan
from orionbed.published import fitted_quantities
from orionbed.sampling import bands, one_draw
from orionbed.scenario import assumptions, load
from orionbed.summary import summarise
from sim.api import run, simulate_baseline

ORION = sorted(path.stem for path in Path("scenarios").glob("orion-*.yaml"))


def test_all_reference_scenarios_are_here() -> None:
    assert ORION == [
        "orion-1.5b", "orion-100b", "orion-100b-datacenter", "orion-100b-fitted", "orion-100b-orchestrated",
        "orion-100b-uncompressed",
        "orion-15b", "orion-1t", "orion-45b",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ORION)
def test_every_number_of_a_reference_scenario_has_a_source(name: str) -> None:
    unsourced = [row["key"] for row in assumptions(load(name)) if row["source"] == "default of the schema"]
    assert [key for key in unsourced if not key.startswith(("run.", "report."))] == []


def test_nothing_is_fitted_but_in_the_fitted_scenario() -> None:
    for name in ORION:
        fitted = fitted_quantities(load(name))
        assert fitted == ({"mfu.peak_sustained"} if name == "orion-100b-fitted" else set())
    values = [row for row in assumptions(load("orion-100b-fitted")) if row["kind"] == "fitted"]
    assert len(values) <= 2


@pytest.mark.parametrize("name", ORION)
def test_each_reference_scenario_trains(name: str) -> None:
    # A micro-batch needs a quarter of an hour to get through 188 stages and back.
    minutes = 16 if name == "orion-1t" else 12
    scenario = load(name, ["run.tokens=null", f"run.duration={minutes} min", "run.startup=0 s", "run.trace=summary"])
    result = run(make_plan(scenario))
    mfu = metrics.rates(result).in_phase * metrics.mfu_per_rate(result)
    assert result.ledger.applied > 0
    assert 0.005 < mfu < 0.60


def test_the_number_of_events_of_an_orion_hour_is_exact() -> None:
    scenario = load("orion-100b", ["run.tokens=null", "run.duration=1 h", "run.trace=summary"])
    first, second = run(make_plan(scenario)), run(make_plan(scenario))
    assert first.events == second.events
    # Each applied micro-batch costs 31 operations and 30 messages; polling, status and steps come on top.
    assert 61 < first.events / first.ledger.applied < 95


def test_compression_lets_the_pipeline_run_at_home_speeds() -> None:
    sets = ["run.tokens=null", "run.duration=30 min", "run.startup=0 s", "network.uplink=100 Mbps"]
    narrow, plain = (run(make_plan(load(f"orion-100b{kind}", sets))) for kind in ("", "-uncompressed"))
    assert narrow.ledger.applied > 10 * plain.ledger.applied


def test_narrow_boundaries_on_slow_links_equal_plain_ones_on_links_as_many_times_faster() -> None:
    """80 Mbit/s at 128x and 10.24 Gbit/s uncompressed are the same links to the pipeline, by construction."""

    def per_s(sets: list[str]) -> float:
        fixed = [
            "run.tokens=null", "run.duration=90 min", "run.startup=0 s", "merge=none", "churn=none",
            "network.jitter=none", "network.variability=constant", "network.transport.window=1 GB",
            "peers.efficiency=0.5",
        ]  # fmt: skip
        # In phase: the first download of 13 GB takes 22 minutes at 80 Mbit/s.
        return metrics.rates(run(make_plan(load("orion-100b", fixed + sets)))).in_phase

    narrow = per_s(["network.uplink=80 Mbps", "network.downlink=80 Mbps", "pipeline.boundary={kind: resbm, width: 72}"])
    plain = per_s(["network.uplink=10.24 Gbps", "network.downlink=10.24 Gbps", "pipeline.boundary={kind: none}"])
    assert narrow == pytest.approx(plain, rel=0.03)


def test_the_datacenter_scenario_is_the_baseline_as_a_scenario() -> None:
    baseline = simulate_baseline(load("orion-100b"), 0)
    sets = ["run.duration=2.5 h", "run.trace=summary"]
    result = run(make_plan(load("orion-100b-datacenter", sets)))
    rate = metrics.rates(result).in_phase * result.plan.tokens_per_microbatch
    assert rate == pytest.approx(baseline.tokens_per_s, rel=0.04)


def test_a_draw_depends_on_seed_and_index_only() -> None:
    scenario = load("minimal", ["run.samples_horizon=10 min", "datacenter.horizon=5 min"])
    rows = [one_draw(scenario, "sim", 7, index) for index in (0, 1, 0)]
    assert rows[0] == rows[2]
    assert rows[0] != rows[1]
    found = bands(rows)
    assert set(found) >= {"mfu.wall_clock", "mfu.peak_sustained", "datacenter.relative_speed"}
    assert all(low <= middle <= high for low, middle, high in found.values())


@pytest.mark.slow
def test_the_fitted_scenario_meets_its_target_and_predicts_the_rest() -> None:
    scenario = load("orion-100b-fitted", ["run.trace=summary"])
    result = run(make_plan(scenario))
    summary = summarise(result, simulate_baseline(scenario, 0), git="", started_at="")
    published = {row["quantity"]: row for row in summary["published"]}
    assert summary["tokens"]["total"] == pytest.approx(1.1e9, abs=8000)
    assert published["mfu.peak_sustained"]["kind"] == "fitted"
    assert abs(published["mfu.peak_sustained"]["error"]) < 0.005
    for quantity in ("mfu.wall_clock", "tokens.per_s.in_phase", "duration_s.total"):
        assert published[quantity]["kind"] == "predicted"
        assert abs(published[quantity]["error"]) < 0.10
    assert abs(published["datacenter.relative_speed"]["error"]) < 0.20
    assert len(summary["contradictions"]) >= 6
    assert sum(row["fraction"] for row in summary["waterfall"]) == pytest.approx(1.0, abs=1e-9)
