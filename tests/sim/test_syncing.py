"""Replicas that agree on gradients: what a step takes, what goes over the wire, and what the wait is charged to."""

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orionbed import tracing, waterfall
from orionbed.hops import bytes_per_s_per_bps
from orionbed.plan import Plan, make_plan
from orionbed.results import RunResult
from orionbed.scenario import Scenario
from orionbed.schedule.catalogue import ENTRIES
from sim.backend import _result, _Run, run

Make = Callable[..., Scenario]
Simple = Callable[..., Plan]

FORWARD_S, BACKWARD_S = 1.0, 2.0
NUM_MICROBATCHES = 3
GPIPE = {"kind": "gpipe", "microbatches": NUM_MICROBATCHES, "recompute": "none"}


@lru_cache
def known(quiet: Make, stages: int) -> tuple[list[int], float]:
    """Parameters of each stage, and payload bytes/s per bit/s."""
    plan = make_plan(quiet(stages=stages, pipeline__schedule=GPIPE))
    return [stage.parameters for stage in plan.stages], bytes_per_s_per_bps(plan.scenario.network)


class Replicas:
    """A pipeline in several replicas whose first stage needs `whole_s` for its bytes on an uplink."""

    def __init__(
        self, quiet: Make, simple: Simple, sync: dict[str, Any], *, stages: int = 1, replicas: int = 2,
        whole_s: float = 1.0, speeds: dict[int, float] | None = None, schedule: dict[str, Any] = GPIPE,
        duration_s: float = 60.0, **changes: Any,
    ) -> None:  # fmt: skip
        parameters, bytes_per_bit = known(quiet, stages)
        self.contributed: list[float] = [number * sync.get("bits", 32) / 8.0 for number in parameters]
        self.rate: float = self.contributed[0] / whole_s
        scenario = quiet(
            stages=stages, replicas=replicas, pipeline__schedule=schedule, sync=sync,
            network__uplink=self.rate / bytes_per_bit, run={"duration": duration_s, "trace": "full"}, **changes,
        )  # fmt: skip
        self.plan = simple(scenario, {"F": FORWARD_S, "B": BACKWARD_S})
        if speeds is not None:
            peers = [replace(peer, speed=speeds.get(peer.replica, 1.0)) for peer in self.plan.peers]
            self.plan = replace(self.plan, peers=tuple(peers))
        self.num_replicas = replicas
        self.pipeline_s = (NUM_MICROBATCHES + stages - 1) * (FORWARD_S + BACKWARD_S)

    def ring_s(self, stage: int = 0) -> float:
        n = self.num_replicas
        return 2 * (n - 1) / n * self.contributed[stage] / self.rate

    def ring_bytes(self) -> float:
        return sum(2 * (self.num_replicas - 1) * num_bytes for num_bytes in self.contributed)

    def step_ends(self, result: RunResult) -> list[float]:
        """When all replicas had applied all of a step, counted from the start of training."""
        per_step = NUM_MICROBATCHES * self.num_replicas
        ends: list[float] = (result.applied_s[per_step - 1 :: per_step] - result.startup_s).tolist()
        return ends


def charged(result: RunResult, cause: int) -> list[float]:
    seconds: list[float] = waterfall.gpu_seconds(result)[:, cause].tolist()
    return seconds


def lasting(plan: Plan, duration_s: float) -> Plan:
    times = plan.scenario.run.model_copy(update={"duration": duration_s})
    return replace(plan, scenario=plan.scenario.model_copy(update={"run": times}))


def steps(result: RunResult) -> int:
    return int(result.num_done["STEP"].min())


# ------------------------------------------------------------------------------------------- every step, not hidden


@settings(max_examples=25, deadline=None)
@given(stages=st.integers(1, 3), replicas=st.integers(2, 4), whole_s=st.floats(0.1, 8.0), num_steps=st.integers(1, 4))
def test_a_step_is_the_pipeline_and_then_the_exchange(
    quiet: Make, simple: Simple, stages: int, replicas: int, whole_s: float, num_steps: int
) -> None:
    case = Replicas(quiet, simple, {"algorithm": "ring"}, stages=stages, replicas=replicas, whole_s=whole_s)
    # Later stages finish their last backward earlier and get their next forward later, so they have more time.
    late_s = max(case.ring_s(s) - s * (FORWARD_S + BACKWARD_S) for s in range(stages))
    step_s = case.pipeline_s + late_s
    result = run(lasting(case.plan, num_steps * step_s + (stages - 0.5) * FORWARD_S))
    ends = case.step_ends(result)
    assert ends == pytest.approx([case.pipeline_s + k * step_s for k in range(num_steps)], rel=1e-9)
    assert result.num_syncs == num_steps * stages
    assert result.bytes_sync == pytest.approx(num_steps * case.ring_bytes(), rel=1e-12)


def test_what_is_waited_for_is_charged_as_transfer_and_as_computation(quiet: Make, simple: Simple) -> None:
    case = Replicas(quiet, simple, {"compute": 0.75}, replicas=4, whole_s=2.0, duration_s=40.0)
    result = run(case.plan)
    step_s = case.pipeline_s + 3.0 + 0.75
    assert np.diff(case.step_ends(result)) == pytest.approx(step_s, rel=1e-9)
    assert steps(result) == 3
    assert charged(result, tracing.CAUSE_MERGE_TRANSFER) == pytest.approx([9.0] * 4, rel=1e-9)
    assert charged(result, tracing.CAUSE_MERGE_COMPUTE) == pytest.approx([3 * 0.75] * 4, rel=1e-9)
    assert charged(result, tracing.CAUSE_MERGE_WAIT) == pytest.approx([0.0] * 4, abs=1e-9)
    assert result.syncing_s == pytest.approx(9.0, rel=1e-9)


def test_everybody_waits_for_the_slowest_replica(quiet: Make, simple: Simple) -> None:
    case = Replicas(quiet, simple, {}, replicas=3, whole_s=1.5, speeds={1: 0.5}, duration_s=65.0)
    result = run(case.plan)
    ends = case.step_ends(result)
    assert np.diff(ends) == pytest.approx(2 * case.pipeline_s + 2.0, rel=1e-9)
    assert steps(result) == 3
    waits = charged(result, tracing.CAUSE_MERGE_WAIT)
    assert waits == pytest.approx([3 * case.pipeline_s, 0.0, 3 * case.pipeline_s], abs=1e-9)
    assert charged(result, tracing.CAUSE_MERGE_TRANSFER) == pytest.approx([6.0] * 3, rel=1e-9)


def test_one_replica_has_nobody_to_wait_for(quiet: Make, simple: Simple) -> None:
    case = Replicas(quiet, simple, {}, replicas=1, duration_s=28.0)
    result = run(case.plan)
    assert case.step_ends(result) == pytest.approx([9.0, 18.0, 27.0], rel=1e-6)
    assert result.bytes_sync == 0.0


# ----------------------------------------------------------------------------------------------- every so many steps


def test_local_steps_with_eight_bits_pay_a_quarter_of_the_bytes_every_so_often(quiet: Make, simple: Simple) -> None:
    case = Replicas(quiet, simple, {"every": 4, "bits": 8}, whole_s=2.0, duration_s=8 * 9.0 + 2 * 2.0 + 0.5)
    result = run(case.plan)
    ends = case.step_ends(result)
    assert np.diff(ends) == pytest.approx([9.0, 9.0, 9.0, 11.0, 9.0, 9.0, 9.0], rel=1e-9)
    assert result.num_syncs == 2
    full = 2 * case.plan.stages[0].parameters * 4.0
    assert result.bytes_sync == pytest.approx(2 * full / 4, rel=1e-12)


def test_fragments_take_turns(quiet: Make, simple: Simple) -> None:
    case = Replicas(quiet, simple, {"every": 6, "fragments": 3}, whole_s=3.0, duration_s=6 * 9.0 + 3 * 1.0 + 0.5)
    result = run(case.plan)
    assert np.diff(case.step_ends(result)) == pytest.approx([9.0, 10.0, 9.0, 10.0, 9.0], rel=1e-9)
    assert result.num_syncs == 3
    assert result.bytes_sync == pytest.approx(case.ring_bytes(), rel=1e-12)


@settings(max_examples=15, deadline=None)
@given(behind=st.integers(1, 3), whole_s=st.floats(0.5, 36.0))
def test_an_overlapped_exchange_shows_only_what_lasts_longer_than_the_steps_it_may_hide_behind(
    quiet: Make, simple: Simple, behind: int, whole_s: float
) -> None:
    sync = {"every": 4, "overlap": True, "behind": behind, "compute": 1.0}
    case = Replicas(quiet, simple, sync, whole_s=whole_s, duration_s=12 * 9.0 + 80.0)
    result = run(case.plan)
    shown_s = max(0.0, whole_s + 1.0 - behind * 9.0)
    # Due after every fourth step; a peer waits, if at all, before the step that is `behind` further on.
    expected = [9.0 + (shown_s if k % 4 == behind % 4 and k > 4 else 0.0) for k in range(1, 12)]
    assert np.diff(case.step_ends(result))[:11] == pytest.approx(expected, rel=1e-9)
    if shown_s == 0.0:
        assert sum(charged(result, tracing.CAUSE_MERGE_TRANSFER)) == pytest.approx(0.0, abs=1e-9)


# -------------------------------------------------------------------------------------- behind the last backward


@settings(max_examples=30, deadline=None)
@given(buckets=st.integers(1, 9), whole_s=st.floats(0.1, 8.0), compute_s=st.sampled_from([0.0, 0.5]))
def test_buckets_go_one_after_another_as_the_last_backward_gives_them(
    quiet: Make, simple: Simple, buckets: int, whole_s: float, compute_s: float
) -> None:
    sync = {"overlap": True, "buckets": buckets, "compute": compute_s}
    case = Replicas(quiet, simple, sync, replicas=3, whole_s=whole_s, duration_s=80.0)
    result = run(case.plan)
    each_s = (case.ring_s() + compute_s) / buckets
    given_s = [(j + 1) / buckets * BACKWARD_S for j in range(buckets)]
    finish_s = max(at + (buckets - j) * each_s for j, at in enumerate(given_s))
    step_s = case.pipeline_s - BACKWARD_S + finish_s
    assert np.diff(case.step_ends(result)) == pytest.approx(step_s, rel=1e-9)
    shown_s = finish_s - BACKWARD_S
    assert shown_s < case.ring_s() + compute_s or buckets == 1
    num_steps = steps(result)
    # The run may end within one more wait.
    waits_s = sum(charged(result, cause)[0] for cause in (tracing.CAUSE_MERGE_TRANSFER, tracing.CAUSE_MERGE_COMPUTE))
    assert num_steps * shown_s - 1e-9 <= waits_s <= (num_steps + 1) * shown_s + 1e-9
    assert num_steps <= result.bytes_sync / case.ring_bytes() + 1e-9 <= num_steps + 1


@pytest.mark.parametrize("kind", ["zb-h1", "zb-v", "interleaved-1f1b"])
def test_buckets_of_two_chunks_and_of_split_backwards_all_go(quiet: Make, kind: str) -> None:
    schedule = {"kind": kind, "microbatches": 4, "recompute": "none"}
    scenario = quiet(
        stages=2, replicas=2, pipeline__schedule=schedule, sync={"overlap": True, "buckets": 6}, peers__overhead=0.1,
        run={"tokens": 1024.0 * 4 * 2 * 5, "trace": "summary"},
    )  # fmt: skip
    plan = make_plan(scenario)
    result = run(plan)
    per_step = sum(2 * stage.parameters * 4.0 for stage in plan.stages)
    assert steps(result) >= 4
    assert 4 * 12 <= result.num_syncs <= 5 * 12
    assert 4 * per_step * (1 - 1e-9) <= result.bytes_sync <= 5 * per_step


# ------------------------------------------------------------------------------------------------------ lost peers


def away(the_run: _Run, index: int, from_s: float, to_s: float) -> None:
    """Let a peer be away for a while."""
    engine, peer = the_run.engine, the_run.engine.peers[index]

    def come_back(_: object) -> None:
        peer.charge(tracing.CAUSE_DOWN, engine.clock.now)
        peer.status = "benched"
        the_run.rebalancing.come_back(peer)

    the_run.clock.call_at(from_s, lambda _: engine.ending.crash(peer))
    the_run.clock.call_at(to_s, come_back)


def finish(the_run: _Run) -> RunResult:
    the_run.go(None, None)
    the_run.engine.ledger.check()
    result = _result(the_run, 0.0)
    check(result)
    return result


def check(result: RunResult) -> None:
    """Nothing is lost."""
    ledger = result.ledger
    assert ledger.created == ledger.applied + ledger.dropped + ledger.in_flight
    seconds = waterfall.gpu_seconds(result)
    assert seconds.sum(axis=1) == pytest.approx(np.full(len(result.plan.peers), result.duration_s), rel=1e-9)
    assert seconds.min() > -1e-9


def applied_between(result: RunResult, from_s: float, to_s: float) -> int:
    return int(np.sum((result.applied_s > from_s) & (result.applied_s <= to_s)))


def test_two_begin_anew_when_the_third_leaves_in_the_middle_of_an_exchange(quiet: Make, simple: Simple) -> None:
    case = Replicas(quiet, simple, {}, replicas=3, whole_s=3.0, duration_s=100.0)
    the_run = _Run(case.plan, 0)
    away(the_run, 2, 9.5, 500.0)
    result = finish(the_run)
    # What peer 0 was sending to peer 1 holds its uplink up for half a second more; then two rounds of 1.5 s.
    resumed_s = 9.5 + 0.5 + 2 * 1.5
    times = result.applied_s[9:15]
    assert times == pytest.approx(resumed_s + np.repeat([5.0, 7.0, 9.0], 2), rel=1e-5)
    assert result.ledger.dropped == 0


def test_a_stage_goes_on_without_a_replica_that_was_lost_at_another_stage(quiet: Make, simple: Simple) -> None:
    case = Replicas(quiet, simple, {}, stages=2, replicas=2, whole_s=0.5, duration_s=300.0)
    the_run = _Run(case.plan, 0)
    away(the_run, 3, 50.0, 200.0)
    result = finish(the_run)
    step_s = case.pipeline_s
    assert applied_between(result, 60.0, 200.0) == pytest.approx(140.0 / step_s * NUM_MICROBATCHES, abs=4)
    # The other peer of that replica waits for its neighbour, not for an exchange.
    assert waterfall.gpu_seconds(result)[1, tracing.CAUSE_UPSTREAM] > 140.0
    assert waterfall.gpu_seconds(result)[1, tracing.CAUSE_MERGE_WAIT] < 20.0


@pytest.mark.parametrize("sync", [{}, {"every": 3}, {"overlap": True}, {"every": 3, "overlap": True, "behind": 2}])
@pytest.mark.parametrize("back_s", [61.0, 64.0, 67.0, 70.0, 71.0, 72.0, 100.0])
def test_a_replica_that_comes_back_takes_part_again(
    quiet: Make, simple: Simple, sync: dict[str, Any], back_s: float
) -> None:
    case = Replicas(quiet, simple, sync, stages=2, replicas=2, whole_s=1.0, duration_s=400.0)
    the_run = _Run(case.plan, 0)
    away(the_run, 2, 60.0, back_s)
    result = finish(the_run)
    engine = the_run.engine
    # Both replicas are within the steps that one may be ahead of the other, and none stood still for long.
    numbers = [peer.policy.num_steps for peer in engine.peers]
    assert max(numbers) - min(numbers) <= 3
    step_s = case.pipeline_s + 1.0
    both = 2 * NUM_MICROBATCHES * (400.0 - back_s - 4 * step_s) / step_s
    assert applied_between(result, back_s, 400.0) >= both
    assert engine.syncing is not None
    assert engine.syncing.bytes_sent > 0.5 * case.ring_bytes() * (400.0 - 60.0) / step_s / sync.get("every", 1)


def test_a_replica_that_is_lost_often_within_a_step_does_not_run_ahead(quiet: Make, simple: Simple) -> None:
    case = Replicas(quiet, simple, {}, stages=2, replicas=2, whole_s=1.0, duration_s=300.0)
    the_run = _Run(case.plan, 0)
    for number in range(8):
        away(the_run, 2 * (number % 2), 60.2 + number, 60.7 + number)
    result = finish(the_run)
    step_s = case.pipeline_s + 1.0
    assert applied_between(result, 90.0, 300.0) >= 2 * NUM_MICROBATCHES * (210.0 / step_s - 2)


def test_all_replicas_may_be_lost_and_come_back(quiet: Make, simple: Simple) -> None:
    case = Replicas(quiet, simple, {}, stages=2, replicas=2, whole_s=1.0, duration_s=300.0)
    the_run = _Run(case.plan, 0)
    away(the_run, 0, 50.0, 90.0)
    away(the_run, 3, 52.0, 80.0)
    away(the_run, 1, 60.0, 70.0)
    result = finish(the_run)
    assert applied_between(result, 60.0, 80.0) == 0
    assert applied_between(result, 80.0, 300.0) > 2 * NUM_MICROBATCHES * 15


CHURN = {
    "up": {"dist": "weibull", "shape": 0.7, "scale": 25.0},
    "down": {"dist": "exponential", "mean": 3.0},
}


@pytest.mark.parametrize("merge", ["none", {"every": 30.0, "compute": 0.5, "quorum_every": 0.3}])
@pytest.mark.parametrize("kind", sorted(ENTRIES))
def test_whatever_the_schedule_churn_and_syncs_lose_nothing(quiet: Make, kind: str, merge: Any) -> None:
    schedule: dict[str, Any] = {"kind": kind, "microbatches": 4, "recompute": "none"}
    if kind == "opportunistic":
        schedule |= {"memory_limit": 2, "split_backward": True}
    syncs: list[dict[str, Any]] = [
        {"algorithm": "ring"},
        {"algorithm": "tree", "overlap": True, "buckets": 4, "compute": 0.05},
        {"algorithm": "gather", "every": 4, "fragments": 2, "overlap": True, "behind": 2},
        {"algorithm": "sharded-ps", "every": 3, "bits": 8},
    ]
    for seed, sync in enumerate(syncs):
        scenario = quiet(
            stages=2, replicas=3, pipeline__schedule=schedule, sync=sync, churn=CHURN, merge=merge,
            peers__overhead=0.05, peers__jitter=0.1, network__uplink=2e8, network__delay=0.02,
            run={"duration": 120.0, "trace": "full", "seed": seed},
        )  # fmt: skip
        plan = make_plan(scenario)
        result = run(plan)
        check(result)
        assert result.trace is not None
        assert result.trace.problems() == []
        assert result.ledger.dropped_by_reason["peer lost"] > 0
        assert result.bytes_sync > 0.0
        gaps = np.diff(np.concatenate([[0.0], result.applied_s, [result.duration_s]]))
        assert gaps.max() < 45.0
        if seed < 2:
            again = run(plan)
            assert again.applied_s.tobytes() == result.applied_s.tobytes()
            assert again.other_s.tobytes() == result.other_s.tobytes()
            assert again.bytes_sync == result.bytes_sync
