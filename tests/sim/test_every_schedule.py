"""Every schedule: the simulator takes exactly as long as the order's own timing, and does what the order says."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orionbed.operations import times_of
from orionbed.plan import Plan
from orionbed.scenario import Scenario
from orionbed.schedule.actions import Action
from orionbed.schedule.catalogue import ENTRIES
from orionbed.schedule.order import Order, check_order, make_order
from orionbed.schedule.text import to_csv
from orionbed.schedule.timing import Hops, peak_activations, time_order
from sim.backend import run

Make = Callable[..., Scenario]
Simple = Callable[..., Plan]


def schedule_block(name: str, num_microbatches: int, **more: Any) -> dict[str, Any]:
    return {"kind": name, "microbatches": num_microbatches, "recompute": "none", **more}


def simulated(
    quiet: Make,
    simple: Simple,
    block: dict[str, Any],
    num_stages: int,
    times: Any,
    hop_s: float,
    *,
    synchronous: bool = False,
) -> Any:
    num_microbatches = block.get("microbatches", 4)
    scenario = quiet(
        stages=num_stages,
        model={"layers": 32, "hidden": 64, "ffn": 128, "heads": 2, "kv_heads": 2, "vocab": 128},
        pipeline__schedule=block,
        network__delay=hop_s,
        network__transport={"window": 1e12, "tls": False, "synchronous": synchronous},
        run={"tokens": 1024.0 * 3 * num_microbatches, "trace": "full"},
    )
    plan = simple(scenario, dict(zip("FIW", times, strict=True)))
    return plan, run(plan)


def step_of(result: Any, order: Order, step: int) -> list[list[tuple[str, int, float]]]:
    """Kind, micro-batch within the step and start of what each stage did in one step; STEPs are left out."""
    trace, per_step = result.trace, order.num_microbatches
    kinds = np.array(trace.kinds)[trace["kind"]]
    work = (trace["lane"] == 0) & np.isin(kinds, list("FBIW")) & (trace["microbatch"] // per_step == step)
    lists = []
    for stage in range(order.num_stages):
        rows = np.flatnonzero(work & (trace["stage"] == stage))
        rows = rows[np.argsort(trace["start_s"][rows], kind="stable")]
        lists.append(
            [(str(kinds[r]), int(trace["microbatch"][r]) % per_step, float(trace["start_s"][r])) for r in rows]
        )
    return lists


def step_ends(result: Any, order: Order, step: int) -> list[float]:
    """When each stage had done its optimizer step for the `step`-th time."""
    trace = result.trace
    ends = []
    for stage in range(order.num_stages):
        mine = (np.array(trace.kinds)[trace["kind"]] == "step") & (trace["stage"] == stage)
        ends.append(float(np.sort(trace["end_s"][mine])[step]))
    return ends


SHAPES: dict[str, Any] = {
    "num_stages": st.integers(1, 5),
    "num_microbatches": st.integers(1, 9),
    "times": st.tuples(st.floats(0.5, 2.0), st.floats(0.5, 2.0), st.floats(0.2, 2.0)),
    "hop_s": st.sampled_from([0.0, 0.1, 0.7, 2.0]),
    "synchronous": st.booleans(),
}


@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(sorted(set(ENTRIES) - {"opportunistic"})), **SHAPES)
def test_a_step_takes_what_its_order_takes(
    quiet: Make, simple: Simple, name: str, num_stages: int, num_microbatches: int,
    times: tuple[float, float, float], hop_s: float, synchronous: bool,
) -> None:  # fmt: skip
    plan, result = simulated(
        quiet, simple, schedule_block(name, num_microbatches), num_stages, times, hop_s, synchronous=synchronous
    )
    order = plan.order
    assert order is not None
    assert result.ledger.applied == 3 * num_microbatches
    # The first step begins with cold connections, where each hop costs a handshake; from the second on they are warm.
    begin_s = step_ends(result, order, 0)
    timed = time_order(order, times_of(plan.chunk_costs), Hops(hop_s, synchronous=synchronous), begin_s=begin_s)
    for actions, starts, done in zip(order.lists, timed.starts_s, step_of(result, order, 1), strict=True):
        assert [(kind, microbatch) for kind, microbatch, _ in done] == [(a.kind, a.microbatch) for a in actions]
        assert [start for _, _, start in done] == pytest.approx(starts, rel=1e-12, abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(splits=st.booleans(), limit=st.integers(1, 9), **SHAPES)
def test_what_an_opportunistic_pipeline_does_takes_what_its_order_takes(
    quiet: Make, simple: Simple, splits: bool, limit: int, num_stages: int, num_microbatches: int,
    times: tuple[float, float, float], hop_s: float, synchronous: bool,
) -> None:  # fmt: skip
    block = schedule_block("opportunistic", num_microbatches, memory_limit=limit, split_backward=splits)
    plan, result = simulated(quiet, simple, block, num_stages, times, hop_s, synchronous=synchronous)
    assert plan.order is not None
    done = step_of(result, plan.order, 1)
    order = make_order(
        [[Action(kind, stage, m) for kind, m, _ in mine] for stage, mine in enumerate(done)],
        plan.order.stage_of,  # type: ignore[arg-type]
    )
    check_order(order)
    assert max(peak_activations(order)) <= limit
    timed = time_order(
        order,
        times_of(plan.chunk_costs),
        Hops(hop_s, synchronous=synchronous),
        begin_s=step_ends(result, plan.order, 0),
    )
    for starts, mine in zip(timed.starts_s, done, strict=True):
        assert [start for _, _, start in mine] == pytest.approx(starts, rel=1e-12, abs=1e-9)


def test_a_schedule_of_ones_own_runs_from_its_file(quiet: Make, simple: Simple, tmp_path: Any) -> None:
    plan, reference = simulated(quiet, simple, schedule_block("zb-h1", 4), 3, (1.0, 1.0, 1.0), 0.2)
    file = tmp_path / "mine.csv"
    file.write_text(to_csv(plan.order))
    _, mine = simulated(quiet, simple, {"kind": "csv", "file": str(file), "recompute": "none"}, 3, (1.0,) * 3, 0.2)
    assert mine.applied_s.tolist() == reference.applied_s.tolist()


@pytest.mark.parametrize("name", sorted(ENTRIES))
def test_the_ledger_and_the_gpu_seconds_add_up(quiet: Make, simple: Simple, name: str) -> None:
    from orionbed.waterfall import gpu_seconds

    plan, result = simulated(quiet, simple, schedule_block(name, 5), 4, (1.0, 1.2, 0.7), 0.25)
    seconds = gpu_seconds(result)
    assert seconds.sum() == pytest.approx(result.duration_s * len(plan.peers), rel=1e-9)
    counts = result.ledger.counts()
    assert counts["created"] == counts["applied"] + counts["in_flight"]
