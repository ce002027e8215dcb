"""Merges: their bytes, their length on steady links, and who they wait for."""

from collections.abc import Callable
from typing import Any

import pytest

from orionbed import waterfall
from orionbed.merging.butterfly import butterfly_bytes
from orionbed.plan import make_plan
from orionbed.scenario import Scenario, load
from orionbed.tracing import CAUSE_BENCHED
from sim.backend import run

Make = Callable[..., Scenario]
SLOW: dict[str, Any] = {"network__uplink": 80e6, "network__downlink": 160e6, "peers__overhead": 1.0}
MERGE: dict[str, Any] = {"every": 60.0, "compute": 2.0, "quorum_relax": 0.0, "timeout": 1e6}


def test_orion_moves_30_gb_up_and_48_gb_down_per_peer() -> None:
    moved = butterfly_bytes(12.97e9, 3)
    assert moved.up == pytest.approx(12.97e9 * (1 + 4 / 3))
    assert moved.down == pytest.approx(12.97e9 * (2 + 2 / 3 + 1))
    assert (round(moved.up / 1e9), round(moved.down / 1e9)) == (30, 48)


@pytest.mark.parametrize("num_merging", [2, 3, 4, 8, 50])
def test_uploads_stay_bounded_whatever_the_number_of_peers(num_merging: int) -> None:
    moved = butterfly_bytes(1.0, num_merging)
    total = moved.up + moved.down
    assert moved.gradients_up + moved.weights_down == 2.0
    # 4 W + 2 W / n of the 2025 description, and as much again as the share of momentum that now travels along
    assert total == pytest.approx(4.0 + 3 * 2.0 / num_merging)


def test_a_lone_peer_merges_with_itself() -> None:
    assert butterfly_bytes(10.0, 1).partitions_down == 20.0


def test_a_merge_on_steady_links_takes_as_long_as_its_bytes(quiet: Make) -> None:
    scenario = quiet(stages=2, replicas=3, merge=MERGE, run={"duration": 400.0}, **SLOW)
    plan = make_plan(scenario)
    result = run(plan)
    weight_bytes = max(stage.weight_bytes for stage in plan.stages)
    moved = butterfly_bytes(float(weight_bytes), 3)
    expected_s = moved.up / 10e6 + moved.down / 20e6 + 2.0
    merges = [mark.end_s - mark.start_s for mark in result.marks if mark.kind == "merge"]
    assert len(merges) >= 3
    # The first merge opens the connections to the store; from then on they are warm.
    assert merges[1:] == pytest.approx([expected_s] * len(merges[1:]), rel=1e-9)
    smaller = butterfly_bytes(float(min(stage.weight_bytes for stage in plan.stages)), 3)
    per_merge = 3 * (moved.up + moved.down + smaller.up + smaller.down)
    assert result.bytes_merge_up + result.bytes_merge_down == pytest.approx(len(merges) * per_merge, rel=1e-9)
    assert result.merges_missed == 0


def test_work_in_flight_is_flushed_at_each_merge(quiet: Make) -> None:
    result = run(make_plan(quiet(stages=3, replicas=2, merge=MERGE, run={"duration": 250.0}, **SLOW)))
    assert result.ledger.dropped_by_reason == {"flushed at merge": result.ledger.dropped}
    assert all(epoch.dropped > 0 for epoch in result.epochs[:-1])


def test_a_relaxing_quorum_leaves_a_straggler_behind(quiet: Make) -> None:
    fast_and_slow = {"dist": "choice", "values": [80e6, 80e6, 80e6, 1e6]}
    changes = SLOW | {"network__uplink": fast_and_slow}
    patient = run(make_plan(quiet(stages=2, replicas=3, merge=MERGE, run={"duration": 3000.0, "seed": 3}, **changes)))
    hasty = MERGE | {"quorum_relax": 0.1, "quorum_every": 1.0}
    quick = run(make_plan(quiet(stages=2, replicas=3, merge=hasty, run={"duration": 3000.0, "seed": 3}, **changes)))
    assert patient.merges_missed == 0
    assert quick.merges_missed > 0
    assert quick.merging_s / len(quick.epochs) < patient.merging_s / len(patient.epochs)


def test_a_peer_that_still_averages_when_the_others_go_on_uploads_nothing_more(quiet: Make) -> None:
    hasty = MERGE | {"compute": 50.0, "timeout": 20.0}
    churn = {"up": {"dist": "exponential", "mean": 100.0}, "down": {"dist": "exponential", "mean": 5.0}}
    changes = SLOW | {"merge": hasty, "run": {"duration": 400.0}}
    plan = make_plan(quiet(stages=2, replicas=3, **changes))
    result = run(plan)
    merges = sum(mark.kind == "merge" for mark in result.marks)
    gradients = 3 * sum(stage.weight_bytes for stage in plan.stages)
    assert result.bytes_merge_up == pytest.approx(merges * gradients)
    run(make_plan(quiet(stages=2, replicas=3, churn=churn, **changes)))


@pytest.mark.parametrize("share", [0.4, 0.9])
def test_a_peer_that_leaves_while_downloading_waits_for_the_next_merge(quiet: Make, share: float) -> None:
    changes = SLOW | {"merge": MERGE | {"every": 100.0}}
    plan = make_plan(quiet(stages=2, replicas=3, run={"duration": 300.0}, **changes))
    calm = run(plan)
    merge_end_s = next(mark.end_s for mark in calm.marks if mark.kind == "merge")
    download_s = max(stage.weight_bytes for stage in plan.stages) / 20e6
    leaves_s = merge_end_s - share * download_s - calm.startup_s
    away = {"dist": "constant", "value": 0.1 * download_s}
    churn = {"up": {"dist": "choice", "values": [leaves_s, 1e9]}, "down": away}
    end_s = merge_end_s + 50.0
    result = run(make_plan(quiet(stages=2, replicas=3, churn=churn, run={"duration": end_s}, **changes)))
    downs = [mark for mark in result.marks if mark.kind == "down"]
    assert 0 < len(downs) < 6
    assert max(mark.end_s for mark in downs) < next(mark.end_s for mark in result.marks if mark.kind == "merge")
    benched_s = waterfall.gpu_seconds(result)[:, CAUSE_BENCHED].sum()
    assert benched_s == pytest.approx(sum(end_s - mark.end_s for mark in downs))


def test_a_merge_is_given_up_after_its_timeout(quiet: Make) -> None:
    brief = MERGE | {"timeout": 3.0}
    result = run(make_plan(quiet(stages=2, replicas=2, merge=brief, run={"duration": 200.0}, **SLOW)))
    assert all(mark.end_s - mark.start_s <= 9.0 + 1e-9 for mark in result.marks if mark.kind == "merge")


def test_orion_weights_are_13_gb_per_stage() -> None:
    plan = make_plan(load("orion-100b"))
    assert round(max(stage.weight_bytes for stage in plan.stages) / 1e9, 2) == 12.97
