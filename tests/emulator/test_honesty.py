"""What an emulation refuses, what it warns of, and when it says of itself that it is void."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from emulator.honesty import _quantiles, emulation_block, not_modelled, refuse
from orionbed.backends import BackendError
from orionbed.emulation import Scales
from orionbed.fleet.record import Record
from orionbed.plan import Plan, make_plan
from orionbed.scenario import apply, load

FIXED = {"kind": "1f1b", "microbatches": 4}


def plan_of(**changes: Any) -> Plan:
    settings = {"merge": "none", "churn": "none"} | {key.replace("__", "."): v for key, v in changes.items()}
    return make_plan(apply(load("minimal"), settings))


def refusals(**changes: Any) -> list[str]:
    try:
        refuse(plan_of(**changes))
    except BackendError as error:
        return str(error).splitlines()
    return []


def codes(plan: Plan, **measured: float) -> list[str]:
    return [one["code"] for one in not_modelled(plan, measured)]


# ---------------------------------------------------------------- refusing


def test_what_it_can_do_is_not_refused() -> None:
    assert refusals() == []
    assert refusals(merge={"every": 60.0}, churn={"up": 60.0, "down": 1.0}) == []
    assert refusals(pipeline__schedule=FIXED, sync={"algorithm": "ring"}, emulator={"clock": "virtual"}) == []


def test_everything_that_is_wrong_is_said_at_once() -> None:
    faults = {"list": [{"id": "p", "at": 1.0, "for": 1.0, "kind": "pause", "target": "peer:s00r0"}]}
    found = refusals(
        emulator={"clock": "virtual"}, merge={"every": 60.0}, churn={"up": 60.0, "down": 1.0}, faults=faults,
        peers__rebalance_every=60.0,
    )  # fmt: skip
    assert [line.split()[0].rstrip(":") for line in found] == [
        "emulator.clock", "merge", "churn", "faults", "peers.rebalance_every"
    ]  # fmt: skip
    assert all("use " in line or "needs " in line for line in found)


def test_what_is_in_flight_can_only_be_dropped() -> None:
    (refusal,) = refusals(recovery={"in_flight": "resend"})
    assert refusal.startswith("recovery.in_flight resend")


@pytest.mark.parametrize(
    "sync",
    [
        {"algorithm": "tree"},
        {"algorithm": "ring", "every": 2},
        {"algorithm": "ring", "bits": 8.0},
        {"algorithm": "ring", "overlap": True},
    ],
)
def test_the_only_way_to_agree_is_a_plain_ring(sync: dict[str, Any]) -> None:
    (line,) = refusals(pipeline__schedule=FIXED, sync=sync)
    assert line.startswith("sync: ")


# ---------------------------------------------------------------- warnings


@pytest.mark.parametrize(
    ("merge", "keys"),
    [
        ({"algorithm": "ring", "codec": {"kind": "int8"}}, "merge.algorithm, merge.codec"),
        ({"fragments": 2, "flush": False}, "merge.fragments, merge.flush"),
        ({"deadline": {"kind": "all"}}, "merge.deadline"),
        ({"failure": 0.1, "coverage_floor": 0.9, "outer": "none"}, "merge.failure, merge.coverage_floor"),
    ],
)
def test_the_only_merge_is_iotas_butterfly(merge: dict[str, Any], keys: str) -> None:
    expected = f"{keys}: the emulator merges by IOTA's butterfly through the store; use that, or sim"
    assert refusals(merge={"every": 60.0} | merge) == [expected]


def test_a_wide_model_on_a_paced_clock_needs_no_warning() -> None:
    assert codes(plan_of()) == []


def test_what_is_not_modelled_is_said() -> None:
    assert codes(plan_of(network__transport={"synchronous": True}, pipeline__schedule=FIXED)) == ["not-modelled"]


@pytest.mark.parametrize(
    "boundary",
    [
        {"kind": "quantize", "bits": 8},
        {"kind": "topk", "keep": 32},
        {"kind": "subspace", "width": 32},
        {"kind": "bottleneck", "width": 32},
    ],
)
def test_every_kind_of_boundary_is_what_it_is(boundary: dict[str, Any]) -> None:
    assert codes(plan_of(pipeline__boundary=boundary)) == []


def test_bits_that_nothing_is_rounded_to_are_refused() -> None:
    (line,) = refusals(pipeline__boundary={"kind": "quantize", "bits": 3})
    assert "rounded to 4 or 8 bits, not to 3" in line


def test_notice_is_not_given_and_that_is_said() -> None:
    window = {"at": 10.0, "for": 5.0}
    assert codes(plan_of(churn={"windows": [window]})) == []
    assert codes(plan_of(churn={"windows": [window | {"notice": 2.0}]})) == ["not-modelled"]


def test_a_narrow_model_says_nothing_about_processor_times() -> None:
    assert codes(plan_of(emulator={"width": 64})) == ["small-model"]


def test_a_processor_clock_is_a_demonstration() -> None:
    plan = plan_of(emulator={"clock": "cpu"}, pipeline__schedule=FIXED)
    assert codes(plan) == ["cpu-clock"]
    (long,) = not_modelled(plan, {"F": 0.1, "STEP": 0.001})
    (short,) = not_modelled(plan, {"F": 0.001, "STEP": 0.1})
    assert "noise" not in long["message"]
    assert "operations of 1.0 ms are mostly noise" in short["message"]


# ---------------------------------------------------------------- lateness


def test_quantiles_are_of_all_values_or_nothing() -> None:
    assert _quantiles(np.array([])) == {"p50_s": 0.0, "p99_s": 0.0, "max_s": 0.0, "count": 0}
    found = _quantiles(np.arange(101.0))
    assert found == {"p50_s": 50.0, "p99_s": 99.0, "max_s": 100.0, "count": 101}


def block_of(
    late_s: list[float], frames_late_s: list[float], aborted: str = "", **emulator: Any
) -> tuple[dict[str, Any], Any]:
    """Return the block and the result of a run in which things were so late."""
    plan = plan_of(emulator={"lateness_limit": 0.05, **emulator}, pipeline__schedule=FIXED)
    final = {"late_s": late_s, "frames_late_s": frames_late_s, "memory_bytes": 5}
    members = [
        SimpleNamespace(role="peer", final=final),
        SimpleNamespace(role="peer", final=None),
        SimpleNamespace(role="store", final={**final, "late_s": [], "frames_late_s": []}),
    ]
    record = Record(4)
    record.losses = [(float(second), second, 10.0 - second) for second in (3, 1, 2)]
    supervisor: Any = SimpleNamespace(members=members, scales=Scales(0.5, 7.0), record=record, measured={"F": 0.1})
    result: Any = SimpleNamespace(aborted=aborted)
    return emulation_block(plan, supervisor, result), result


def test_a_run_in_time_is_as_it_is() -> None:
    block, result = block_of([0.001] * 199 + [9.0], [0.0])
    assert result.aborted == ""
    assert not block["void"]
    assert block["lateness"]["operations"]["max_s"] == 9.0  # a rare one may be
    assert block["memory_bytes_per_peer"] == [5, 0]
    assert (block["time_dilation"], block["payload_scale"], block["num_processes"]) == (0.5, 7.0, 3)


@pytest.mark.parametrize(("late_s", "frames_late_s"), [([0.2] * 50, [0.0]), ([0.0], [0.2] * 50)])
def test_a_run_that_was_late_is_void(late_s: list[float], frames_late_s: list[float]) -> None:
    block, result = block_of(late_s, frames_late_s)
    assert block["void"]
    assert result.aborted.startswith("void: one in a hundred operations or messages was later than 200 ms")
    assert "the limit is 50 ms" in result.aborted


def test_only_a_paced_run_can_be_late() -> None:
    block, result = block_of([0.2], [0.2], clock="virtual")
    assert (block["void"], result.aborted) == (False, "")


def test_what_ended_a_run_before_is_not_overwritten() -> None:
    block, result = block_of([0.2], [0.2], aborted="the run did not recover")
    assert (block["void"], result.aborted) == (False, "the run did not recover")


def test_losses_are_told_in_order_of_time() -> None:
    block, _ = block_of([], [])
    assert block["loss"]["curve"] == [[1.0, 9.0], [2.0, 8.0], [3.0, 7.0]]
    assert (block["loss"]["first"], block["loss"]["last"]) == (9.0, 7.0)
