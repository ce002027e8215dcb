"""Faults in whole runs: each kind alone, exact where there is a closed form, and what the run says about them."""

from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import pytest

from orionbed import tracing, waterfall
from orionbed.plan import Plan, make_plan
from orionbed.results import RunResult
from orionbed.scenario import Scenario
from orionbed.scenario.faults import Fault
from sim.backend import run

Make = Callable[..., Scenario]
Simple = Callable[..., Plan]

FIXED = {"kind": "1f1b", "microbatches": 4, "recompute": "none"}
LINKED: dict[str, Any] = {
    "stages": 2, "replicas": 2, "peers__overhead": 0.05, "network__uplink": 2e8, "network__downlink": 2e8,
    "network__delay": 0.01,
}  # fmt: skip
ONE: dict[str, dict[str, Any]] = {
    "crash": {"at": 2.0, "target": "peer:s01r0", "restart": {"after": 1.0}},
    "pause": {"at": 2.0, "for": 1.0, "target": "peer:s01r0"},
    "slow": {"at": 2.0, "for": 3.0, "target": "peer:s01r0", "compute_factor": 3.0},
    "link": {"at": 2.0, "for": 3.0, "from": "*", "to": "stage:1", "capacity": "0.1x"},
    "partition": {"at": 2.0, "for": 2.0, "groups": [["stage:0"], ["*"]]},
    "corrupt": {"at": 2.0, "for": 3.0, "from": "*", "to": "*", "per_chunk": 0.1},
    "clock": {"at": 2.0, "for": 8.0, "target": "peer:s01r0", "offset": -10.0},
    "flap": {"at": 2.0, "for": 3.0, "from": "*", "to": "*", "period": 0.5, "duty": 0.5},
    "churn": {"to": 9.0, "rate_per_peer_hour": 600.0, "restart": {"after": 0.5}, "max_down": 1},
}
both = pytest.mark.parametrize("schedule", ["queue", "1f1b"])


def fault(kind: str, name: str = "f", **changes: Any) -> dict[str, Any]:
    return {"id": name, "kind": kind} | ONE[kind] | changes


def simulate(quiet: Make, *faults: dict[str, Any], schedule: str = "queue", **changes: Any) -> RunResult:
    given = LINKED | ({} if schedule == "queue" else {"pipeline__schedule": FIXED})
    given |= {"run": {"duration": 10.0, "trace": "full"}, "faults": list(faults)} | changes
    result = run(make_plan(quiet(**given)), fetches=False)
    assert waterfall.gpu_seconds(result).sum(axis=1) == pytest.approx(
        np.full(len(result.plan.peers), result.duration_s)
    )
    assert result.trace is not None
    assert result.trace.problems() == []
    return result


def exact(quiet: Make, simple: Simple, *faults: dict[str, Any]) -> RunResult:
    """One peer alone that takes 3 s for a micro-batch, and nothing for optimizer steps."""
    scenario = quiet(1, 1, faults=list(faults), run={"duration": 60.0, "trace": "full"})
    return run(simple(scenario, {"F": 1.0, "B": 2.0}, fused=True), fetches=False)


def rate(result: RunResult, from_s: float, to_s: float) -> float:
    applied_s = result.applied_s
    return float(((applied_s > from_s) & (applied_s <= to_s)).sum()) / (to_s - from_s)


def delivered_s(result: RunResult, *pairs: tuple[int, int]) -> list[tuple[float, float]]:
    """When messages of these pairs were sent and when they arrived, from the trace of sender and receiver."""
    trace = result.trace
    assert trace is not None
    kinds = {name: trace["kind"] == trace.kinds.index(name) for name in ("send", "receive")}
    spans = {
        name: list(zip(*(trace[column][rows].tolist() for column in ("peer", "start_s", "end_s")), strict=True))
        for name, rows in kinds.items()
    }
    return [
        (send[1], send[2])
        for send, receive in zip(spans["send"], spans["receive"], strict=True)
        if (send[0], receive[0]) in pairs
    ]


# ---------------------------------------------------------------- each kind alone


@both
@pytest.mark.parametrize("kind", list(ONE))
def test_each_kind_hits_and_costs_something(quiet: Make, kind: str, schedule: str) -> None:
    calm = simulate(quiet, schedule=schedule)
    result = simulate(quiet, fault(kind), schedule=schedule)
    if kind == "clock" and schedule == "1f1b":
        (row,) = result.faults
        assert row["hit"] is False
        assert "clock" in row["remark"]
        assert result.applied_s.tobytes() == calm.applied_s.tobytes()
        return
    assert any(row["hit"] for row in result.faults)
    # A chunk that is sent again may cost less than a micro-batch.
    assert result.ledger.applied < calm.ledger.applied + (kind == "corrupt")
    assert result.applied_s.tobytes() != calm.applied_s.tobytes()
    assert {row["kind"] for row in result.faults} == {"crash" if kind == "churn" else kind}


@both
@pytest.mark.parametrize("kind", list(ONE))
def test_what_would_happen_after_the_end_hits_nothing(quiet: Make, kind: str, schedule: str) -> None:
    calm = simulate(quiet, schedule=schedule)
    late = {"from": 11.0, "to": 20.0} if kind == "churn" else {"at": 11.0}
    result = simulate(quiet, fault(kind, **late), schedule=schedule)
    assert result.applied_s.tobytes() == calm.applied_s.tobytes()
    assert not any(row["hit"] for row in result.faults)


@pytest.mark.parametrize("kind", [kind for kind in ONE if kind != "churn"])
def test_what_is_over_before_training_begins_hits_nothing(quiet: Make, kind: str) -> None:
    times = {"at": 0.5} | ({} if kind == "crash" else {"for": 1.0})
    late = {"duration": 10.0, "startup": 3.0, "trace": "full"}
    calm = simulate(quiet, run=late)
    result = simulate(quiet, fault(kind, **times), run=late)
    assert [row["hit"] for row in result.faults] == [False]
    assert result.applied_s.tobytes() == calm.applied_s.tobytes()


def test_the_summary_lists_every_fault_and_warns_of_those_that_hit_nothing(quiet: Make) -> None:
    from orionbed.summary import summarise
    from sim.api import simulate_baseline

    result = simulate(quiet, fault("crash", "k1"), fault("slow", "s1", at=30.0), datacenter__horizon=10.0)
    summary = summarise(result, simulate_baseline(result.plan.scenario, 0), git="", started_at="")
    assert [(row["id"], row["hit"], row["who"]) for row in summary["faults"]] == [
        ("k1", True, ["s01r0"]), ("s1", False, ["s01r0"]),
    ]  # fmt: skip
    (warned,) = [entry for entry in summary["warnings"] if entry["code"] == "fault-hit-nothing"]
    assert "s1" in warned["message"]
    assert "k1" not in warned["message"]


def test_heal_at_puts_everything_right(quiet: Make) -> None:
    lasting = [fault(kind, kind, **{"for": None}) for kind in ("slow", "link", "partition", "pause", "corrupt")]
    lasting += [fault("crash", "crash", restart="none")]
    calm = simulate(quiet, run={"duration": 30.0, "trace": "full"})
    for one in lasting:
        block = {"list": [one], "heal_at": 5.0}
        result = simulate(quiet, faults=block, run={"duration": 30.0, "trace": "full"})
        assert rate(result, 15.0, 30.0) == pytest.approx(rate(calm, 15.0, 30.0), rel=0.02), one["kind"]


OTHER: dict[str, dict[str, Any]] = {
    "crash": {"at": 3.0, "target": "peer:s00r0", "restart": {"after": 3.0}},
    "pause": {"at": 3.0, "for": 2.0, "target": {"pick": 2, "of": "*"}},
    "slow": {"at": 3.0, "for": 5.0, "target": "peer:s00r1", "compute_factor": 9.0},
    "link": {"at": 3.0, "for": 5.0, "from": "replica:0", "to": "stage:0", "capacity": 1e6, "owd": "+0.3 s",
             "jitter_sd": 0.1, "loss": 0.3},
    "partition": {"at": 3.0, "for": 4.0, "groups": [["stage:0"], ["peer:s01r0"]], "direction": "from", "mode": "reset"},
    "corrupt": {"at": 3.0, "for": 5.0, "from": "stage:0", "to": "stage:0", "per_chunk": 0.3},
    "clock": {"at": 5.5, "for": 2.0, "target": "peer:s01r1", "offset": 0.0},
    "flap": {"at": 3.0, "for": 5.0, "from": "stage:0", "to": "stage:0", "period": 0.7, "duty": 0.9},
    "churn": {"from": 4.0, "to": 1.0, "rate_per_peer_hour": 99.0, "restart": "none", "max_down": None},
}  # fmt: skip


def test_the_table_names_every_key_of_every_kind() -> None:
    for kind in get_args(get_args(Fault)[0]):
        keys = {field.alias or name for name, field in kind.model_fields.items()}
        assert keys - {"id", "kind", "drift_ppm"} == set(OTHER[get_args(kind.model_fields["kind"].annotation)[0]])


@pytest.mark.parametrize(("kind", "key"), [(kind, key) for kind, keys in OTHER.items() for key in keys])
def test_changing_a_key_of_a_fault_changes_the_run(quiet: Make, kind: str, key: str) -> None:
    schedule = {"kind": "queue", "window": 8, "router": "random", "recompute": "none", "status_every": 0.5}
    drift = {"drift_ppm": -1.0} if kind == "clock" else {}
    one, other = (
        simulate(quiet, fault(kind, **drift, **change), pipeline__schedule=schedule)
        for change in ({}, {key: OTHER[kind][key]})
    )
    assert one.applied_s.tobytes() != other.applied_s.tobytes()


def test_a_drift_is_told_from_none(quiet: Make) -> None:
    schedule = {"kind": "queue", "window": 8, "router": "random", "recompute": "none", "status_every": 0.5}
    one = {"at": 0.0, "offset": -0.55, "for": 20.0}
    drifting = simulate(quiet, fault("clock", **one, drift_ppm=-1e4), pipeline__schedule=schedule)
    assert drifting.faults[0]["hit"]
    assert not simulate(quiet, fault("clock", **one), pipeline__schedule=schedule).faults[0]["hit"]


def test_the_run_gets_over_a_fault_when_something_begun_after_it_is_through(quiet: Make) -> None:
    over = {"crash": 3.0, "slow": 5.0, "partition": 4.0}
    for kind, over_s in over.items():
        (row,) = simulate(quiet, fault(kind)).faults
        assert over_s < row["recovered_s"] < over_s + 2.0
    (row,) = simulate(quiet, fault("partition", **{"for": 9.0})).faults
    assert row["recovered_s"] is None


# ---------------------------------------------------------------- computing


def test_a_slow_peer_takes_the_factor_exactly(quiet: Make, simple: Simple) -> None:
    result = exact(quiet, simple, fault("slow", at=0.0, target="*", compute_factor=2.5, **{"for": 1e4}))
    assert result.num_done["B"][0] > 4
    assert result.work_s["B"][0] / result.num_done["B"][0] == 2.5 * 3.0


def test_an_operation_is_as_slow_as_the_peer_was_at_its_start(quiet: Make, simple: Simple) -> None:
    """Each micro-batch takes 3 s. That of 3 s to 6 s began before; those of 6, 12 and 18 take twice as long."""
    result = exact(quiet, simple, fault("slow", at=4.0, target="*", compute_factor=2.0, **{"for": 15.0}))
    assert result.applied_s[:7].tolist() == [3.0, 6.0, 12.0, 18.0, 24.0, 27.0, 30.0]


def test_factors_of_overlapping_faults_multiply(quiet: Make, simple: Simple) -> None:
    slow = {"at": 0.0, "for": 1e4, "target": "*", "kind": "slow"}
    result = exact(quiet, simple, slow | {"id": "a", "compute_factor": 2.0}, slow | {"id": "b", "compute_factor": 3.0})
    assert result.applied_s[0] == 18.0


@pytest.mark.parametrize("others", [(), ((6.0, 4.0),)])
def test_a_pause_makes_what_is_under_way_end_later_by_itself(
    quiet: Make, simple: Simple, others: tuple[tuple[float, float], ...]
) -> None:
    """From 4 s to 9 s, and to 10 s with an overlapping one: nothing is counted twice."""
    pauses = ((4.0, 5.0), *others)
    faults = [fault("pause", f"p{n}", at=at_s, target="*", **{"for": s}) for n, (at_s, s) in enumerate(pauses)]
    result = exact(quiet, simple, *faults)
    stood_s = 6.0 if others else 5.0
    assert result.applied_s[:4].tolist() == [3.0, 6.0 + stood_s, 9.0 + stood_s, 12.0 + stood_s]
    assert result.other_s[0, tracing.CAUSE_DOWN] == stood_s
    assert result.work_s["B"][0] / result.num_done["B"][0] == pytest.approx(3.0)
    assert waterfall.gpu_seconds(result).sum() == pytest.approx(60.0)


@both
def test_nothing_begins_ends_or_is_delivered_at_a_paused_peer(quiet: Make, schedule: str) -> None:
    result = simulate(quiet, fault("pause"), schedule=schedule)
    trace = result.trace
    assert trace is not None
    peer = next(peer.index for peer in result.plan.peers if peer.name == "s01r0")
    ends = trace["end_s"][(trace["peer"] == peer) & (trace["kind"] != tracing.KIND_IDLE)]
    assert not ((ends > 2.0) & (ends < 3.0)).any()
    assert result.other_s[peer, tracing.CAUSE_DOWN] == pytest.approx(1.0)


def test_a_paused_peer_is_taken_for_gone_and_heard_of_again(quiet: Make) -> None:
    """Forwards go to the other replica after the first broadcast that does not come."""
    schedule = {
        "kind": "queue", "window": 8, "router": "swarm", "recompute": "none", "status_every": 0.2, "poll_loop": 0.0,
        "poll_empty": 0.0, "poll_full": 0.0,
    }  # fmt: skip
    result = simulate(quiet, fault("pause", **{"for": 4.0}), pipeline__schedule=schedule)
    peers = {peer.name: peer.index for peer in result.plan.peers}
    to_paused = delivered_s(result, (peers["s00r0"], peers["s01r0"]), (peers["s00r1"], peers["s01r0"]))
    sent_meanwhile = [sent for sent, _ in to_paused if 2.0 < sent < 6.0]
    assert sent_meanwhile
    assert max(sent_meanwhile) < 2.0 + 0.2 * 1.01
    assert any(sent > 6.0 for sent, _ in to_paused)


def test_a_peer_whose_clock_is_behind_by_more_than_a_status_interval_is_not_chosen(quiet: Make) -> None:
    schedule = {"kind": "queue", "window": 8, "router": "swarm", "recompute": "none", "status_every": 0.2}
    for offset, chosen in ((-0.1, True), (-1.0, False), (1.0, True)):
        result = simulate(quiet, fault("clock", offset=offset), pipeline__schedule=schedule)
        peers = {peer.name: peer.index for peer in result.plan.peers}
        to_it = delivered_s(result, (peers["s00r0"], peers["s01r0"]), (peers["s00r1"], peers["s01r0"]))
        assert any(sent > 3.0 for sent, _ in to_it) is chosen
        assert result.faults[0]["hit"] is not chosen


# ---------------------------------------------------------------- ways


@both
@pytest.mark.parametrize("direction", ["to", "from", "both"])
@pytest.mark.parametrize("mode", ["blackhole", "reset"])
def test_nothing_gets_through_a_partition(quiet: Make, schedule: str, direction: str, mode: str) -> None:
    """What had drained when it began is there within the one-way delay."""
    result = simulate(quiet, fault("partition", direction=direction, mode=mode), schedule=schedule)
    first = [peer.index for peer in result.plan.peers if peer.stage == 0]
    second = [peer.index for peer in result.plan.peers if peer.stage == 1]
    there = [(a, b) for a in first for b in second]
    back = [(b, a) for a, b in there]
    blocked = {"to": there, "from": back, "both": there + back}[direction]
    arrivals = [end for _, end in delivered_s(result, *blocked)]
    assert not [end for end in arrivals if 2.0 + 0.01 < end < 4.0]
    assert [end for end in arrivals if end < 2.0]
    assert [end for end in arrivals if end > 4.0]


@both
@pytest.mark.parametrize("kind", ["link", "partition", "pause", "flap", "corrupt", "slow"])
def test_the_steady_rate_returns_when_it_is_over(quiet: Make, schedule: str, kind: str) -> None:
    long = {"duration": 40.0, "trace": "full"}
    calm, result = (simulate(quiet, *some, schedule=schedule, run=long) for some in ((), (fault(kind),)))
    assert rate(result, 10.0, 40.0) == pytest.approx(rate(calm, 10.0, 40.0), rel=0.02)


def test_a_reset_is_tried_again_with_another_peer(quiet: Make) -> None:
    """The way to one peer of the last stage is refused within a round trip, and forwards go to the other."""
    schedule = {
        "kind": "queue", "window": 8, "router": "random", "recompute": "none", "connect_timeout": 0.05,
        "attempts": 9, "poll_loop": 0.0, "poll_empty": 0.0, "poll_full": 0.0, "retry": {"backward": True},
    }  # fmt: skip
    groups = [["stage:0"], ["peer:s01r0"]]
    result = simulate(quiet, fault("partition", groups=groups, mode="reset"), pipeline__schedule=schedule)
    (row,) = result.faults
    assert row["hit"]
    assert row["destroyed_bytes"] > 0
    assert result.ledger.redone > 0
    assert rate(result, 2.5, 4.0) > 0.0


def test_pushes_with_a_time_limit_are_tried_again_after_a_reset(quiet: Make) -> None:
    schedule = {
        "kind": "queue", "window": 8, "router": "replica", "recompute": "none", "connect_timeout": 0.1,
        "attempts": 99, "retry": {"backward": True, "push_timeout": 60.0, "concurrent": 2},
    }  # fmt: skip
    result = simulate(quiet, fault("partition", mode="reset"), pipeline__schedule=schedule)
    assert result.faults[0]["destroyed_bytes"] > 0
    assert result.ledger.dropped == 0
    assert rate(result, 5.0, 10.0) > 0.0


def test_gradient_exchanges_begin_anew_after_a_reset(quiet: Make) -> None:
    groups = [["replica:0"], ["*"]]
    sync = {"algorithm": "ring"}
    calm, result = (
        simulate(quiet, *some, schedule="1f1b", sync=sync)
        for some in ((), (fault("partition", mode="reset", groups=groups, at=2.1),))
    )
    assert result.faults[0]["hit"]
    assert 0 < result.num_syncs < calm.num_syncs
    assert rate(result, 6.0, 10.0) == pytest.approx(rate(calm, 6.0, 10.0), rel=0.1)


def test_corrupted_chunks_are_told_and_sent_again(quiet: Make) -> None:
    result = simulate(quiet, fault("corrupt", at=0.0, **{"for": 20.0}))
    (row,) = result.faults
    assert row["corrupted_chunks"] > 0
    messages = result.bytes_boundary / result.plan.boundary_bytes
    assert result.bytes_up.sum() == pytest.approx(
        messages * result.plan.boundary_bytes + row["destroyed_bytes"], rel=0.02
    )
    assert result.ledger.dropped == 0


# ---------------------------------------------------------------- leaving


def test_a_crash_is_a_departure_as_churn_knows_it(quiet: Make) -> None:
    """What is lost is dropped, the fault says how many, and the waterfall has the time away."""
    result = simulate(quiet, fault("crash"))
    (row,) = result.faults
    assert row["dropped"] > 0
    assert result.ledger.dropped_by_reason["peer lost"] == row["dropped"]
    peer = next(peer.index for peer in result.plan.peers if peer.name == "s01r0")
    assert result.other_s[peer, tracing.CAUSE_DOWN] == pytest.approx(1.0)
    (mark,) = [mark for mark in result.marks if mark.kind == "down"]
    assert (mark.start_s, mark.end_s, mark.peer, mark.detail) == (2.0, 3.0, peer, "f")


@both
def test_a_state_on_disk_is_there_at_once_and_a_lost_one_is_fetched(quiet: Make, schedule: str) -> None:
    slow_store = {"delay": 0.0, "rate": 1e7}
    benched = {}
    for state in ("disk", "lost"):
        one = fault("crash", restart={"after": 1.0, "state": state})
        result = simulate(
            quiet, one, schedule=schedule, network__storage=slow_store, run={"duration": 60.0, "trace": "full"}
        )
        benched[state] = result.other_s[:, tracing.CAUSE_BENCHED].sum()
    assert benched["disk"] == 0.0
    assert benched["lost"] > 0.1


def test_with_merges_a_peer_comes_back_with_the_next_epoch(quiet: Make) -> None:
    merge = {"every": 5.0, "compute": 0.1}
    for state in ("disk", "lost"):
        one = fault("crash", restart={"after": 1.0, "state": state})
        result = simulate(quiet, one, merge=merge)
        assert result.other_s[:, tracing.CAUSE_BENCHED].sum() == pytest.approx(result.epochs[0].end_s - 3.0)
        assert result.epochs[0].end_s < 8.0


def test_a_crash_of_a_peer_that_is_away_does_nothing(quiet: Make) -> None:
    first = fault("crash", "first")
    second = fault("crash", "second", at=2.5, restart={"after": 20.0})
    once, twice = simulate(quiet, first), simulate(quiet, first, second)
    assert [row["hit"] for row in twice.faults] == [True, False]
    assert once.applied_s.tobytes() == twice.applied_s.tobytes()


@pytest.mark.parametrize("phase_s", [5.02, 5.2])
def test_a_crash_during_a_merge_is_survived(quiet: Make, phase_s: float) -> None:
    merge = {"every": 5.0, "compute": 0.3}
    result = simulate(quiet, fault("crash", at=phase_s), merge=merge, run={"duration": 20.0, "trace": "full"})
    assert result.faults[0]["hit"]
    assert len(result.epochs) > 1
