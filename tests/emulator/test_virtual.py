"""Schedules with a fixed batch in virtual time: as simulated up to rounding, and the weights as they must be."""

from collections.abc import Callable
from typing import Any

import pytest

from emulator.api import run
from orionbed.audit import audit
from orionbed.backends import BackendError
from orionbed.crosscheck import crosscheck
from orionbed.journal import Entry
from orionbed.plan import Plan, make_plan
from orionbed.results import RunResult
from orionbed.scenario import Scenario

Tiny = Callable[..., Scenario]

SCHEDULES: dict[str, dict[str, Any]] = {
    "gpipe": {"kind": "gpipe", "microbatches": 4},
    "1f1b": {"kind": "1f1b", "microbatches": 4, "recompute": "none"},
    "interleaved": {"kind": "interleaved-1f1b", "microbatches": 6, "chunks": 2},
    "zb-h1": {"kind": "zb-h1", "microbatches": 4},
    "zb-h2": {"kind": "zb-h2", "microbatches": 4, "recompute": "none"},
    "zb-2p": {"kind": "zb-2p", "microbatches": 4},
    "zb-v": {"kind": "zb-v", "microbatches": 6},
    "dualpipe-v": {"kind": "dualpipe-v", "microbatches": 6},
    "opportunistic": {"kind": "opportunistic", "microbatches": 4, "split_backward": True},
}
EXACT = {"dtype": "float64", "reference": True}


@pytest.mark.slow
@pytest.mark.xdist_group("emulator")
@pytest.mark.parametrize("name", SCHEDULES)
def test_order_time_and_weights_are_as_simulated_and_as_the_plain_models(tiny: Tiny, name: str) -> None:
    schedule = SCHEDULES[name]
    scenario = tiny(pipeline__schedule=schedule, run__tokens=3 * schedule["microbatches"] * 16384.0, emulator=EXACT)
    (found,), _ = crosscheck(scenario, [0])
    assert not found.void
    assert found.same_order
    assert found.error == pytest.approx(0.0, abs=1e-9)


@pytest.fixture(name="finished", scope="module")
def _finished(tiny: Tiny) -> tuple[Plan, RunResult]:
    scenario = tiny(
        pipeline__replicas=2, peers__sites={"virginia": 4, "oregon": 2}, sync={"algorithm": "ring"},
        run__tokens=24 * 16384.0, emulator=EXACT, network__jitter={},
    )  # fmt: skip
    plan = make_plan(scenario)
    return plan, run(plan)


@pytest.mark.slow
@pytest.mark.xdist_group("emulator")
def test_a_run_is_the_same_to_the_bit_every_time(finished: tuple[Plan, RunResult]) -> None:
    plan, first = finished
    second = run(plan)
    assert first.journal == second.journal
    assert first.duration_s == second.duration_s
    assert (first.other_s == second.other_s).all()
    assert first.trace is not None
    assert second.trace is not None
    assert all((first.trace[name] == second.trace[name]).all() for name in first.trace)


@pytest.mark.xdist_group("emulator")
def test_replicas_that_share_gradients_follow_the_plain_model(finished: tuple[Plan, RunResult]) -> None:
    _, result = finished
    rules = result.backend_block["audit"]["rules"]
    assert not result.aborted
    assert [rule["rule"] for rule in rules if rule["violations"]] == []
    assert all(rules[number - 1]["checked"] for number in (1, 2, 3, 4, 5, 6, 7))
    assert result.trace is not None
    assert result.trace.problems() == []


@pytest.mark.xdist_group("emulator")
def test_text_boundaries_and_clipped_stages_follow_the_plain_model_too(tiny: Tiny) -> None:
    optimizer = {"kind": "nadam", "warm_up": 2, "clip": 0.1}
    scenario = tiny(
        pipeline__stages=2, peers__sites={"virginia": 1, "oregon": 1},
        pipeline__boundary={"kind": "resbm", "width": 1024}, emulator=EXACT,
        training={"data": {"kind": "text"}, "optimizer": optimizer},
    )  # fmt: skip
    result = run(make_plan(scenario))
    rules = {rule["rule"]: rule for rule in result.backend_block["audit"]["rules"]}
    assert result.ledger.applied == 12
    assert rules[7]["checked"]
    assert [number for number, rule in rules.items() if rule["violations"]] == []


def mutated(entries: list[Entry], how: str) -> list[Entry]:
    """Tamper with an honest journal in one of the ways that a faulty run could."""
    applied = [entry for entry in entries if entry.event == "applied" and entry.step == 2]
    victim = applied[0].microbatch
    if how == "drop one silently":
        return [e for e in entries if not (e.microbatch == victim and e.event in {"applied", "accumulated"})]
    if how == "apply one twice":
        return [*entries, replace_entry(applied[0], step=3)]
    if how == "skip a stage":
        last = max(entry.chunk for entry in applied)
        return [e for e in entries if not (e.microbatch == victim and e.event == "applied" and e.chunk == last)]
    if how == "wrong divisor":
        return [replace_entry(e, detail="3") if e is applied[0] else e for e in entries]
    assert how == "stale replica"
    committed = next(e for e in entries if e.event == "committed" and e.step == 2)
    return [replace_entry(e, detail="0" * 16) if e is committed else e for e in entries]


def replace_entry(entry: Entry, **changes: Any) -> Entry:
    return entry._replace(**changes)


@pytest.mark.xdist_group("emulator")
@pytest.mark.parametrize(
    ("how", "rule"),
    [
        ("drop one silently", 2),
        ("apply one twice", 1),
        ("skip a stage", 1),
        ("wrong divisor", 3),
        ("stale replica", 4),
    ],
)
def test_the_audit_sees_what_was_done_to_a_real_journal(finished: tuple[Plan, RunResult], how: str, rule: int) -> None:
    plan, result = finished
    settings: dict[str, Any] = {
        "num_chunks": plan.num_chunks, "fixed_batch": True, "synced": True, "end_s": result.duration_s,
        "recovery_deadline_s": 600.0, "bytes_sent": 0, "bytes_delivered": 0, "bytes_in_flight": 0, "bytes_destroyed": 0,
    }  # fmt: skip
    assert audit(result.journal, **settings).ok
    assert rule in audit(mutated(result.journal, how), **settings).broken


@pytest.mark.xdist_group("emulator")
def test_processor_time_is_measured_and_said_to_be_a_demonstration(tiny: Tiny) -> None:
    result = run(make_plan(tiny(emulator={"clock": "cpu"})))
    assert result.ledger.applied >= 12
    assert any(one["code"] == "cpu-clock" for one in result.warnings)
    assert result.duration_s > 0.0


def test_what_cannot_be_emulated_is_refused_at_once(tiny: Tiny) -> None:
    scenario = tiny(
        pipeline__schedule={"kind": "queue"}, merge={"every": 60.0}, churn={"up": 60.0, "down": 1.0}
    )  # fmt: skip
    with pytest.raises(BackendError) as error:
        run(make_plan(scenario))
    assert len(str(error.value).splitlines()) == 3
    assert "use paced" in str(error.value)
