"""Whatever happens to a run, nothing is lost: micro-batches, GPU-seconds, bytes."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orionbed import metrics, waterfall
from orionbed.ledger import Ledger, LedgerError
from orionbed.plan import make_plan
from orionbed.results import RunResult
from orionbed.scenario import Scenario
from sim.backend import run

Make = Callable[..., Scenario]

QUEUE = st.fixed_dictionaries(
    {
        "kind": st.just("queue"),
        "window": st.one_of(st.integers(1, 9), st.just("auto")),
        "router": st.sampled_from(["replica", "random", "swarm", "shortest-queue", "fastest"]),
        "status_every": st.sampled_from([0.05, 1.0]),
        "local_step_every": st.integers(1, 5),
        "recompute": st.sampled_from(["full", "selective", "none"]),
        "cache_ttl": st.sampled_from([0.5, 20.0]),
        "connect_timeout": st.sampled_from([0.1, 1.0]),
        "attempts": st.integers(1, 4),
        "poll_loop": st.sampled_from([0.0, 0.002]),
        "poll_empty": st.sampled_from([0.0, 0.02]),
        "poll_full": st.sampled_from([0.0, 0.1]),
    }
)
STATIC = st.fixed_dictionaries(
    {"kind": st.sampled_from(["gpipe", "1f1b"]), "microbatches": st.integers(1, 6), "recompute": st.just("full")}
)
SCENARIOS = st.fixed_dictionaries(
    {
        "stages": st.integers(1, 4),
        "replicas": st.integers(1, 3),
        "pipeline__schedule": st.one_of(QUEUE, STATIC),
        "pipeline__boundary": st.sampled_from([{"kind": "none"}, {"kind": "resbm", "width": 16}]),
        "peers__speed": st.sampled_from([1.0, {"dist": "lognormal", "median": 1.0, "sigma": 0.3}]),
        "peers__overhead": st.sampled_from([0.05, 0.3]),
        "peers__jitter": st.sampled_from([0.0, 0.1]),
        "network__uplink": st.sampled_from([2e7, 1e9]),
        "network__delay": st.sampled_from([0.0, 0.05]),
        "network__variability": st.sampled_from(["constant", "bad"]),
        "merge": st.one_of(
            st.just("none"),
            st.fixed_dictionaries(
                {"every": st.sampled_from([3.0, 15.0]), "compute": st.just(0.5), "quorum_every": st.just(0.3)}
            ),
        ),
        "churn": st.one_of(
            st.just("none"),
            st.fixed_dictionaries(
                {
                    "up": st.just({"dist": "weibull", "shape": 0.7, "scale": 20.0}),
                    "down": st.just({"dist": "exponential", "mean": 4.0}),
                }
            ),
            st.fixed_dictionaries(
                {
                    "bulk": st.just({"of": "replica", "rate_per_hour": 300.0, "mean_size": 2.0, "down": 3.0}),
                    "windows": st.just([{"at": 0.0, "for": 2.0, "every": 9.0, "stagger": 1.0}]),
                }
            ),
        ),
        "run": st.fixed_dictionaries(
            {"duration": st.sampled_from([20.0, 45.0]), "trace": st.just("full"), "seed": st.integers(0, 99)}
        ),
    }
)


def simulate(quiet: Make, changes: dict[str, Any]) -> RunResult:
    return run(make_plan(quiet(**changes)))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(changes=SCENARIOS)
def test_micro_batches_gpu_seconds_and_bytes_are_conserved(quiet: Make, changes: dict[str, Any]) -> None:
    result = simulate(quiet, changes)

    ledger = result.ledger
    assert ledger.created == ledger.applied + ledger.dropped + ledger.rejected + ledger.in_flight
    assert len(result.applied_s) == ledger.applied
    assert np.all(np.diff(result.applied_s) >= 0.0)
    assert sum(e.applied for e in result.epochs) == ledger.applied

    seconds = waterfall.gpu_seconds(result)
    assert seconds.sum(axis=1) == pytest.approx(np.full(len(result.plan.peers), result.duration_s), rel=1e-9)
    assert seconds.min() > -1e-9
    fractions = [row["fraction"] for row in waterfall.waterfall(seconds)]
    assert sum(map(float, fractions)) == pytest.approx(1.0, abs=1e-9)
    mfu = metrics.rates(result).wall_clock * metrics.mfu_per_rate(result)
    assert fractions[0] == pytest.approx(mfu, rel=1e-9, abs=1e-12)

    assert result.bytes_up.sum() + result.bytes_storage_read >= 0.0
    assert result.trace is not None
    assert result.trace.problems() == []


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(changes=SCENARIOS)
def test_epochs_cover_the_run_without_gap_or_overlap(quiet: Make, changes: dict[str, Any]) -> None:
    result = simulate(quiet, changes)
    at_s = result.startup_s
    for index, epoch in enumerate(result.epochs):
        assert epoch.index == index
        assert epoch.start_s == pytest.approx(at_s)
        assert epoch.start_s <= epoch.training_end_s <= epoch.end_s
        at_s = epoch.end_s
    assert at_s == pytest.approx(result.duration_s)
    assert result.training_s + result.merging_s + result.startup_s == pytest.approx(result.duration_s)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(changes=SCENARIOS)
def test_the_same_seed_gives_the_same_run_to_the_bit(quiet: Make, changes: dict[str, Any]) -> None:
    first, second = simulate(quiet, changes), simulate(quiet, changes)
    assert first.applied_s.tobytes() == second.applied_s.tobytes()
    assert first.other_s.tobytes() == second.other_s.tobytes()
    assert first.bytes_up.tobytes() == second.bytes_up.tobytes()
    assert first.ledger.counts() == second.ledger.counts()
    assert first.events == second.events


def used(ledger: Ledger, stages: int) -> int:
    microbatch = ledger.create()
    ledger.open[microbatch].used = (1 << stages) - 1
    return microbatch


def test_the_ledger_catches_what_must_not_happen() -> None:
    ledger = Ledger(num_stages=3)
    ledger.apply(used(ledger, 3))
    ledger.check()
    with pytest.raises(LedgerError, match="twice"):
        ledger.apply(0)
    with pytest.raises(LedgerError, match="2 of 3 stages"):
        ledger.apply(used(ledger, 2))
    with pytest.raises(LedgerError, match="4 of 3 stages"):
        ledger.apply(used(ledger, 4))


def test_the_ledger_notices_a_micro_batch_that_vanished() -> None:
    ledger = Ledger(num_stages=1)
    del ledger.open[ledger.create()]
    with pytest.raises(LedgerError, match="1 micro-batches were created"):
        ledger.check()


def test_dropping_twice_counts_once_and_partial_use_is_told() -> None:
    ledger = Ledger(num_stages=2)
    microbatch = used(ledger, 1)
    assert ledger.drop(microbatch, "peer lost") is not None
    assert ledger.drop(microbatch, "peer lost") is None
    assert (ledger.dropped, ledger.partially_applied, ledger.in_flight) == (1, 1, 0)
    assert ledger.counts()["dropped_by_reason"] == {"peer lost": 1}
