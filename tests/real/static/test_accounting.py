"""What processes waited for, from reports that are made up."""

from typing import Any

import numpy as np
import pytest

from orionbed import tracing, waterfall
from orionbed.fleet.members import Member
from orionbed.plan import Plan, make_plan
from orionbed.scenario import apply, load
from real.static.accounting import waits_of
from real.static.outcome import audited, finals_of, recorded, result_of
from real.static.reports import Operation, Reports, StepReport

F_S, B_S, STEP_S, HOP_S = 1.0, 2.0, 0.5, 0.25


@pytest.fixture
def plan() -> Plan:
    return make_plan(
        apply(load("hardware/small"), {"pipeline.schedule": {"kind": "gpipe", "microbatches": 2, "recompute": "none"}})
    )


def report(step: int, *operations: tuple[Any, ...], sync_s: Any = None) -> StepReport:
    return StepReport(step, tuple(Operation(*one) for one in operations), sync_s, ())


def one_step(begins_s: float = 0.0, step: int = 0) -> tuple[StepReport, StepReport]:
    """Two stages, two micro-batches, GPipe: stage 1 gets each tensor a quarter of a second after it was made."""
    at = begins_s
    first = report(
        step,
        ("F", 0, 0, at, at + 1.0),
        ("F", 0, 1, at + 1.0, at + 2.0),
        ("B", 0, 0, at + 5.5, at + 7.5),
        ("B", 0, 1, at + 7.5, at + 9.5),
        ("STEP", 0, -1, at + 9.5, at + 10.0),
    )
    second = report(
        step,
        ("F", 1, 0, at + 1.25, at + 2.25),
        ("F", 1, 1, at + 2.25, at + 3.25),
        ("B", 1, 0, at + 3.25, at + 5.25),
        ("B", 1, 1, at + 5.25, at + 7.25),
        ("STEP", 1, -1, at + 7.25, at + 7.75),
    )
    return first, second


def reports_of(*steps: tuple[StepReport, ...]) -> Reports:
    found = Reports(len(steps[0]))
    for each in steps:
        for rank, one in enumerate(each):
            found.add(rank, one)
    return found


def seconds(cause_s: list[float]) -> dict[str, float]:
    return {tracing.CAUSES[code]: value for code, value in enumerate(cause_s) if value}


def test_a_wait_is_for_the_other_until_it_has_the_tensor_and_for_its_way_after_that(plan: Plan) -> None:
    first, second = waits_of(plan, reports_of(one_step()), 10.0)
    assert seconds(second.cause_s) == {"upstream": 1.0 + 2.25, "transfer": 0.25}
    assert seconds(first.cause_s) == {"upstream": 5.25 - 2.0, "transfer": 0.25}
    assert [(c.source, c.target, c.microbatch, c.start_s, c.end_s) for c in second.crossings] == [
        (0, 1, 0, 1.0, 1.25)
    ]  # fmt: skip


def test_a_pause_before_work_that_waits_for_nobody_is_overhead(plan: Plan) -> None:
    first, _ = one_step()
    late = report(0, ("F", 0, 0, 0.1, 1.1), *[tuple_of(o) for o in first.operations[1:]])
    waits, _ = waits_of(plan, reports_of((late, one_step()[1])), 10.0)
    assert seconds(waits.cause_s)["polling"] == pytest.approx(0.1)


def tuple_of(operation: Operation) -> tuple[Any, ...]:
    return operation.kind, operation.chunk, operation.microbatch, operation.start_s, operation.end_s


def test_replicas_that_agree_wait_for_the_last_and_then_for_the_exchange() -> None:
    plan = make_plan(
        apply(
            load("hardware/small"),
            {
                "pipeline.stages": 1, "pipeline.replicas": 2, "sync": {}, "peers.sites": {"here": 2},
                "pipeline.schedule": {"kind": "gpipe", "microbatches": 1}, "pipeline.boundary": {"kind": "none"},
            },
        )
    )  # fmt: skip
    early = report(0, ("F", 0, 0, 0, 1), ("B", 0, 0, 1, 3), ("STEP", 0, -1, 5, 6), sync_s=(3.0, 5.0))
    late = report(0, ("F", 0, 0, 0, 1), ("B", 0, 0, 1, 4), ("STEP", 0, -1, 5, 6), sync_s=(4.0, 5.0))
    one, other = waits_of(plan, reports_of((early, late)), 6.0)
    assert seconds(one.cause_s) == {"merge_wait": 1.0, "merge_transfer": 1.0}
    assert seconds(other.cause_s) == {"merge_transfer": 1.0}


def test_what_was_given_up_was_in_vain_and_the_time_until_all_were_back_is_down_time(plan: Plan) -> None:
    reports = reports_of(one_step())
    reports.give_up_from(0, at_s=11.0)
    for rank, one in enumerate(one_step(begins_s=20.0)):
        reports.add(rank, one)
    first, second = waits_of(plan, reports, 30.0)
    assert seconds(first.cause_s) == {"thrown_away": 11.0, "down": 9.0, "upstream": 3.25, "transfer": 0.25}
    assert seconds(second.cause_s) == {"thrown_away": 11.0, "down": 10.25, "upstream": 2.25}


@pytest.mark.parametrize("given_up", [False, True])
def test_every_second_is_in_the_waterfall_and_every_micro_batch_in_the_ledger(plan: Plan, given_up: bool) -> None:
    reports = reports_of(one_step(), one_step(10.0, step=1))
    if given_up:
        reports.give_up_from(1, at_s=21.0)
        for rank, one in enumerate(one_step(begins_s=25.0, step=1)):
            reports.add(rank, one)
    record = recorded(plan, reports, 1000)
    members = [Member(peer.index, "peer") for peer in plan.peers]
    for member, final in zip(members, finals_of(plan, reports, 1000, [0.0, 0.0]), strict=True):
        member.final = final
    result = result_of(plan, record, members, seed=0, wall_s=1.0, aborted="")
    seconds_of = waterfall.gpu_seconds(result)
    assert seconds_of.sum() == pytest.approx(2 * result.duration_s)
    assert result.ledger.applied == result.ledger.created == 4
    assert result.bytes_boundary == 8 * 1000.0
    np.testing.assert_allclose(result.bytes_up, [4000.0, 4000.0])
    assert result.work_s["F"].tolist() == [4.0, 4.0]
    assert audited(plan, record, result.duration_s, 0.0, 1e-10).ok


def test_an_altered_weight_breaks_the_rule_of_the_serial_run(plan: Plan) -> None:
    record = recorded(plan, reports_of(one_step()), 1000)
    assert audited(plan, record, 10.0, 1e-3, 1e-10).broken == [7]


def test_reports_travel_as_messages() -> None:
    first, _ = one_step()
    sent = StepReport(3, first.operations, (1.0, 2.0), ((0, 5.5), (1, 5.25)))
    assert StepReport.from_message(sent.as_message()) == sent
