"""Runs without a peer, and what a peer is worth: closed forms, conservation, and that nobody else's draws move."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from orionbed import waterfall
from orionbed.peer_value import Group, Measured, Value, groups_of, measure, plain, plan_of, values
from orionbed.plan import Plan, make_plan
from orionbed.runs import RunError
from orionbed.scenario import apply, load
from orionbed.tracing import CAUSES
from sim.backend import run

SECONDS = {"F": 1.0, "B": 2.0}


@pytest.fixture(name="pipeline")
def _pipeline(quiet, simple):
    """A queue-driven plan of which every stage takes 1 s forward and 2 s backward, whatever it costs in dollars."""

    def make(stages: int, replicas: int, speeds: dict[int, float] | None = None, **changes: Any) -> Plan:
        given = {"run__duration": 600.0, "cost": {"gpu_hour": 2.0, "egress_per_gb": 0.0}, **changes}
        plan = simple(quiet(stages, replicas, **given), SECONDS, fused=True)
        peers = [replace(peer, speed=(speeds or {}).get(peer.index, 1.0)) for peer in plan.peers]
        return replace(plan, peers=tuple(peers))

    return make


def of(plan: Plan, name: str, seeds: int = 2) -> Value:
    (value,) = values(plan, groups_of(plan, "peer", [name]), range(seeds), jobs=1)
    return value


def test_one_of_two_equal_peers_is_worth_half(pipeline) -> None:
    """One stage of two peers, 3 s a micro-batch each: 2/3 per s together, 1/3 without one of them."""
    plan = pipeline(1, 2)
    value = of(plan, "s00r1")
    one = plan.tokens_per_microbatch / 3.0
    assert value.with_it[0].tokens_per_s == pytest.approx(2 * one, rel=0.01)
    assert value.without_it[0].tokens_per_s == pytest.approx(one, rel=0.01)
    assert value.tokens_per_s.mean == pytest.approx(value.with_it[0].tokens_per_s / 2, rel=1e-9)
    assert value.verdict == "makes the run faster"


def test_its_price_is_what_it_may_cost(pipeline) -> None:
    """Two equal peers: a token costs the same with and without one of them, at exactly the price of the other."""
    value = of(pipeline(1, 2), "s00r1")
    assert value.usd_per_hour == 2.0
    assert value.break_even_usd_per_hour == pytest.approx(2.0)
    assert value.usd_per_million_tokens is not None
    assert value.usd_per_million_tokens.mean == pytest.approx(0.0, abs=1e-9)
    tokens_m = value.without_it[0].tokens_per_s * 3600.0 / 1e6
    assert value.without_it[0].usd_per_million_tokens == pytest.approx(2.0 / tokens_m)


def test_prices_with_traffic() -> None:
    """With it: 3 $/h of GPUs, 1 of traffic, 2 M tokens/h; without: 2 $/h and 0.4, 1 M tokens/h."""
    per_s = 1e6 / 3600.0
    value = Value(Group("x", frozenset({0})), (Measured(2 * per_s, 3.0, 1.0),), (Measured(per_s, 2.0, 0.4),))
    assert value.usd_per_hour == 1.0
    # (3 - 1 + 1 + p) / 2 = 2.4 / 1
    assert value.break_even_usd_per_hour == pytest.approx(1.8)
    change = value.usd_per_million_tokens
    assert change is not None
    assert change.mean == pytest.approx(2.0 - 2.4)


def test_a_very_slow_peer_makes_the_run_slower(pipeline) -> None:
    """A random router sends it half of all, and the windows fill with what waits for it."""
    value = of(pipeline(2, 2, {3: 0.02}, pipeline__schedule__router="random"), "s01r1", seeds=3)
    assert value.tokens_per_s.mean < 0.0
    assert value.verdict == "makes the run slower"
    assert value.break_even_usd_per_hour is not None
    assert value.break_even_usd_per_hour < 0.0, "not even for nothing"


def test_nothing_is_trained_without_the_only_peer_of_a_stage(pipeline) -> None:
    value = of(pipeline(2, 1), "s01r0")
    assert value.verdict == "nothing is trained without it"
    assert value.break_even_usd_per_hour is None
    assert value.usd_per_million_tokens is None
    (row,) = plain([value])
    assert row["usd_per_million_tokens"]["without"] == [None, None]


def test_the_same_again(pipeline) -> None:
    plan = pipeline(2, 3, {4: 0.3}, pipeline__schedule__router="random")
    assert measure(plan, 5, frozenset({2})) == measure(plan, 5, frozenset({2}))
    assert measure(plan, 5, frozenset({2})) != measure(plan, 6, frozenset({2}))


def test_groups_are_peers_replicas_or_sites() -> None:
    plan = plan_of(load("minimal"), 60.0)
    assert [group.name for group in groups_of(plan, "replica")] == ["0", "1"]
    assert {name: len(members) for name, members in ((g.name, g.peers) for g in groups_of(plan, "site"))} == {
        "virginia": 4, "oregon": 4,
    }  # fmt: skip
    assert len(groups_of(plan, "peer")) == 8
    with pytest.raises(RunError, match="no site is called ohio"):
        groups_of(plan, "site", ["ohio"])


def test_a_fixed_batch_is_refused() -> None:
    fixed = {"pipeline.schedule": {"kind": "1f1b", "microbatches": 4}, "merge": "none"}
    with pytest.raises(RunError, match="a replica that lacks one peer does nothing"):
        plan_of(apply(load("minimal"), fixed), 60.0)


@pytest.fixture(scope="module", name="lively")
def _lively() -> Plan:
    """Merges, and departures every few minutes."""
    changes = {
        "run.duration": 3000.0, "run.trace": "summary", "merge.every": 600.0, "merge.compute": 1.0,
        "churn": {"up": {"dist": "exponential", "mean": 600.0}, "down": 60.0},
    }  # fmt: skip
    return make_plan(apply(load("minimal"), changes))


def test_an_absent_peer_does_nothing_and_every_second_is_accounted_for(lively: Plan) -> None:
    result = run(lively, seed=1, without=frozenset({3}))
    seconds = waterfall.gpu_seconds(result)
    down = CAUSES.index("down")
    assert seconds[3, down] == pytest.approx(result.duration_s)
    assert np.delete(seconds[3], down).sum() == 0.0
    assert result.bytes_up[3] == result.bytes_down[3] == 0.0
    assert all(work[3] == 0.0 for work in result.work_s.values())
    assert result.ledger.applied > 0
    assert sum(mark.kind == "merge" for mark in result.marks) >= 3
    assert not any(mark.peer == 3 for mark in result.marks)


def test_what_is_drawn_for_the_others_stays(lively: Plan) -> None:
    """Departures are at the same times, but for those of the absent peer."""
    left = [
        {(mark.start_s, mark.peer) for mark in run(lively, seed=1, fetches=False, without=without).marks
         if mark.kind == "down" and mark.peer != 3}
        for without in (frozenset(), frozenset({3}))
    ]  # fmt: skip
    assert left[0] == left[1]
    assert len(left[0]) > 10
