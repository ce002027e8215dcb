"""The orchestrator: registration, assignment, epochs, warm-up, back-off and kicks."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orionbed import metrics, waterfall
from orionbed.plan import make_plan
from orionbed.results import RunResult
from orionbed.scenario import Scenario
from orionbed.tracing import CAUSE_BENCHED, CAUSE_DOWN, CAUSE_STARTUP
from sim.backend import _result, _Run, run

Make = Callable[..., Scenario]
QUEUE: dict[str, Any] = {
    "kind": "queue", "window": 6, "router": "swarm", "recompute": "none", "status_every": 0.5,
    "poll_loop": 0.0, "poll_empty": 0.0, "poll_full": 0.0, "connect_timeout": 0.5, "cache_ttl": 5.0,
}  # fmt: skip
MERGE: dict[str, Any] = {"every": 60.0, "compute": 0.1}
PLAIN: dict[str, Any] = {"speed_test": 0.0, "request": 0.0, "warm_up": 0}
SHAPE: dict[str, Any] = {
    "stages": 3,
    "replicas": 3,
    "peers__overhead": 0.5,
    "pipeline__schedule": QUEUE,
    "merge": MERGE,
}
CHURN: dict[str, Any] = {
    "up": {"dist": "weibull", "shape": 0.7, "scale": 60.0},
    "down": {"dist": "exponential", "mean": 15.0},
}


class Story:
    """A run in which peers leave and come back when the story says so."""

    def __init__(self, scenario: Scenario) -> None:
        self.run = _Run(make_plan(scenario), scenario.run.seed)
        self.engine = self.run.engine
        assert self.run.orchestrator is not None
        self.orchestrator = self.run.orchestrator

    def away(self, index: int, from_s: float, to_s: float) -> None:
        peer = self.engine.peers[index]

        def leave(_: object) -> None:
            if peer.status == "training":
                self.engine.ending.crash(peer)
            else:
                peer.charge_status(self.run.clock.now)
                peer.status = "down"

        def come_back(_: object) -> None:
            peer.charge_status(self.run.clock.now)
            peer.status = "benched"
            self.run.rebalancing.come_back(peer)

        self.run.clock.call_at(from_s, leave)
        self.run.clock.call_at(to_s, come_back)

    def finish(self) -> RunResult:
        self.run.go(None, None)
        result = _result(self.run, 0.0)
        check(result)
        return result


def check(result: RunResult) -> None:
    """Nothing is lost."""
    ledger = result.ledger
    ledger.check()
    assert len(result.applied_s) == ledger.applied
    assert result.other_s.min() > -1e-9
    seconds = waterfall.gpu_seconds(result)
    assert seconds.sum(axis=1) == pytest.approx(np.full(len(result.plan.peers), result.duration_s), rel=1e-9)


def test_an_orchestrator_that_asks_for_nothing_changes_nothing(quiet: Make) -> None:
    without = run(make_plan(quiet(**SHAPE, churn=CHURN, run={"duration": 400.0})))
    result = run(make_plan(quiet(**SHAPE, churn=CHURN, run={"duration": 400.0}, orchestrator=PLAIN)))
    check(result)
    assert result.applied_s.tobytes() == without.applied_s.tobytes()
    assert without.orchestrator == {}
    assert result.orchestrator["registrations"] >= 9


def test_registration_takes_its_request_and_its_bytes_at_the_links_rates(quiet: Make) -> None:
    links = {"network__uplink": 80e6, "network__downlink": 160e6}
    block = {"speed_test": 1e8, "request": 0.05}
    result = run(make_plan(quiet(**SHAPE, **links, orchestrator=block, run={"duration": 40.0})))
    check(result)
    plan = result.plan
    fetch_s = max(stage.weight_bytes for stage in plan.stages) / 20e6
    # 100 MB at 10 MB/s up and 20 MB/s down.
    assert result.startup_s == pytest.approx(0.05 + 10.0 + 5.0 + fetch_s, rel=1e-6)
    assert result.other_s[:, CAUSE_STARTUP] == pytest.approx(np.full(9, result.startup_s))
    assert (result.orchestrator["bytes_up"], result.orchestrator["bytes_down"]) == (9e8, 9e8)
    assert result.bytes_merge_up == pytest.approx(0.0, abs=1e-3)
    assert result.bytes_storage_read == pytest.approx(9e8 + 3 * sum(stage.weight_bytes for stage in plan.stages))


def test_a_peer_that_comes_back_registers_waits_for_the_epoch_and_warms_up(quiet: Make) -> None:
    block = {"speed_test": 0.0, "request": 2.0, "warm_up": 2}
    told = Story(quiet(**SHAPE, orchestrator=block, run={"duration": 400.0}))
    told.away(4, 70.0, 90.0)
    result = told.finish()
    assert result.orchestrator["registrations"] == 10
    # Away 20 s, registered after 2 s, benched from then to the second merge's end.
    second = result.epochs[1]
    seconds = waterfall.gpu_seconds(result)[4]
    assert seconds[CAUSE_DOWN] == pytest.approx(20.0)
    assert seconds[CAUSE_BENCHED] == pytest.approx(second.end_s - 90.0, abs=0.2)
    # What it did in the two epochs after that is discarded: no more, no less.
    others = result.num_done["B"][[3, 5]].mean()
    per_epoch = others / (len(result.epochs) - 1 + 40.0 / 60.0)
    assert result.orchestrator["updates_discarded"] == pytest.approx(2 * per_epoch, rel=0.25)


def test_without_warm_up_nothing_is_discarded(quiet: Make) -> None:
    told = Story(quiet(**SHAPE, orchestrator=PLAIN, run={"duration": 400.0}))
    told.away(4, 70.0, 90.0)
    assert told.finish().orchestrator["updates_discarded"] == 0


def test_a_shared_optimizer_state_is_moved_and_saves_the_warm_up(quiet: Make) -> None:
    block = {"speed_test": 0.0, "share_optimizer_state": True, "warm_up": 2}
    links = {"network__uplink": 80e6, "network__downlink": 160e6}
    told = Story(quiet(**SHAPE, **links, orchestrator=block, run={"duration": 400.0}))
    told.away(4, 70.0, 90.0)
    result = told.finish()
    state_bytes = 4.0 * result.plan.stages[1].parameters
    known = result.orchestrator
    assert known["optimizer_states_fetched"] == 1
    assert (known["bytes_up"], known["bytes_down"]) == (state_bytes, state_bytes)
    assert known["updates_discarded"] == 0
    second = result.epochs[1]
    benched_s = waterfall.gpu_seconds(result)[4, CAUSE_BENCHED]
    assert benched_s == pytest.approx(second.end_s - 90.0 + state_bytes * (1 / 10e6 + 1 / 20e6), abs=1.0)


def test_failed_registrations_wait_longer_and_longer(quiet: Make) -> None:
    block = PLAIN | {"failure": 0.5, "backoff_jitter": 0.0}
    result = run(make_plan(quiet(**SHAPE, orchestrator=block, run={"duration": 300.0, "seed": 3})))
    check(result)
    known = result.orchestrator
    assert known["failed_registrations"] > 0
    assert known["registrations"] == 9
    # Start-up ends with the last peer: its waits add up to 0, 0+5, 0+5+10 ... seconds.
    sums = [sum(5.0 * 2.0**n for n in range(k)) for k in range(9)]
    fetch_s = 1e-3
    assert any(abs(result.startup_s - total) < fetch_s + 0.01 for total in sums)
    assert known["backoff_s"] % 5.0 == pytest.approx(0.0)


def test_the_fastest_that_joins_goes_to_the_slowest_stage(quiet: Make) -> None:
    told = Story(quiet(**SHAPE, orchestrator=PLAIN | {"assign": "by-speed"}, run={"duration": 200.0}))
    # Stage 2 is left with one peer, stage 0 with two.
    for index, until_s in ((7, 500.0), (8, 40.0), (0, 41.0)):
        told.away(index, 20.0, until_s)
    told.finish()
    assert [told.engine.peers[index].stage for index in (0, 8)] == [0, 2]
    told = Story(quiet(**SHAPE, orchestrator=PLAIN | {"assign": "by-speed"}, run={"duration": 200.0}))
    for index, until_s in ((7, 500.0), (8, 500.0), (0, 41.0)):
        told.away(index, 20.0, until_s)
    result = told.finish()
    assert told.engine.peers[0].stage == 2
    assert result.orchestrator["assigned_elsewhere"] == 1


def test_the_poorest_stage_gets_who_comes_back(quiet: Make) -> None:
    told = Story(quiet(**SHAPE, orchestrator=PLAIN | {"assign": "poorest"}, run={"duration": 200.0}))
    for index, until_s in ((0, 40.0), (6, 500.0), (7, 500.0)):
        told.away(index, 20.0, until_s)
    told.finish()
    assert told.engine.peers[0].stage == 2


TRIGGER: dict[str, Any] = {"share": 0.8, "backwards": 10, "check_every": 1.0}


def test_training_ends_at_the_first_check_that_finds_enough(quiet: Make) -> None:
    scenario = quiet(**SHAPE, orchestrator=PLAIN | {"trigger": TRIGGER}, run={"duration": 300.0, "trace": "full"})
    result = run(make_plan(scenario))
    check(result)
    trace = result.trace
    assert trace is not None
    backs = (trace["kind"] == 1) & (trace["lane"] == 0)
    assert len(result.epochs) > 4
    for epoch in result.epochs[:-1]:

        def num_enough(by_s: float, from_s: float = epoch.start_s) -> int:
            done = backs & (trace["end_s"] <= by_s) & (trace["start_s"] >= from_s)
            return int((np.bincount(trace["peer"][done], minlength=9) >= 10).sum())

        length_s = epoch.training_end_s - epoch.start_s
        assert length_s == pytest.approx(round(length_s))
        assert num_enough(epoch.training_end_s) >= 0.8 * 9
        assert num_enough(epoch.training_end_s - 1.0) < 0.8 * 9


def test_a_trigger_that_is_never_met_times_out(quiet: Make) -> None:
    block = PLAIN | {"trigger": TRIGGER | {"backwards": 10**6}, "timeout": 47.0}
    result = run(make_plan(quiet(**SHAPE, orchestrator=block, run={"duration": 200.0})))
    assert {round(e.training_end_s - e.start_s, 6) for e in result.epochs[:-1]} == {47.0}
    assert result.orchestrator["training_timeouts"] == len(result.epochs) - 1
    assert any(w["code"] == "phase-timeout" for w in result.warnings)


def test_states_follow_one_another_without_a_gap(quiet: Make) -> None:
    result = run(make_plan(quiet(**SHAPE, orchestrator=PLAIN, churn=CHURN, run={"duration": 400.0})))
    states = [mark for mark in result.marks if mark.kind == "state"]
    order = ["TRAINING", "WEIGHTS_UPLOADING", "MERGING_PARTITIONS"]
    assert [mark.detail for mark in states] == [order[n % 3] for n in range(len(states))]
    assert all(one.end_s == two.start_s for one, two in pairwise(states))
    assert states[0].start_s == result.startup_s
    assert states[-1].end_s == result.duration_s
    trains = sum(mark.end_s - mark.start_s for mark in states if mark.detail == "TRAINING")
    assert trains == pytest.approx(result.training_s)
    phases = [row["phase"] for row in metrics.timeline(result, 0.5)]
    assert set(phases) <= {"startup", "training", "uploading", "merging"}
    assert phases.count("training") * 0.5 == pytest.approx(trains, abs=0.5 * len(result.epochs))


def test_the_lowest_is_kicked_each_epoch_and_the_last_of_a_stage_stays(quiet: Make) -> None:
    speeds = {"peers__speed": {"dist": "lognormal", "median": 1.0, "sigma": 0.5}, "network__uplink": 1e9}
    block = PLAIN | {"kick": {"policy": "bottom-n", "number": 2}}
    result = run(make_plan(quiet(**SHAPE, **speeds, orchestrator=block, run={"duration": 1000.0})))
    check(result)
    # Nine peers in three stages: six may go, two an epoch, and then nobody.
    assert result.orchestrator["kicks"] == 6
    kicked = [mark for mark in result.marks if mark.detail == "kicked"]
    assert sorted(np.bincount([result.plan.peers[m.peer].stage for m in kicked])) == [2, 2, 2]
    assert all(mark.end_s == result.duration_s for mark in kicked)
    down_s = waterfall.gpu_seconds(result)[:, CAUSE_DOWN].sum()
    assert down_s == pytest.approx(sum(mark.end_s - mark.start_s for mark in kicked))
    assert result.applied_s[-1] > 900.0


def test_who_was_kicked_for_a_time_comes_back(quiet: Make) -> None:
    block = PLAIN | {"kick": {"policy": "bottom-n", "number": 1, "for": 30.0}}
    result = run(make_plan(quiet(**SHAPE, orchestrator=block, run={"duration": 300.0})))
    check(result)
    kicked = [mark for mark in result.marks if mark.detail == "kicked" and mark.end_s < result.duration_s]
    assert len(kicked) >= 3
    assert all(mark.end_s - mark.start_s == pytest.approx(30.0) for mark in kicked)
    assert result.orchestrator["registrations"] == 9 + len(kicked)


def test_a_threshold_kicks_only_those_far_below_the_median(quiet: Make) -> None:
    def kicks(sigma: float) -> int:
        speeds = {"peers__speed": {"dist": "lognormal", "median": 1.0, "sigma": sigma}}
        block = PLAIN | {"kick": {"policy": "threshold", "below": 0.5}}
        result = run(make_plan(quiet(**SHAPE, **speeds, orchestrator=block, run={"duration": 300.0, "seed": 1})))
        check(result)
        return int(result.orchestrator["kicks"])

    assert kicks(0.01) == 0
    assert kicks(1.2) > 0


BLOCKS = st.fixed_dictionaries(
    {"speed_test": st.sampled_from([0.0, 3e6]), "warm_up": st.integers(0, 2), "request": st.sampled_from([0.0, 0.5])},
    optional={
        "assign": st.sampled_from(["poorest", "by-speed"]), "share_optimizer_state": st.booleans(),
        "failure": st.sampled_from([0.3]), "trigger": st.just(TRIGGER | {"backwards": 4}),
        "kick": st.sampled_from(
            [{"policy": "bottom-n", "number": 2, "for": 20.0}, {"policy": "threshold", "below": 0.9}]
        ),
    },
)  # fmt: skip


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    block=BLOCKS, stages=st.integers(1, 3), replicas=st.integers(1, 3), seed=st.integers(0, 99), bridge=st.booleans()
)
def test_whatever_the_orchestrator_does_nothing_is_lost_and_all_is_repeated(
    quiet: Make, block: dict[str, Any], stages: int, replicas: int, seed: int, bridge: bool
) -> None:
    schedule = QUEUE | ({"knowledge": {"evict_after": 12.0}} if bridge else {})
    shape = SHAPE | {"stages": stages, "replicas": replicas, "pipeline__schedule": schedule}
    plan = make_plan(
        quiet(
            **shape | {"merge": {"every": 25.0, "compute": 0.5, "quorum_every": 0.3}}, churn=CHURN, orchestrator=block,
            network__uplink=1e9, network__delay=0.02, run={"duration": 120.0, "trace": "full", "seed": seed},
        )
    )  # fmt: skip
    first, second = run(plan), run(plan)
    check(first)
    assert first.trace is not None
    assert first.trace.problems() == []
    assert first.applied_s.tobytes() == second.applied_s.tobytes()
    assert first.other_s.tobytes() == second.other_s.tobytes()
    assert first.orchestrator == second.orchestrator
    for peer in range(stages * replicas):
        away = sorted((m.start_s, m.end_s) for m in first.marks if m.kind == "down" and m.peer == peer)
        assert all(one[1] <= two[0] for one, two in pairwise(away))
        assert waterfall.gpu_seconds(first)[peer, CAUSE_DOWN] == pytest.approx(sum(b - a for a, b in away), abs=1e-6)
