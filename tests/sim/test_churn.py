"""Peers that come and go: what they take with them, and when they work again."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from orionbed import waterfall
from orionbed.plan import make_plan
from orionbed.scenario import Scenario
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
