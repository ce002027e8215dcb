"""Peers that move between stages: when, what they take with them, and what it does to throughput."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orionbed import tracing, waterfall
from orionbed.plan import Plan, make_plan
from orionbed.results import RunResult
from orionbed.scenario import Scenario
from sim.backend import _result, _Run, run

Make = Callable[..., Scenario]
QUEUE: dict[str, Any] = {
    "kind": "queue", "window": 8, "router": "swarm", "recompute": "none", "status_every": 0.5,
    "poll_loop": 0.0, "poll_empty": 0.0, "poll_full": 0.0, "connect_timeout": 0.5, "cache_ttl": 5.0,
}  # fmt: skip
# An operation takes half a second at every stage.
SLOW: dict[str, Any] = {"peers__overhead": 0.5, "pipeline__schedule": QUEUE}


class Story:
    """A run in which peers leave and come back when the story says so."""

    def __init__(self, plan: Plan) -> None:
        self.run = _Run(plan, plan.scenario.run.seed)
        self.engine = self.run.engine

    def at(self, time_s: float, do: Callable[[], object]) -> None:
        self.run.clock.call_at(time_s, lambda _: do())

    def leave(self, index: int) -> None:
        self.engine.ending.crash(self.engine.peers[index])

    def come_back(self, index: int) -> None:
        peer = self.engine.peers[index]
        peer.charge(tracing.CAUSE_DOWN, self.engine.clock.now)
        peer.status = "benched"
        self.run.rebalancing.come_back(peer)

    def counts(self) -> list[int]:
        """Peers in training, by stage."""
        return [
            sum(peer.stage == stage and peer.status == "training" for peer in self.engine.peers)
            for stage in range(self.engine.plan.num_stages)
        ]

    def finish(self) -> RunResult:
        self.run.go(None, None)
        result = _result(self.run, 0.0)
        check(result)
        return result


def check(result: RunResult) -> None:
    """Nothing is lost."""
    ledger = result.ledger
    ledger.check()
    assert ledger.created == ledger.applied + ledger.dropped + ledger.rejected + ledger.in_flight
    assert len(result.applied_s) == ledger.applied
    assert result.other_s.min() > -1e-9
    seconds = waterfall.gpu_seconds(result)
    assert seconds.sum(axis=1) == pytest.approx(np.full(len(result.plan.peers), result.duration_s), rel=1e-9)


def rate(result: RunResult, from_s: float, to_s: float) -> float:
    return float(np.sum((result.applied_s > from_s) & (result.applied_s <= to_s))) / (to_s - from_s)


def test_where_counts_are_equal_nothing_moves_and_nothing_differs(quiet: Make) -> None:
    shape: dict[str, Any] = {"stages": 3, "replicas": 3, "run": {"duration": 200.0}, **SLOW}
    without = run(make_plan(quiet(**shape)))
    moving = run(make_plan(quiet(**shape, peers__rebalance_every=10.0, peers__rejoin="poorest")))
    assert moving.num_moves == 0
    assert moving.applied_s.tobytes() == without.applied_s.tobytes()
    assert moving.other_s.tobytes() == without.other_s.tobytes()
    assert moving.bytes_up.tobytes() == without.bytes_up.tobytes()


@pytest.mark.parametrize("poor", [0, 1, 2])
def test_a_stage_that_has_lost_its_peers_gets_others_and_throughput_recovers(quiet: Make, poor: int) -> None:
    shape: dict[str, Any] = {"stages": 3, "replicas": 3, "run": {"duration": 400.0}, **SLOW}

    def story(**changes: Any) -> tuple[Story, RunResult]:
        told = Story(make_plan(quiet(**shape, **changes)))
        for index in range(3 * poor, 3 * poor + 3):
            told.at(100.0, partial(told.leave, index))
        return told, told.finish()

    left, left_result = story()
    assert left.counts() == [0 if stage == poor else 3 for stage in range(3)]
    assert rate(left_result, 120.0, 400.0) == 0.0
    moved, moved_result = story(peers__rebalance_every=20.0)
    assert moved.counts() == [2, 2, 2]
    assert moved_result.num_moves == 2
    # Two thirds of the peers that there were, once the slots of what was lost have expired.
    assert rate(moved_result, 200.0, 400.0) > 0.6 * rate(moved_result, 20.0, 100.0)


def test_the_peer_that_moves_fetches_the_weights_of_its_new_stage(quiet: Make) -> None:
    shape: dict[str, Any] = {"stages": 2, "replicas": 3, "run": {"duration": 60.0}, **SLOW}
    told = Story(make_plan(quiet(**shape, peers__rebalance_every=20.0, network__downlink=1e8)))
    told.at(21.0, lambda: told.leave(3))
    told.at(22.0, lambda: told.leave(4))
    plan = told.engine.plan
    result = told.finish()
    assert told.counts() == [2, 2]
    mover = told.engine.peers[2]
    assert (mover.stage, mover.index) == (1, 2)
    to_start = sum(plan.stages[peer.stage].weight_bytes for peer in plan.peers)
    assert result.bytes_storage_read == to_start + plan.stages[1].weight_bytes
    seconds = waterfall.gpu_seconds(result)
    fetch_s = seconds[2, tracing.CAUSE_BENCHED]
    assert fetch_s == pytest.approx(plan.stages[1].weight_bytes / (1e8 / 8.0), rel=1e-9)
    assert seconds[:, tracing.CAUSE_BENCHED].sum() == fetch_s


@pytest.mark.parametrize("router", ["replica", "random", "swarm", "shortest-queue", "fastest"])
def test_nobody_sends_to_the_place_that_a_peer_has_left(
    quiet: Make, monkeypatch: pytest.MonkeyPatch, router: str
) -> None:
    shape: dict[str, Any] = {"stages": 3, "replicas": 3, "run": {"duration": 300.0}, "peers__overhead": 0.5}
    schedule = QUEUE | {"router": router}
    told = Story(make_plan(quiet(**shape, pipeline__schedule=schedule, peers__rebalance_every=10.0)))
    engine = told.engine
    sent_to: list[tuple[int, int, int]] = []
    send = engine.network.send

    def watched(source: int, target: int, size: float, deliver: Any, arg: Any = None) -> Any:
        if deliver == engine.arrive and arg[0] == "F":
            sent_to.append((engine.peers[source].stage, engine.peers[target].stage, target))
        return send(source, target, size, deliver, arg)

    monkeypatch.setattr(engine.network, "send", watched)
    # The last stage runs short, then the first, then the middle one.
    for time_s, away in ((50.0, (6, 7)), (120.0, (0, 1)), (200.0, (3, 4))):
        for index in away:
            told.at(time_s, partial(told.leave, index))
            told.at(time_s + 40.0, partial(told.come_back, index))
    result = told.finish()
    assert result.num_moves >= 3
    assert all(there == here + 1 for here, there, _ in sent_to)
    for stage, view in enumerate(engine.status.views):
        known = [peer for peer, fresh in zip(view.peers, view.fresh, strict=True) if fresh]
        assert len(known) == len(set(known))
        assert {engine.peers[peer].stage for peer in known} == {stage}
    # Who moved works at its new place.
    moved = [peer.index for peer in engine.peers if peer.stage != peer.plan.stage]
    assert set(moved) <= {target for _, _, target in sent_to} | {p.index for p in engine.peers if p.stage == 0}


def test_a_peer_comes_back_to_the_poorest_stage_if_told_to(quiet: Make) -> None:
    shape: dict[str, Any] = {"stages": 3, "replicas": 3, "run": {"duration": 100.0}, **SLOW}
    told = Story(make_plan(quiet(**shape, peers__rejoin="poorest")))
    for index in (0, 6, 7):
        told.at(20.0, partial(told.leave, index))
    told.at(40.0, lambda: told.come_back(0))
    result = told.finish()
    assert told.engine.peers[0].stage == 2
    assert told.counts() == [2, 3, 2]
    assert rate(result, 50.0, 100.0) > 0.0


def test_its_own_stage_is_preferred_where_others_are_as_poor(quiet: Make) -> None:
    shape: dict[str, Any] = {"stages": 3, "replicas": 3, "run": {"duration": 60.0}, **SLOW}
    told = Story(make_plan(quiet(**shape, peers__rejoin="poorest")))
    for index in (0, 3, 6):
        told.at(20.0, partial(told.leave, index))
    told.at(40.0, lambda: told.come_back(6))
    told.finish()
    assert told.engine.peers[6].stage == 2


def test_a_peer_that_comes_back_to_a_random_stage_gets_round(quiet: Make) -> None:
    shape: dict[str, Any] = {"stages": 4, "replicas": 2, "run": {"duration": 300.0}, **SLOW}
    told = Story(make_plan(quiet(**shape, peers__rejoin="random")))
    seen: set[int] = set()
    for number in range(25):
        told.at(10.0 + 10.0 * number, lambda: told.leave(0))
        told.at(15.0 + 10.0 * number, lambda: told.come_back(0))
        told.at(16.0 + 10.0 * number, lambda: seen.add(told.engine.peers[0].stage))
    told.finish()
    assert seen == {0, 1, 2, 3}


def test_with_merges_a_peer_that_moves_waits_for_the_next_epoch(quiet: Make) -> None:
    shape: dict[str, Any] = {"stages": 2, "replicas": 3, "run": {"duration": 200.0}, **SLOW}
    merge = {"every": 100.0, "compute": 0.1}
    told = Story(make_plan(quiet(**shape, merge=merge, peers__rebalance_every=20.0)))
    told.at(30.0, lambda: told.leave(3))
    told.at(30.0, lambda: told.leave(4))
    told.at(99.0, lambda: seen.append(told.counts()))
    seen: list[list[int]] = []
    result = told.finish()
    assert seen == [[2, 1]]
    assert told.counts() == [2, 2]
    benched = waterfall.gpu_seconds(result)[2, tracing.CAUSE_BENCHED]
    assert benched == pytest.approx(60.0, abs=1.0)


def test_no_more_of_the_entrance_is_shut_than_all_of_it(quiet: Make) -> None:
    # Four peers of two replicas come to stand at the first stage, all shut by a window of one.
    shape: dict[str, Any] = {"stages": 3, "replicas": 2, "run": {"duration": 200.0}, "peers__overhead": 0.5}
    told = Story(make_plan(quiet(**shape, pipeline__schedule=QUEUE | {"window": 1}, network__delay=0.2)))
    for index in (2, 4):
        told.at(20.0, partial(told.run.rebalancing._move, told.engine.peers[index], 0))
    result = told.finish()
    assert told.counts() == [4, 1, 1]
    assert result.other_s[:, tracing.CAUSE_UPSTREAM].min() >= -1e-9
    assert rate(result, 50.0, 200.0) > 0.0


CHURN: dict[str, Any] = {
    "up": {"dist": "weibull", "shape": 0.7, "scale": 40.0},
    "down": {"dist": "exponential", "mean": 15.0},
}
MERGES = st.sampled_from(["none", {"every": 25.0, "compute": 0.5, "quorum_every": 0.3}])


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    stages=st.integers(1, 4), replicas=st.integers(1, 4), rejoin=st.sampled_from(["own", "random", "poorest"]),
    every_s=st.sampled_from([None, 1.0, 10.0]), merge=MERGES, seed=st.integers(0, 99),
    router=st.sampled_from(["replica", "swarm", "fastest"]),
)  # fmt: skip
def test_whoever_moves_wherever_nothing_is_lost_and_all_is_repeated(
    quiet: Make, stages: int, replicas: int, rejoin: str, every_s: float | None, merge: Any, seed: int, router: str
) -> None:
    scenario = quiet(
        stages=stages, replicas=replicas, pipeline__schedule=QUEUE | {"router": router}, peers__overhead=0.3,
        peers__rejoin=rejoin, peers__rebalance_every=every_s, churn=CHURN, merge=merge, network__delay=0.02,
        network__uplink=1e9, run={"duration": 120.0, "trace": "full", "seed": seed},
    )  # fmt: skip
    plan = make_plan(scenario)
    first, second = run(plan), run(plan)
    check(first)
    assert first.trace is not None
    assert first.trace.problems() == []
    assert first.applied_s.tobytes() == second.applied_s.tobytes()
    assert first.other_s.tobytes() == second.other_s.tobytes()
    assert (first.num_moves, first.events) == (second.num_moves, second.events)


def test_a_peer_of_the_last_of_two_stages_may_move_to_the_first(quiet: Make) -> None:
    shape: dict[str, Any] = {"stages": 2, "replicas": 3, "run": {"duration": 100.0}, **SLOW}
    told = Story(make_plan(quiet(**shape, peers__rebalance_every=10.0)))
    for index in (0, 1):
        told.at(20.0, partial(told.leave, index))
    result = told.finish()
    assert result.num_moves == 1
