"""Merges by every algorithm on steady links: bytes and seconds of the closed forms, and what failures leave."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orionbed import tracing, waterfall
from orionbed.deadlines import longest_wait_s
from orionbed.merging.closed_forms import Case, bytes_per_peer, expected_coverage, seconds
from orionbed.merging.coding import contribution_bits
from orionbed.plan import Plan, make_plan
from orionbed.results import RunResult
from orionbed.scenario import Scenario, ScenarioError
from orionbed.scenario.merging import Merge
from sim.backend import run

Make = Callable[..., Scenario]
RATE = 10e6
DELAY_S = 0.02
LINKS: dict[str, Any] = {
    "network__uplink": 8 * RATE, "network__downlink": 8 * RATE, "network__delay": DELAY_S,
    "network__delay_inside": DELAY_S, "network__storage": {"delay": DELAY_S}, "peers__overhead": 1.0,
}  # fmt: skip
ALGORITHMS = ("butterfly", "ring", "tree", "central-ps", "sharded-ps", "gossip", "grouped", "gather")
PEERS = tuple(name for name in ALGORITHMS if name not in {"butterfly", "gather"})
# One stage of many peers and little else: what a merge comes to does not depend on the pipeline.
SMALL = {
    "model__layers": 1, "model__hidden": 64, "model__ffn": 64, "model__heads": 2, "model__kv_heads": 2,
    "model__vocab": 64,
}  # fmt: skip


def merged(quiet: Make, stages: int, replicas: int, merges: int = 6, **merge: Any) -> tuple[Plan, RunResult]:
    # Nothing is flushed, so that connections stay warm.
    block = {"every": 50.0, "compute": 2.0, "quorum_relax": 0.0, "flush": False} | merge
    changes = {"run": {"duration": 1e6, "trace": "summary"}} | LINKS
    plan = make_plan(quiet(stages=stages, replicas=replicas, merge=block, **changes))
    return plan, run(plan, max_epochs=merges)


def lengths_s(result: RunResult) -> list[float]:
    """How long merges took; the first one opens connections."""
    return [mark.end_s - mark.start_s for mark in result.marks if mark.kind == "merge"][1:]


def case_of(plan: Plan) -> Case:
    block, one, replicas = plan.scenario.merge, plan.stages[0], plan.num_replicas
    assert not isinstance(block, str)
    bits = contribution_bits(block.codec, one.parameters, one.weight_bytes)
    return Case(
        block.algorithm, replicas, bits / 8 / block.fragments, one.weight_bytes / block.fragments,
        group_size=block.group_size, rounds=block.rounds, momentum=block.outer == "nesterov",
    )  # fmt: skip


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("replicas", [1, 2, 3, 5])
def test_bytes_and_seconds_are_those_of_the_closed_form(quiet: Make, algorithm: str, replicas: int) -> None:
    # One stage, so that no boundary tensor is on the links when a merge begins.
    plan, result = merged(quiet, 1, replicas, algorithm=algorithm, group_size=2)
    case = case_of(plan)
    sent, received = (6 * replicas * amount for amount in bytes_per_peer(case))
    if algorithm != "gossip" or replicas % 2 == 0:  # else the last merge has only begun when somebody trains on
        assert result.bytes_merge_up == pytest.approx(sent, rel=1e-12)
        assert result.bytes_merge_down == pytest.approx(received, rel=1e-12)
    expected_s = seconds(case, RATE, DELAY_S) + 2.0
    if algorithm == "gossip" and replicas % 2:
        expected_s = 0.0  # who has no partner goes on at once
    found = lengths_s(result)
    assert found
    if algorithm == "gossip":
        found = [min(found)]  # others are between peers that never met before
    assert found == pytest.approx([expected_s] * len(found), rel=1e-6, abs=1e-6)
    assert set(result.merge_counts.covered) == {1.0} or algorithm == "gossip"
    assert result.merges_missed == 0


@pytest.mark.parametrize("codec", ["int8", "sparse", "sparta"])
@pytest.mark.parametrize("fragments", [1, 3])
def test_a_codec_and_fragments_make_every_merge_smaller(quiet: Make, codec: str, fragments: int) -> None:
    algorithm = "gather" if codec == "sparse" else "ring"
    coded = {"kind": codec, "encode": 0.9, "decode": 1.5}
    plan, result = merged(quiet, 1, 3, algorithm=algorithm, codec=coded, fragments=fragments)
    expected_s = seconds(case_of(plan), RATE, DELAY_S) + (0.9 + 1.5 + 2.0) / fragments
    found = lengths_s(result)
    assert found == pytest.approx([expected_s] * len(found), rel=1e-6)
    starts = [mark.start_s for mark in result.marks if mark.kind == "merge"]
    operation_s = 1.2  # is finished first
    assert (np.diff(starts)[1:] >= 50.0 / fragments + expected_s - 1e-6).all()
    assert (np.diff(starts)[1:] <= 50.0 / fragments + expected_s + 2 * operation_s).all()


@pytest.mark.parametrize("algorithm", PEERS)
def test_through_the_store_every_message_goes_up_and_down(quiet: Make, algorithm: str) -> None:
    plan, result = merged(quiet, 1, 4, algorithm=algorithm, via="object-storage")
    sent = 6 * 4 * bytes_per_peer(case_of(plan))[0]
    assert result.bytes_merge_up == pytest.approx(sent, rel=1e-9)
    assert result.bytes_storage_read - 4 * plan.stages[0].weight_bytes == pytest.approx(sent, rel=1e-9)


@pytest.mark.parametrize("algorithm", PEERS)
def test_a_merge_beside_training_stops_nobody(quiet: Make, algorithm: str) -> None:
    _, result = merged(quiet, 2, 4, 13, algorithm=algorithm, overlap=True, fragments=2)
    merges = [mark for mark in result.marks if mark.kind == "merge-beside"]
    assert len(merges) >= 12
    assert result.merging_s == 0.0
    assert result.ledger.dropped == 0
    spent = waterfall.gpu_seconds(result).sum(axis=0)
    assert spent[[tracing.CAUSE_MERGE_TRANSFER, tracing.CAUSE_MERGE_WAIT, tracing.CAUSE_MERGE_COMPUTE]].sum() == 0.0
    assert all(later.start_s >= earlier.end_s for earlier, later in pairwise(merges))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_without_a_flush_nothing_is_lost(quiet: Make, algorithm: str) -> None:
    flushing, keeping = (merged(quiet, 3, 4, algorithm=algorithm, flush=flush)[1] for flush in (True, False))
    assert flushing.ledger.dropped > 0
    # In gossip the first pairs train on while the others, of other stages, are still away.
    assert keeping.ledger.dropped == 0 or algorithm == "gossip"
    keeping.ledger.check()
    waterfall.gpu_seconds(keeping)


@pytest.mark.parametrize("algorithm", PEERS)
@pytest.mark.parametrize("q", [0.1, 0.35])
def test_failures_leave_what_is_expected(quiet: Make, algorithm: str, q: float) -> None:
    block = {"every": 1.0, "failure": q, "failure_timeout": 0.2, "compute": 0.0, "algorithm": algorithm}
    scenario = quiet(stages=1, replicas=4, merge=block, run={"duration": 1e6, "trace": "summary"}, **LINKS, **SMALL)
    covered = run(make_plan(scenario), max_epochs=250).merge_counts.covered
    expected = expected_coverage(algorithm, 4, q, 3)
    assert np.mean(covered) == pytest.approx(expected, abs=4 * np.std(covered) / len(covered) ** 0.5 + 1e-9)


@pytest.mark.parametrize("partitions", ["pairs", "2026"])
def test_a_butterfly_loses_what_both_holders_lost(quiet: Make, partitions: str) -> None:
    block = {
        "every": 1.0, "failure": 0.35, "compute": 0.0, "partitions": partitions,
        "deadline": {"kind": "fixed", "wait": 3.0},
    }  # fmt: skip
    scenario = quiet(stages=1, replicas=6, merge=block, run={"duration": 1e6, "trace": "summary"}, **LINKS, **SMALL)
    covered = run(make_plan(scenario), max_epochs=200).merge_counts.covered
    expected = expected_coverage("butterfly", 6, 0.35, 1)
    assert expected == 1.0 - 0.35**2
    assert np.mean(covered) == pytest.approx(expected, abs=4 * np.std(covered) / len(covered) ** 0.5)


def test_too_little_coverage_is_refused_after_three_tries(quiet: Make) -> None:
    always = {"failure": 1.0, "coverage_floor": 0.9, "deadline": {"kind": "fixed", "wait": 20.0}}
    plan, result = merged(quiet, 1, 3, **always)
    merges = [mark.end_s - mark.start_s for mark in result.marks if mark.kind == "merge"]
    counts = result.merge_counts
    assert set(counts.covered) == {0.0}
    assert (counts.refused, counts.retries, counts.failures) == (6, 2 * 6, 3 * 3 * 6)
    # All uploads are there before the gate's time is up; nobody downloads weights that nobody merged.
    upload_s = max(stage.weight_bytes for stage in plan.stages) / RATE + DELAY_S
    assert merges[1:] == pytest.approx([upload_s + 3 * 20.0] * len(merges[1:]), rel=1e-6)
    assert result.bytes_merge_down == 0.0


def test_a_ring_waits_for_a_silent_peer_and_begins_anew_without_it(quiet: Make) -> None:
    plan, result = merged(quiet, 1, 3, algorithm="ring", failure=0.3, failure_timeout=7.0, merges=12)
    weight_bytes = float(plan.stages[0].weight_bytes)
    possible = [
        7.0 * tries + seconds(Case("ring", count, weight_bytes), RATE, DELAY_S) + 2.0
        for tries in range(3)
        for count in (1, 2, 3)
    ] + [7.0, 14.0, 21.0]
    for length_s in lengths_s(result):
        assert min(abs(length_s - each) for each in possible) < 0.3  # whoever is new has connections to open
    assert result.merge_counts.retries > 0


def test_a_peer_that_leaves_while_it_averages_does_not_come_back_before_the_next_merge(quiet: Make) -> None:
    download_s = 2 * make_plan(quiet(stages=1, replicas=3)).stages[0].weight_bytes / RATE
    # The gate opens in the middle of the averaging, and everybody joins when that is over.
    deadline = {"kind": "fixed", "wait": download_s + 10.0}
    block = {"algorithm": "gather", "every": 100.0, "compute": 20.0, "deadline": deadline}
    changes = LINKS | {"stages": 1, "replicas": 3, "merge": block}
    calm = run(make_plan(quiet(run={"duration": 300.0}, **changes)))
    merge_end_s = next(mark.end_s for mark in calm.marks if mark.kind == "merge")
    leaves_s = merge_end_s - 5.0 - calm.startup_s
    churn = {"up": {"dist": "choice", "values": [leaves_s, 1e9]}, "down": {"dist": "constant", "value": 2.0}}
    end_s = merge_end_s + 50.0
    result = run(make_plan(quiet(churn=churn, run={"duration": end_s, "seed": 1}, **changes)))
    downs = [mark for mark in result.marks if mark.kind == "down"]
    assert 0 < len(downs) < 3
    benched_s = waterfall.gpu_seconds(result)[:, tracing.CAUSE_BENCHED].sum()
    assert benched_s == pytest.approx(sum(end_s - mark.end_s for mark in downs))


@pytest.mark.parametrize("overlap", [False, True])
def test_a_stage_whose_exchange_is_too_late_keeps_its_own_weights(quiet: Make, overlap: bool) -> None:
    plan, result = merged(quiet, 2, 3, algorithm="tree", overlap=overlap, deadline={"kind": "fixed", "wait": 3.0})
    lasting_s = [seconds(Case("tree", 3, float(stage.weight_bytes)), RATE, DELAY_S) for stage in plan.stages]
    assert min(lasting_s) > 3.0
    counts = result.merge_counts
    assert set(counts.covered) == {0.0}
    assert counts.refused == 2 * len(counts.arrivals_s)
    assert result.merges_missed == 6 * len(counts.arrivals_s)
    assert overlap or max(lengths_s(result)) == pytest.approx(3.0)


@pytest.mark.parametrize(
    "deadline",
    [
        {"kind": "fixed", "wait": 3.0},
        {"kind": "mad", "k": 1.0},
        {"kind": "quorum-grace", "quorum": 0.5, "grace": 0.5},
        None,
    ],
)
def test_no_phase_is_longer_than_the_rule_allows(quiet: Make, deadline: dict[str, Any] | None) -> None:
    uneven = {"network__uplink": {"dist": "choice", "values": [80e6, 80e6, 80e6, 20e6]}}
    block = {"every": 60.0, "compute": 1.0, "quorum_relax": 0.1, "quorum_every": 1.0, "timeout": 100.0}
    given_ = block | ({} if deadline is None else {"deadline": deadline})
    scenario = quiet(stages=2, replicas=4, merge=given_, run={"duration": 600.0, "seed": 3}, **(LINKS | uneven))
    result = run(make_plan(scenario))
    assert isinstance(scenario.merge, Merge)
    merges = [mark for mark in result.marks if mark.kind == "merge"]
    assert all(mark.end_s - mark.start_s <= 3 * longest_wait_s(scenario.merge) + 1e-6 for mark in merges)
    assert all(len(arrived) <= 8 for arrived in result.merge_counts.arrivals_s)
    if deadline is not None:
        assert any(len(arrived) < 8 for arrived in result.merge_counts.arrivals_s)


@pytest.mark.parametrize(
    ("merge", "message"),
    [
        ({"algorithm": "butterfly", "via": "peers"}, "merge.via: the butterfly goes through the store"),
        ({"algorithm": "ring", "codec": {"kind": "sparse"}}, "merge.codec.kind: sparse contributions cannot be summed"),
        ({"algorithm": "butterfly", "overlap": True}, "merge.overlap: the butterfly stops training"),
        ({"algorithm": "gossip", "deadline": {"kind": "all"}}, "merge.deadline: gossip has no barrier"),
        ({"algorithm": "gather", "codec": {"kind": "sparse", "keep": 9, "chunk": 8}}, "merge.codec.keep: 9 of a chunk"),
    ],
)
def test_what_cannot_be_is_refused(quiet: Make, merge: dict[str, Any], message: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        quiet(merge={"every": 60.0} | merge)
    assert message in str(caught.value)


@pytest.mark.parametrize(("key", "value"), [("overlap", True), ("flush", False)])
def test_a_fixed_batch_is_flushed_and_stops(quiet: Make, key: str, value: object) -> None:
    fixed = {"kind": "1f1b", "microbatches": 4}
    with pytest.raises(ScenarioError, match=f"merge.{key}"):
        quiet(pipeline__schedule=fixed, merge={"every": 60.0, "algorithm": "ring", key: value})


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    algorithm=st.sampled_from(ALGORITHMS),
    replicas=st.integers(1, 4),
    flush=st.booleans(),
    overlap=st.booleans(),
    fragments=st.integers(1, 3),
    failure=st.sampled_from([0.0, 0.3]),
    seed=st.integers(0, 50),
)
def test_accounts_balance_whatever_happens(
    quiet: Make, algorithm: str, replicas: int, flush: bool, overlap: bool, fragments: int, failure: float, seed: int
) -> None:
    block = {
        "algorithm": algorithm, "every": 40.0, "compute": 1.0, "flush": flush, "fragments": fragments,
        "overlap": overlap and algorithm != "butterfly", "failure": failure, "failure_timeout": 5.0, "timeout": 90.0,
        "quorum_every": 1.0,
    }  # fmt: skip
    churn = {"up": {"dist": "exponential", "mean": 80.0}, "down": {"dist": "exponential", "mean": 8.0}}
    scenario = quiet(
        stages=2, replicas=replicas, merge=block, churn=churn, run={"duration": 300.0, "seed": seed}, **LINKS
    )
    result = run(make_plan(scenario))
    waterfall.gpu_seconds(result)
    assert result.bytes_merge_up >= 0.0
    assert all(0.0 <= share <= 1.0 for share in result.merge_counts.covered)
    held = sum(len(peers) for peers in result.merge_counts.arrivals_s)
    assert held <= 2 * replicas * len(result.merge_counts.arrivals_s)
