"""Pipelines without contention have closed forms; the simulator must meet them exactly."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orionbed.plan import Plan
from orionbed.scenario import Scenario
from orionbed.schedule.classic import one_forward_one_backward
from sim.backend import run

Make = Callable[..., Scenario]
Simple = Callable[..., Plan]
Step = Callable[..., float]


@pytest.fixture(name="step_s", scope="session")
def _step_s(quiet: Make, simple: Simple) -> Step:
    """Simulate three steps; return the length of the third (connections are warm from the first on)."""

    def step_s(kind: str, num_stages: int, num_microbatches: int, *times_s: float) -> float:
        return _third_step_s(quiet, simple, kind, num_stages, num_microbatches, *times_s)

    return step_s


def _third_step_s(
    quiet: Make, simple: Simple, kind: str, num_stages: int, num_microbatches: int,
    forward_s: float, backward_s: float, hop_s: float,
) -> float:  # fmt: skip
    scenario = quiet(
        stages=num_stages,
        pipeline__schedule={"kind": kind, "microbatches": num_microbatches, "recompute": "none"},
        network__delay=hop_s,
        run={"tokens": 1024.0 * 3 * num_microbatches, "trace": "summary"},
    )
    result = run(simple(scenario, {"F": forward_s, "B": backward_s}))
    ends = result.applied_s[num_microbatches - 1 :: num_microbatches]
    assert len(ends) == 3
    return float(ends[2] - ends[1])


PIPELINES = {
    "num_stages": st.integers(1, 8),
    "num_microbatches": st.integers(1, 12),
    "forward_s": st.floats(0.1, 3.0),
    "backward_s": st.floats(0.1, 3.0),
}


@settings(max_examples=40, deadline=None)
@given(**PIPELINES, hop_s=st.floats(0.0, 2.0))
def test_gpipe_pays_each_hop_once_each_way(
    step_s: Step, num_stages: int, num_microbatches: int, forward_s: float, backward_s: float, hop_s: float
) -> None:
    expected = (num_microbatches + num_stages - 1) * (forward_s + backward_s) + 2 * (num_stages - 1) * hop_s
    measured = step_s("gpipe", num_stages, num_microbatches, forward_s, backward_s, hop_s)
    assert measured == pytest.approx(expected, rel=1e-9)


@settings(max_examples=40, deadline=None)
@given(**PIPELINES)
def test_1f1b_without_delay_takes_as_long_as_gpipe(
    step_s: Step, num_stages: int, num_microbatches: int, forward_s: float, backward_s: float
) -> None:
    expected = (num_microbatches + num_stages - 1) * (forward_s + backward_s)
    measured = step_s("1f1b", num_stages, num_microbatches, forward_s, backward_s, 0.0)
    assert measured == pytest.approx(expected, rel=1e-9)


@settings(max_examples=40, deadline=None)
@given(
    num_stages=st.integers(2, 8), rounds=st.integers(1, 4), forward_s=st.floats(0.1, 3.0),
    backward_s=st.floats(0.1, 3.0), hop_s=st.floats(0.0, 2.0),
)  # fmt: skip
def test_1f1b_pays_hops_once_per_round_of_p_micro_batches(
    step_s: Step, num_stages: int, rounds: int, forward_s: float, backward_s: float, hop_s: float
) -> None:
    num_microbatches = rounds * num_stages
    hops = 2 * (num_stages - 1) * (rounds + 1) - 2
    expected = (num_microbatches + num_stages - 1) * (forward_s + backward_s) + hops * hop_s
    measured = step_s("1f1b", num_stages, num_microbatches, forward_s, backward_s, hop_s)
    assert measured == pytest.approx(expected, rel=1e-9)


@settings(max_examples=25, deadline=None)
@given(num_stages=st.integers(2, 6), hop_s=st.floats(0.0, 1.0), poll_s=st.sampled_from([0.0, 0.05, 0.3]))
def test_one_micro_batch_in_flight_takes_one_round_trip(
    quiet: Make, simple: Simple, num_stages: int, hop_s: float, poll_s: float
) -> None:
    scenario = quiet(
        stages=num_stages,
        pipeline__schedule={
            "kind": "queue", "window": 1, "router": "replica", "recompute": "none",
            "poll_loop": 0.0, "poll_empty": poll_s, "poll_full": 0.0,
        },
        network__delay=hop_s,
        run={"tokens": 1024.0 * 5, "trace": "summary"},
    )  # fmt: skip
    result = run(simple(scenario, {"F": 1.0, "B": 2.0}, fused=True))
    round_trip_s = 3.0 * num_stages + 2 * (num_stages - 1) * hop_s
    measured = float(np.diff(result.applied_s)[-1])
    assert round_trip_s - 1e-9 <= measured <= round_trip_s + 2 * (num_stages - 1) * poll_s + 1e-9
    if poll_s == 0.0:
        assert measured == pytest.approx(round_trip_s, rel=1e-9)


@pytest.mark.parametrize("replicas", [1, 3])
def test_a_wide_window_saturates_the_slowest_stage(quiet: Make, simple: Simple, replicas: int) -> None:
    scenario = quiet(
        stages=4,
        replicas=replicas,
        pipeline__schedule={
            "kind": "queue", "window": 24, "router": "replica", "recompute": "none",
            "poll_loop": 0.0, "poll_empty": 0.0, "poll_full": 0.0,
        },
        run={"duration": 4000.0, "trace": "summary"},
    )  # fmt: skip
    result = run(simple(scenario, {"F": 1.0, "B": 2.0}, fused=True))
    settled = result.applied_s[result.applied_s > 1000.0]
    assert len(settled) == pytest.approx(replicas * 3000.0 / 3.0, rel=0.005)


def test_the_executed_order_of_a_static_schedule_is_its_list(quiet: Make, simple: Simple) -> None:
    scenario = quiet(
        stages=3,
        pipeline__schedule={"kind": "1f1b", "microbatches": 5, "recompute": "none"},
        network__delay=0.3,
        run={"tokens": 1024.0 * 10, "trace": "full"},
    )
    result = run(simple(scenario, {"F": 1.0, "B": 2.0}))
    trace = result.trace
    assert trace is not None
    kinds = np.array(trace.kinds)[trace["kind"]]
    for stage, actions in enumerate(one_forward_one_backward(3, 5).lists):
        mine = (trace["stage"] == stage) & (trace["lane"] == 0) & np.isin(kinds, ["F", "B"])
        order = np.argsort(trace["start_s"][mine], kind="stable")
        done = list(zip(kinds[mine][order], trace["microbatch"][mine][order], strict=True))[:10]
        assert done == [(action.kind, action.microbatch) for action in actions]
