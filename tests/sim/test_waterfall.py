"""The waterfall: starting from a run that loses nothing, each cause is added alone and its own bar must grow."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from orionbed import metrics, waterfall
from orionbed.plan import make_plan
from orionbed.results import RunResult
from orionbed.scenario import Scenario
from orionbed.tracing import CAUSES
from sim.backend import run

Make = Callable[..., Scenario]

# One flat efficiency of 1, an operation of about a tenth of a second, links without limits.
IDEAL: dict[str, Any] = {
    "stages": 4,
    "replicas": 2,
    "model": {"layers": 16, "hidden": 4096, "ffn": 14336, "heads": 32, "kv_heads": 8, "vocab": 64},
    "batch": {"sequence": 2, "sequences": 4096},
    "peers__efficiency": 1.0,
    "run": {"duration": 900.0},
}
QUEUE: dict[str, Any] = {
    "kind": "queue", "window": 24, "router": "replica", "recompute": "none",
    "poll_loop": 0.0, "poll_empty": 0.0, "poll_full": 0.0,
}  # fmt: skip


def simulate(quiet: Make, **changes: Any) -> RunResult:
    return run(make_plan(quiet(**(IDEAL | {"pipeline__schedule": QUEUE} | changes))))


def shares(result: RunResult) -> dict[str, float]:
    return {
        str(row["cause"]): float(str(row["fraction"])) for row in waterfall.waterfall(waterfall.gpu_seconds(result))
    }


@pytest.fixture(name="ideal", scope="module")
def _ideal(quiet: Make) -> dict[str, float]:
    return shares(simulate(quiet))


def test_an_ideal_run_is_all_useful_but_for_filling_the_pipeline(ideal: dict[str, float]) -> None:
    assert ideal["useful"] > 0.98
    assert ideal["useful"] + ideal["fill"] + ideal["imbalance"] + ideal["upstream"] > 0.9999
    for cause in (
        "recompute",
        "boundary",
        "optimizer",
        "polling",
        "merge_transfer",
        "merge_wait",
        "down",
        "thrown_away",
    ):
        assert ideal[cause] == 0.0


CHURN = {"up": {"dist": "exponential", "mean": 200.0}, "down": {"dist": "uniform", "low": 20.0, "high": 21.0}}
ADDED: dict[str, dict[str, Any]] = {
    "kernel": {"peers__efficiency": 0.5},
    "recompute": {"pipeline__schedule": QUEUE | {"recompute": "full"}},
    "boundary": {"pipeline__boundary": {"kind": "resbm", "width": 512}},
    "optimizer": {"peers__efficiency": "by-shape"},
    "imbalance": {"pipeline__split": [7, 3, 3, 3]},
    "fill": {"pipeline__schedule": {"kind": "gpipe", "microbatches": 4, "recompute": "none"}},
    "window": {"pipeline__schedule": QUEUE | {"window": 1}},
    "polling": {"pipeline__schedule": QUEUE | {"poll_loop": 0.05}},
    "transfer": {"pipeline__schedule": QUEUE | {"window": 4}, "network__uplink": 5e8},
    "encryption": {"pipeline__schedule": QUEUE | {"window": 4}, "network__transport": {"cipher_rate": 5e8}},
    "upstream": {
        "peers__speed": {"dist": "lognormal", "median": 1.0, "sigma": 0.4},
        "run": {"duration": 900.0, "seed": 4},
    },
    "merge_transfer": {"merge": {"every": 100.0, "compute": 0.0}, "network__uplink": 1e10},
    "merge_wait": {
        "merge": {"every": 100.0, "compute": 0.0, "quorum_relax": 0.0},
        "network__uplink": {"dist": "lognormal", "median": 1e10, "sigma": 0.5},
    },
    "merge_compute": {"merge": {"every": 100.0, "compute": 5.0}},
    "startup": {"run": {"duration": 900.0, "startup": 60.0}},
    "benched": {"churn": CHURN, "merge": {"every": 100.0, "compute": 0.0}},
    "down": {"churn": CHURN},
    "thrown_away": {"churn": CHURN},
}


@pytest.mark.parametrize("cause", ADDED)
def test_adding_a_cause_makes_its_own_bar_grow(quiet: Make, ideal: dict[str, float], cause: str) -> None:
    seen = shares(simulate(quiet, **ADDED[cause]))
    assert seen[cause] > ideal[cause] + 0.001
    assert seen["useful"] < ideal["useful"]
    assert sum(seen.values()) == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize(
    "boundary",
    [
        {"kind": "resbm", "width": 64},
        {"kind": "resbm", "width": 64, "encoder": "mlp"},
        {"kind": "bottleneck", "width": 64},
        {"kind": "subspace", "width": 64},
        {"kind": "quantize", "bits": 8},
        {"kind": "topk", "keep": 64},
    ],
)
def test_every_kind_of_boundary_has_its_bar(quiet: Make, boundary: dict[str, Any]) -> None:
    short = {"peers__efficiency": "by-shape", "run": {"duration": 60.0}}
    assert shares(simulate(quiet, **short))["boundary"] == 0.0
    assert shares(simulate(quiet, **short, pipeline__boundary=boundary))["boundary"] > 1e-4


def test_every_cause_is_added_by_one_of_these(ideal: dict[str, float]) -> None:
    assert {"none", "useful", *ADDED} == set(CAUSES)
    assert set(ideal) == set(CAUSES) - {"none"}


def test_flat_efficiency_splits_as_arithmetic_says(quiet: Make) -> None:
    seen = shares(simulate(quiet, peers__efficiency=0.5, pipeline__schedule=QUEUE | {"recompute": "full"}))
    # At half of peak, useful work takes as long again; recompute adds a third of both on all stages but the last.
    assert seen["kernel"] == pytest.approx(seen["useful"], rel=0.01)
    assert seen["recompute"] == pytest.approx((seen["useful"] + seen["kernel"]) / 3 * 3 / 4, rel=0.02)


def test_mfu_and_hfu_of_an_ideal_run(quiet: Make) -> None:
    result = simulate(quiet, pipeline__schedule=QUEUE | {"recompute": "full"})
    rates = metrics.rates(result)
    mfu = rates.wall_clock * metrics.mfu_per_rate(result)
    hfu = metrics.executed_flops(result) / (result.plan.gpu.peak * len(result.plan.peers) * result.duration_s)
    assert hfu / mfu == pytest.approx((8 * 3 + 6) / (6 * 4), rel=0.01)
    assert hfu <= 1.0


def test_best_window_finds_the_densest_stretch() -> None:
    times = np.array([0.0, 10.0, 20.0, 21.0, 22.0, 23.0, 60.0])
    best = metrics.best_window(times, 4.0, 0.0, 100.0)
    assert (best.start_s, best.per_s, best.window_s) == (20.0, 1.0, 4.0)


def test_best_window_of_a_short_run_is_the_run() -> None:
    best = metrics.best_window(np.array([1.0, 2.0, 3.0]), 100.0, 0.0, 10.0)
    assert (best.start_s, best.per_s, best.window_s) == (0.0, 0.3, 10.0)


def test_the_peak_counts_seconds_of_training_only(quiet: Make) -> None:
    merge = {"every": 100.0, "compute": 25.0}
    result = simulate(quiet, merge=merge, run={"duration": 1000.0, "peak_window": 500.0})
    rates = metrics.rates(result)
    assert rates.peak.per_s == pytest.approx(rates.in_phase, rel=0.02)
    assert rates.peak_with_merges.per_s == pytest.approx(0.8 * rates.in_phase, rel=0.05)
    assert rates.wall_clock < rates.with_merges < rates.in_phase <= rates.peak.per_s
