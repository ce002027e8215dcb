"""Peers that come and go: what they take with them, and when they work again."""

from collections.abc import Callable
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orionbed import waterfall
from orionbed.absences import Absences
from orionbed.plan import make_plan
from orionbed.scenario import Scenario, ScenarioError
from orionbed.summary import summarise
from orionbed.tracing import CAUSE_BENCHED, CAUSE_DOWN
from sim.backend import run

Make = Callable[..., Scenario]
QUEUE: dict[str, Any] = {
    "kind": "queue", "window": 6, "router": "swarm", "recompute": "none", "status_every": 0.5,
    "poll_loop": 0.0, "poll_empty": 0.0, "poll_full": 0.0, "connect_timeout": 0.5, "cache_ttl": 30.0,
}  # fmt: skip
SLOW: dict[str, Any] = {"peers__overhead": 0.5, "pipeline__schedule": QUEUE}
# Every peer leaves after about 50 s and comes back 10 s later.
CHURN: dict[str, Any] = {
    "up": {"dist": "uniform", "low": 40.0, "high": 60.0},
    "down": {"dist": "uniform", "low": 10.0, "high": 10.1},
}


def test_departures_are_marked_and_their_seconds_counted(quiet: Make) -> None:
    result = run(make_plan(quiet(stages=2, replicas=3, churn=CHURN, run={"duration": 300.0}, **SLOW)))
    downs = [mark for mark in result.marks if mark.kind == "down"]
    assert 6 * 3 <= len(downs) <= 6 * 6
    away_s = [mark.end_s - mark.start_s for mark in downs]
    still_away = [mark for mark in downs if mark.end_s == result.duration_s]
    assert sum(10.0 <= s <= 10.1 + 1e-9 for s in away_s) == len(downs) - len(still_away)
    assert waterfall.gpu_seconds(result)[:, CAUSE_DOWN].sum() == pytest.approx(sum(away_s))


def test_what_a_lost_peer_held_is_dropped_and_what_was_on_its_way_is_sent_again(quiet: Make) -> None:
    changes = SLOW | {"network__uplink": 50e6}
    result = run(make_plan(quiet(stages=3, replicas=3, churn=CHURN, run={"duration": 600.0}, **changes)))
    reasons = result.ledger.dropped_by_reason
    assert reasons["peer lost"] > 0
    assert reasons["way back lost"] > 0
    assert result.ledger.redone > 0
    assert result.ledger.partially_applied > 0
    assert result.ledger.applied > 100


def test_without_merges_a_peer_is_back_after_fetching_its_weights(quiet: Make) -> None:
    result = run(make_plan(quiet(stages=2, replicas=2, churn=CHURN, run={"duration": 300.0}, **SLOW)))
    benched = waterfall.gpu_seconds(result)[:, CAUSE_BENCHED].sum()
    assert 0.0 <= benched < 1.0


def test_with_merges_a_peer_is_benched_until_the_next_epoch(quiet: Make) -> None:
    merge = {"every": 100.0, "compute": 0.1}
    result = run(make_plan(quiet(stages=2, replicas=3, churn=CHURN, merge=merge, run={"duration": 500.0}, **SLOW)))
    assert waterfall.gpu_seconds(result)[:, CAUSE_BENCHED].sum() > 100.0


def test_a_stage_without_peers_stalls_the_run_and_it_recovers(quiet: Make) -> None:
    changes = SLOW | {"pipeline__schedule": QUEUE | {"cache_ttl": 1.0}}
    result = run(make_plan(quiet(stages=2, replicas=1, churn=CHURN, run={"duration": 600.0, "seed": 5}, **changes)))
    gaps = np.diff(result.applied_s)
    assert gaps.max() >= 10.0
    assert result.applied_s[-1] > 500.0


@pytest.mark.parametrize("kind", ["gpipe", "1f1b"])
def test_a_static_schedule_loses_its_step_and_begins_a_new_one(quiet: Make, kind: str) -> None:
    schedule = {"kind": kind, "microbatches": 4, "recompute": "none"}
    changes = SLOW | {"pipeline__schedule": schedule}
    result = run(make_plan(quiet(stages=3, replicas=2, churn=CHURN, run={"duration": 600.0}, **changes)))
    assert result.ledger.dropped_by_reason["peer lost"] > 0
    assert result.ledger.partially_applied >= 0
    assert result.applied_s[-1] > 500.0


def test_a_lost_micro_batch_keeps_its_slots_until_they_expire(quiet: Make) -> None:
    def applied(ttl_s: float) -> int:
        changes = SLOW | {"pipeline__schedule": QUEUE | {"cache_ttl": ttl_s}}
        return run(
            make_plan(quiet(stages=3, replicas=3, churn=CHURN, run={"duration": 900.0}, **changes))
        ).ledger.applied

    assert applied(1.0) > applied(1000.0)


PARTS: dict[str, Any] = {
    "flapping": {"share": 0.5, "up": {"dist": "exponential", "mean": 60.0}, "down": 5.0},
    "bulk": {"of": "stage", "rate_per_hour": 30.0, "down": 8.0},
    "windows": [{"at": 40.0, "for": 15.0, "every": 100.0, "stagger": 20.0}],
    "liquid": {"market": 1.2, "repriced_every": 20.0, "reverts_in": 60.0, "share": 0.5},
    "diurnal": {
        "available_from": 86380.0, "available_until": 120.0, "jitter": 10.0, "utc_offset": {"virginia": -30.0},
    },
}  # fmt: skip


@pytest.mark.parametrize("parts", [["flapping"], ["bulk"], ["windows"], ["liquid"], ["diurnal"], list(PARTS)])
def test_peers_are_away_when_their_absences_say_so(quiet: Make, parts: list[str]) -> None:
    churn = {part: PARTS[part] for part in parts}
    plan = make_plan(quiet(stages=2, replicas=2, churn=churn, run={"duration": 300.0, "seed": 3}, **SLOW))
    result = run(plan)
    result.ledger.check()
    absences = Absences(plan, 3, result.startup_s)
    wanted = [
        (peer.index, absence.start_s, min(absence.end_s, 300.0), absence.reason)
        for peer in plan.peers
        for absence in takewhile(lambda one: one.start_s < 300.0, absences.of(peer.index))
    ]
    found = [(mark.peer, mark.start_s, mark.end_s, mark.detail) for mark in result.marks if mark.kind == "down"]
    assert sorted(found) == sorted(wanted)
    assert found
    seconds = waterfall.gpu_seconds(result)
    assert seconds.sum() == pytest.approx(4 * 300.0)
    assert seconds[:, CAUSE_DOWN].sum() == pytest.approx(sum(end - start for _, start, end, _ in wanted))
    block = summarise(result, None, git="", started_at="")["churn"]
    assert block["departures"] == len(wanted) == sum(block["departures_by_reason"].values())
    away_s = sum(end - start for _, start, end, _ in wanted)
    assert block["availability"] == pytest.approx(1.0 - away_s / (4 * (300.0 - result.startup_s)))


def test_who_is_away_at_first_comes_when_the_trace_says_so(quiet: Make, tmp_path: Path) -> None:
    trace = tmp_path / "late.csv"
    trace.write_text("t,peer,state\n100,s01r1,up\n2 min,s00r0,down\n")
    churn = {"trace": str(trace)}
    result = run(make_plan(quiet(stages=2, replicas=2, churn=churn, run={"duration": 200.0}, **SLOW)))
    start_s = result.startup_s
    down = {mark.peer: (mark.start_s, mark.end_s) for mark in result.marks if mark.kind == "down"}
    assert down == {3: (start_s, start_s + 100.0), 0: (start_s + 120.0, 200.0)}
    assert result.work_s["B"][3] > 10.0
    assert result.applied_s[-1] > 190.0


def test_an_empty_stage_is_counted(quiet: Make) -> None:
    churn = {"windows": [{"at": 50.0, "for": 30.0, "who": "stage:1"}]}
    result = run(make_plan(quiet(stages=3, replicas=2, churn=churn, run={"duration": 200.0}, **SLOW)))
    block = summarise(result, None, git="", started_at="")["churn"]
    assert (block["worst_stage"], block["min_peers_in_worst_stage"]) == (1, 0)
    assert block["empty_stage_s"] == pytest.approx(30.0)
    assert block["departures_by_reason"] == {"windows": 2}


def test_who_is_told_beforehand_loses_nothing(quiet: Make) -> None:
    def dropped(notice_s: float) -> dict[str, int]:
        # Every peer of a replica leaves, one after the other; all others can take its work.
        window = {"at": 60.0, "for": 40.0, "every": 120.0, "who": "replica:1", "stagger": 1.0, "notice": notice_s}
        changes = SLOW | {"pipeline__schedule": QUEUE | {"cache_ttl": 1e6}}
        plan = make_plan(quiet(stages=3, replicas=3, churn={"windows": [window]}, run={"duration": 500.0}, **changes))
        result = run(plan)
        result.ledger.check()
        assert result.ledger.applied > 300
        assert {mark.peer for mark in result.marks} == {1, 4, 7}
        return dict(result.ledger.dropped_by_reason)

    assert sum(dropped(0.0).values()) > 10
    assert dropped(40.0) == {}


def test_notice_is_for_queues(quiet: Make) -> None:
    window = {"at": 60.0, "for": 40.0, "notice": 5.0}
    with pytest.raises(ScenarioError, match=r"churn\.windows\.0\.notice: is for the queue-driven schedule"):
        quiet(stages=2, churn={"windows": [window]}, pipeline__schedule={"kind": "1f1b", "microbatches": 4})
