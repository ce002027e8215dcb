"""Transports: through the store, with a time limit, few at once; nothing is lost and bytes add up."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orionbed import waterfall
from orionbed.plan import make_plan
from orionbed.results import RunResult
from orionbed.scenario import Scenario
from sim.backend import _result, _Run, run

Make = Callable[..., Scenario]
QUEUE: dict[str, Any] = {
    "kind": "queue", "window": 6, "router": "swarm", "recompute": "none", "status_every": 0.5,
    "poll_loop": 0.0, "poll_empty": 0.0, "poll_full": 0.0, "connect_timeout": 0.5, "cache_ttl": 5.0,
}  # fmt: skip
STORE: dict[str, Any] = {"via": "object-storage", "store": {"request": 0.05, "poll_every": 0.51}}
CHURN: dict[str, Any] = {
    "up": {"dist": "weibull", "shape": 0.7, "scale": 40.0},
    "down": {"dist": "exponential", "mean": 15.0},
}


def check(result: RunResult) -> None:
    """Nothing is lost."""
    ledger = result.ledger
    ledger.check()
    assert len(result.applied_s) == ledger.applied
    assert result.other_s.min() > -1e-9
    seconds = waterfall.gpu_seconds(result)
    assert seconds.sum(axis=1) == pytest.approx(np.full(len(result.plan.peers), result.duration_s), rel=1e-9)


def test_through_the_store_a_tensor_takes_two_requests_a_poll_and_both_ways(quiet: Make) -> None:
    # One micro-batch at a time through two stages: each round trip is two tensors.
    schedule = QUEUE | STORE | {"window": 1}
    scenario = quiet(
        pipeline__schedule=schedule, network__uplink=80e6, network__downlink=160e6, run={"duration": 600.0}
    )
    plan = make_plan(scenario)
    result = run(plan)
    compute_s = sum(cost.duration_s for stage in plan.stages for kind, cost in stage.costs.items() if kind != "STEP")
    moving_s = plan.boundary_bytes / 10e6 + plan.boundary_bytes / 20e6
    fixed_s = 2 * (0.1 + moving_s) + compute_s
    gaps_s = np.diff(result.applied_s)
    steps_s = plan.stages[0].costs["STEP"].duration_s + plan.stages[1].costs["STEP"].duration_s
    assert gaps_s.min() >= fixed_s - 1e-9
    assert gaps_s.max() <= fixed_s + 2 * 0.51 + steps_s + 1e-9
    # Every tensor goes up once and down once; the last may be under way.
    block = result.orchestrator
    assert block["store_bytes_up"] == pytest.approx(result.bytes_boundary, abs=plan.boundary_bytes)
    assert block["store_bytes_down"] == pytest.approx(result.bytes_boundary, abs=plan.boundary_bytes)
    assert result.bytes_up.sum() == pytest.approx(block["store_bytes_up"], rel=1e-12)
    assert result.bytes_merge_up == pytest.approx(0.0, abs=1e-6)
    assert block["store_requests"] == pytest.approx(2 * result.bytes_boundary / plan.boundary_bytes, abs=2)


def test_the_store_is_slower_than_pushing(quiet: Make) -> None:
    shape: dict[str, Any] = {"stages": 3, "replicas": 2, "peers__overhead": 0.3, "run": {"duration": 300.0}}
    pushed = run(make_plan(quiet(**shape, pipeline__schedule=QUEUE)))
    stored = run(make_plan(quiet(**shape, pipeline__schedule=QUEUE | STORE)))
    check(stored)
    assert pushed.orchestrator == {}
    assert stored.ledger.applied < pushed.ledger.applied


def test_a_push_that_takes_too_long_is_tried_again_and_given_up(quiet: Make) -> None:
    retry = {"push_timeout": 2.0, "backoff": 0.25, "backward": True}
    schedule = QUEUE | {"retry": retry, "attempts": 3}
    # A tensor of a quarter of a megabyte and more needs ten seconds.
    scenario = quiet(pipeline__schedule=schedule, network__uplink=2e5, run={"duration": 120.0})
    result = run(make_plan(scenario))
    check(result)
    assert result.ledger.applied == 0
    assert result.ledger.dropped_by_reason["no peer to send to"] > 0
    assert result.orchestrator["push_timeouts"] >= 3 * result.ledger.dropped_by_reason["no peer to send to"]


def test_a_push_within_its_time_is_as_without_a_limit(quiet: Make) -> None:
    shape: dict[str, Any] = {"stages": 3, "replicas": 2, "peers__overhead": 0.3, "run": {"duration": 100.0}}
    free = run(make_plan(quiet(**shape, pipeline__schedule=QUEUE)))
    limited = run(make_plan(quiet(**shape, pipeline__schedule=QUEUE | {"retry": {"push_timeout": 60.0}})))
    assert limited.applied_s.tobytes() == free.applied_s.tobytes()
    assert limited.orchestrator["push_timeouts"] == 0


def test_never_more_than_so_many_sends_at_once(quiet: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    schedule = QUEUE | {"retry": {"concurrent": 2}, "window": 12}
    scenario = quiet(stages=3, replicas=2, pipeline__schedule=schedule, network__uplink=4e6, run={"duration": 120.0})
    the_run = _Run(make_plan(scenario), 0)
    network, under_way, most = the_run.network, [0] * 6, [0]
    send = network.send

    def watched(source: int, target: int, size: float, deliver: Any, arg: Any = None) -> Any:
        def delivered(what: Any) -> None:
            under_way[source] -= 1
            deliver(what)

        if not isinstance(arg, tuple):
            return send(source, target, size, deliver, arg)
        under_way[source] += 1
        most[0] = max(most[0], under_way[source])
        return send(source, target, size, delivered, arg)

    monkeypatch.setattr(network, "send", watched)
    the_run.go(None, None)
    assert most[0] == 2
    assert _result(the_run, 0.0).orchestrator["most_sends_waiting"] > 0


def test_tries_are_apart_by_the_time_out_and_the_growing_pause(quiet: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    schedule = QUEUE | {"window": 1, "retry": {"backoff": 0.25}, "cache_ttl": 1e6}
    the_run = _Run(make_plan(quiet(pipeline__schedule=schedule, run={"duration": 60.0})), 0)
    engine, missed_s = the_run.engine, []
    monkeypatch.setattr(engine.status, "missed", lambda _: missed_s.append(the_run.clock.now))
    the_run.clock.call_at(5.0, lambda _: engine.ending.crash(engine.peers[1]))
    the_run.go(None, None)
    # Five tries: a time-out after each, and before all but the first a pause.
    assert np.diff(missed_s[-4:]) == pytest.approx([0.5 + 0.5, 0.5 + 1.0, 0.5 + 2.0])
    assert engine.ledger.dropped_by_reason["no peer to send to"] == 1


RETRY = st.fixed_dictionaries(
    {},
    optional={
        "push_timeout": st.sampled_from([0.2, 1.0, 30.0]), "backoff": st.sampled_from([0.25, 3.0]),
        "backward": st.booleans(), "concurrent": st.integers(1, 3), "drop_after": st.sampled_from([2.0, 30.0]),
    },
)  # fmt: skip


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    retry=RETRY, stored=st.booleans(), stages=st.integers(2, 3), replicas=st.integers(1, 3), seed=st.integers(0, 99),
    bridge=st.booleans(), merges=st.booleans(),
)  # fmt: skip
def test_whatever_fails_nothing_is_lost_and_all_is_repeated(
    quiet: Make, retry: dict[str, Any], stored: bool, stages: int, replicas: int, seed: int, bridge: bool, merges: bool
) -> None:
    schedule = QUEUE | (STORE if stored else {}) | {"retry": retry}
    if bridge:
        schedule |= {"knowledge": {"evict_after": 20.0}}
    plan = make_plan(
        quiet(
            stages=stages, replicas=replicas, pipeline__schedule=schedule, peers__overhead=0.3, churn=CHURN,
            merge={"every": 25.0, "compute": 0.5, "quorum_every": 0.3} if merges else "none",
            network__delay=0.02, network__uplink=2e7, run={"duration": 100.0, "trace": "full", "seed": seed},
        )
    )  # fmt: skip
    first, second = run(plan), run(plan)
    check(first)
    assert first.trace is not None
    assert first.trace.problems() == []
    assert first.applied_s.tobytes() == second.applied_s.tobytes()
    assert first.events == second.events
    assert first.bytes_merge_up >= -1e-6
