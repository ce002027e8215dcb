"""How much a run is stretched and shrunk: never more than the work, the machine and the tensors allow."""

from typing import Any

import pytest

from emulator import scaling
from emulator.scaling import LEAST_DILATION, LEAST_OPERATION_S, choose_scales, least_dilation, payload_scale
from orionbed.emulation import Scales, model_shape
from orionbed.plan import Plan, make_plan
from orionbed.scenario import apply, load
from orionbed.training.shape import parameters_of

QUICK = {"F": 1e-6, "B": 2e-6, "STEP": 1e-6}
HEAVY = {"F": 0.2, "B": 0.2, "STEP": 5.0}


@pytest.fixture(autouse=True)
def _two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "num_cores", lambda: 2)


def plan_of(**changes: Any) -> Plan:
    settings = {"merge": "none", "churn": "none"} | {key.replace("__", "."): v for key, v in changes.items()}
    return make_plan(apply(load("minimal"), settings))


def shortest_s(plan: Plan) -> float:
    return min(c.duration_s for costs in plan.chunk_costs for kind, c in costs.items() if kind != "STEP")


def test_what_the_scenario_says_counts() -> None:
    plan = plan_of(emulator={"time_dilation": 0.5, "payload_scale": 7.0})
    assert choose_scales(plan, HEAVY) == Scales(0.5, 7.0)


def test_without_a_paced_clock_nothing_is_stretched() -> None:
    plan = plan_of(
        emulator={"clock": "virtual"}, pipeline__schedule={"kind": "1f1b", "microbatches": 4}
    )  # fmt: skip
    assert choose_scales(plan, HEAVY).time_dilation == 1.0


def test_quick_work_is_bound_by_the_shortest_operation() -> None:
    plan = plan_of()
    found = least_dilation(plan, QUICK)
    assert found >= max(LEAST_DILATION, LEAST_OPERATION_S / shortest_s(plan))
    assert found - 0.02 < max(LEAST_DILATION, LEAST_OPERATION_S / shortest_s(plan))


def test_heavy_work_is_bound_by_the_cores() -> None:
    plan = plan_of()
    found = least_dilation(plan, HEAVY)
    # Real seconds of work that begin in each second of the run, on two cores.
    busy = sum(0.4 / plan.stages[peer.stage].microbatch_s * peer.speed for peer in plan.peers) / 2.0
    assert found == pytest.approx(scaling.HEADROOM * busy, abs=0.02)
    assert busy / found <= 1.0 / scaling.HEADROOM + 1e-9


def test_half_the_cores_twice_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of()
    before = least_dilation(plan, HEAVY)
    monkeypatch.setattr(scaling, "num_cores", lambda: 1)
    assert least_dilation(plan, HEAVY) == pytest.approx(2.0 * before, abs=0.03)


def test_the_longest_operation_must_fit_the_time_of_the_shortest() -> None:
    plan = plan_of()
    lopsided = {"F": 0.001, "B": 1.0}
    assert least_dilation(plan, lopsided) == pytest.approx(2.0 / shortest_s(plan), abs=0.02)


def test_an_optimizer_step_does_not_count() -> None:
    plan = plan_of()
    assert least_dilation(plan, HEAVY) == least_dilation(plan, HEAVY | {"STEP": 0.0})


def test_no_message_becomes_smaller_than_the_tensor_it_carries() -> None:
    plan = plan_of(pipeline__boundary={"kind": "none"}, network__uplink=1e12)
    found = payload_scale(plan, 0.01)
    assert Scales(1.0, found).payload(plan.boundary_bytes) >= model_shape(plan).boundary_bytes - 1


def test_bytes_shrink_no_more_than_is_needed() -> None:
    slow = plan_of(network__uplink=1e6)
    assert payload_scale(slow, 1.0) == 1.0
    faster = plan_of(pipeline__boundary={"kind": "none"}, network__uplink=100e6)
    assert payload_scale(faster, 1.0) == pytest.approx(max(1.0, 8 * 100e6 / 8.0 / scaling.MOST_BYTES_PER_S))
    assert payload_scale(faster, 0.5) == pytest.approx(2.0 * payload_scale(faster, 1.0))


def test_weights_that_travel_must_fit_too() -> None:
    wide = {"emulator": {"width": 512, "vocab": 4096}, "network__uplink": 1e12, "pipeline__boundary": {"kind": "none"}}
    without, merging = plan_of(**wide), plan_of(**wide, merge={"every": 60.0})
    returning = plan_of(**wide, churn={"up": 60.0, "down": 1.0})
    assert payload_scale(without, 1.0) >= payload_scale(merging, 1.0) >= payload_scale(returning, 1.0)
    for plan, num_tensors in ((merging, 1), (returning, 3)):
        shape, scales = model_shape(plan), Scales(1.0, payload_scale(plan, 1e-6))
        for stage in plan.stages:
            real = num_tensors * 4 * parameters_of(shape, stage.index)
            assert scales.payload(stage.weight_bytes) >= real - 1


def test_payloads_are_whole_bytes_and_never_nothing() -> None:
    assert [Scales(1.0, 10.0).payload(size) for size in (0.1, 10.0, 14.0, 16.0)] == [1, 1, 1, 2]
