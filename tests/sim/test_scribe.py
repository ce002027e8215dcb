"""The script of a run: it can be played, agrees with what the run counted, and writing it changes nothing."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from orionbed.backends import BackendError
from orionbed.plan import Plan, make_plan
from orionbed.results import RunResult
from orionbed.scenario import Scenario
from orionbed.schedule.catalogue import ENTRIES
from orionbed.script import Line
from sim.backend import _result, _Run, run
from sim.not_scripted import not_scripted
from sim.scribe import Scribe
from tests.sim.script_rules import Replay, agrees

Make = Callable[..., Scenario]
Simple = Callable[..., Plan]
QUEUE: dict[str, Any] = {
    "kind": "queue", "window": 4, "router": "swarm", "recompute": "none", "status_every": 0.5,
    "poll_loop": 0.0, "poll_empty": 0.0, "poll_full": 0.0, "connect_timeout": 0.5, "cache_ttl": 5.0,
}  # fmt: skip
GPIPE: dict[str, Any] = {"kind": "gpipe", "microbatches": 2}
MERGE: dict[str, Any] = {"every": 12.0, "compute": 0.1, "quorum_every": 0.5, "failure_timeout": 1.0}
CHURN: dict[str, Any] = {
    "up": {"dist": "weibull", "shape": 0.7, "scale": 15.0}, "down": {"dist": "exponential", "mean": 5.0},
}  # fmt: skip
BASE: dict[str, Any] = {
    "stages": 3, "replicas": 3, "peers__overhead": 0.5, "pipeline__schedule": QUEUE,
    "run": {"duration": 50.0, "trace": "summary"},
}  # fmt: skip
ORCHESTRATOR: dict[str, Any] = {"speed_test": 0.0, "request": 0.1, "warm_up": 1}
LIVES: dict[str, dict[str, Any]] = {
    "churn": {"churn": CHURN},
    "churn and merges": {"churn": CHURN, "merge": MERGE},
    "moves": {"churn": CHURN, "peers__rebalance_every": 4.0, "peers__rejoin": "random"},
    "moves and merges": {"churn": CHURN, "merge": MERGE, "peers__rebalance_every": 4.0, "peers__rejoin": "poorest"},
    "orchestrator": {
        "churn": CHURN,
        "merge": MERGE,
        "orchestrator": ORCHESTRATOR | {"assign": "poorest", "kick": {"policy": "bottom-n", "number": 1, "for": 8.0}},
    },
    "shared states": {"churn": CHURN, "merge": MERGE, "orchestrator": ORCHESTRATOR | {"share_optimizer_state": True}},
    "kept work": {"churn": CHURN, "merge": MERGE | {"flush": False}},
    "fixed batch": {
        "churn": CHURN,
        "merge": MERGE,
        "pipeline__schedule": {"kind": "1f1b", "microbatches": 3, "recompute": "none"},
    },
}


def scripted(plan: Plan, seed: int = 0) -> tuple[RunResult, list[Line], _Run]:
    """Run a plan; its script keeps all rules and agrees with the run's counts."""
    the_run, lines, replay = _Run(plan, seed), list[Line](), Replay(plan)

    def write(line: Line) -> None:
        lines.append(line)
        replay.take(line)
        if line.does in {"F", "B", "I", "W", "STEP"}:
            assert the_run.engine.peers[line.peer].status in {"training", "merging"}, line

    scribe = the_run.engine.scribe = Scribe(the_run.engine, write)
    the_run.go(None, None)
    result = _result(the_run, 0.0)
    agrees(replay, result, scribe.num_flush_steps)
    return result, lines, the_run


def of(lines: list[Line], does: str) -> list[Line]:
    return [line for line in lines if line.does == does]


# ------------------------------------------------------------------------------------------- passes and steps


@pytest.mark.parametrize("name", [name for name in ENTRIES if name != "csv"])
def test_every_schedule_uses_every_microbatch_once_on_every_chunk(quiet: Make, simple: Simple, name: str) -> None:
    block = {"kind": name, "microbatches": 6, "recompute": "none"}
    scenario = quiet(
        3, 2, pipeline__schedule=block, sync={"algorithm": "ring"}, run={"duration": 60.0, "trace": "summary"},
        model={"layers": 16, "hidden": 64, "ffn": 128, "heads": 2, "kv_heads": 2, "vocab": 128},
    )  # fmt: skip
    plan = simple(scenario, {"F": 0.5, "I": 0.5, "W": 0.5})
    result, lines, _ = scripted(plan)
    steps, sums = of(lines, "STEP"), of(lines, "SUM")
    assert len(steps) > 6
    assert {step.number for step in steps} == {6}
    assert all(len(line.others) == 2 for line in sums)
    assert len(sums) == result.num_syncs
    # At no stage does anybody step before the gradients are summed, and both step after each sum.
    for stage in range(3):
        order = [
            line.does
            for line in lines
            if (line.does == "SUM" and plan.stage_of[line.chunk] == stage)
            or (line.does == "STEP" and plan.peers[line.peer].stage == stage)
        ]
        assert order[: 3 * (len(order) // 3)] == ["SUM", "STEP", "STEP"] * (len(order) // 3)


def test_a_queue_driven_peer_steps_after_so_many_backwards(quiet: Make) -> None:
    result, lines, _ = scripted(make_plan(quiet(**BASE)))
    assert {line.number for line in of(lines, "STEP")} == {4}
    passes = Counter(line.does for line in lines)
    assert passes["F"] == result.num_done["F"].sum()
    assert passes["B"] == result.num_done["B"].sum()
    assert set(passes) == {"F", "B", "STEP"}


def test_replicas_of_local_sgd_average_after_the_step_that_is_due(quiet: Make, simple: Simple) -> None:
    block = {"kind": "1f1b", "microbatches": 2, "recompute": "none"}
    scenario = quiet(2, 2, pipeline__schedule=block, sync={"every": 4, "fragments": 2})
    _, lines, _ = scripted(simple(scenario, {"F": 0.5, "B": 1.0}))
    of_stage = [line for line in lines if line.does in {"STEP", "MERGE"} and (line.peer in {0, 1} or line.chunk == 0)]
    assert [line.does for line in of_stage[:10]] == [*["STEP"] * 4, "MERGE", *["STEP"] * 4, "MERGE"]
    merges = of(of_stage, "MERGE")
    assert [(line.part, line.parts, line.number) for line in merges[:3]] == [(0, 2, -1), (1, 2, -1), (0, 2, -1)]
    assert all(line.others == line.takers == (0, 1) for line in merges)


# ------------------------------------------------------------------------------------------- the lives of peers


@pytest.mark.parametrize("name", LIVES)
def test_whoever_comes_and_goes_the_script_can_be_played_and_changes_nothing(quiet: Make, name: str) -> None:
    plan = make_plan(quiet(**BASE | LIVES[name]))
    for seed in range(3):
        result, lines, _ = scripted(plan, seed)
        plain = run(plan, seed=seed)
        assert plain.applied_s.tobytes() == result.applied_s.tobytes()
        assert plain.other_s.tobytes() == result.other_s.tobytes()
        assert (plain.events, plain.marks) == (result.events, result.marks)
        assert plain.ledger.counts() == result.ledger.counts()
        again: list[Line] = []
        run(plan, seed=seed, script=again.append)
        assert again == lines
        assert of(lines, "ADOPT")


def test_what_a_newcomer_learns_in_its_warm_up_does_not_count(quiet: Make) -> None:
    plan = make_plan(quiet(**BASE | LIVES["orchestrator"]))
    result, lines, _ = scripted(plan, 1)
    discarded = [line for line in of(lines, "MERGE") if not line.others and len(line.takers) == 1]
    assert discarded
    assert result.orchestrator["updates_discarded"] > 0
    works = []
    for line in discarded:
        (peer,) = line.takers
        after = [other for other in of(lines, "MERGE") if peer in other.others and other.at_s >= line.at_s]
        works += [dict(zip(other.others, other.works, strict=True))[peer] for other in after[:1]]
    assert set(works) == {0}


def test_a_shared_state_comes_with_the_weights_of_the_last_merge(quiet: Make) -> None:
    found = 0
    plan = make_plan(quiet(**BASE | LIVES["shared states"]))
    for seed in range(3):
        result, lines, _ = scripted(plan, seed)
        for number, line in enumerate(lines):
            if line.does == "ADOPT" and line.with_state:
                found += 1
                assert lines[number + 1][5:9] == (-1, -1, (), ())
                assert lines[number + 1].takers == (line.peer,)
        states = sum(line.with_state for line in of(lines, "ADOPT"))
        assert states <= result.orchestrator["optimizer_states_fetched"]
    assert found


def test_a_replica_that_comes_back_adopts_from_the_others_before_gradients_are_summed(
    quiet: Make, simple: Simple
) -> None:
    block = {"kind": "1f1b", "microbatches": 3, "recompute": "none"}
    scenario = quiet(
        2, 3, pipeline__schedule=block, sync={"algorithm": "ring"}, run={"duration": 60.0, "trace": "summary"},
        faults={"list": [{"id": "x", "kind": "crash", "target": "peer:s00r1", "at": 10.5, "restart": {"after": 9.0}}]},
    )  # fmt: skip
    _, lines, _ = scripted(simple(scenario, {"F": 0.5, "B": 1.0}))
    undone = of(lines, "UNDO")
    assert {line.peer for line in undone} <= {1, 4}
    mine = [line for line in lines if line.does == "ADOPT" and line.peer in {1, 4} and line.source != line.peer]
    assert sorted((line.peer, line.source, line.with_state) for line in mine) == [(1, 0, True), (4, 3, True)]
    for line in mine:
        later = [number for number, each in enumerate(lines) if each.does == "SUM" and each.at_s > line.at_s]
        joint = next(number for number in later if line.peer in lines[number].others)
        assert lines[joint - 1].does == "MERGE"
        assert lines[joint - 1].takers == (line.peer,)


@pytest.mark.parametrize("state", ["disk", "lost"])
def test_a_peer_that_crashed_has_its_disk_or_anothers_weights(quiet: Make, state: str) -> None:
    crash = {"id": "x", "kind": "crash", "target": "peer:s01r1", "at": 10.5, "restart": {"after": 5.0, "state": state}}
    _, lines, _ = scripted(make_plan(quiet(**BASE | {"faults": {"list": [crash]}})))
    adopted = [(line.peer, line.source, line.with_state) for line in of(lines, "ADOPT")]
    assert adopted == [(4, 4, True) if state == "disk" else (4, 3, False)]


# ------------------------------------------------------------------------------------------- merges


@pytest.mark.parametrize(
    "algorithm", ["butterfly", "ring", "tree", "central-ps", "sharded-ps", "gossip", "grouped", "gather"]
)
@pytest.mark.parametrize("failure", [0.0, 0.3])
def test_merges_average_as_much_as_was_counted(quiet: Make, algorithm: str, failure: float) -> None:
    merge = MERGE | {"algorithm": algorithm, "failure": failure, "group_size": 2}
    plan = make_plan(quiet(**BASE | {"merge": merge, "replicas": 4, "run": {"duration": 70.0, "trace": "summary"}}))
    result, lines, _ = scripted(plan, 2)
    merges = [line for line in of(lines, "MERGE") if line.others]
    if algorithm in {"butterfly", "gather", "sharded-ps"}:
        share = sum(1.0 / line.parts for line in merges)
        assert share == pytest.approx(sum(result.merge_counts.covered))
    if failure == 0.0:
        rounds = 2 if algorithm == "grouped" else 1
        pairs = 2 if algorithm in {"gossip", "grouped"} else 1
        assert len(merges) == len(result.merge_counts.covered) * rounds * pairs
        assert {len(line.others) for line in merges} == {4 // pairs}
        assert all(set(line.takers) == set(line.others) for line in merges)


def test_works_are_the_microbatches_stepped_since_the_last_merge(quiet: Make) -> None:
    plan = make_plan(quiet(**BASE | {"merge": MERGE}))
    _, lines, _ = scripted(plan)
    work = np.zeros(len(plan.peers), dtype=int)
    numbers = []
    for line in lines:
        if line.does == "STEP":
            work[line.peer] += line.number
        elif line.does == "MERGE":
            assert line.works == tuple(work[list(line.others)])
            work[list(line.takers)] = 0
            numbers.append(line.number)
    assert numbers == sorted(numbers)
    assert set(numbers) == set(range(len(numbers) // 3))


def test_peers_too_late_for_the_uploads_take_but_do_not_give(quiet: Make) -> None:
    merge = MERGE | {"deadline": {"kind": "fixed", "wait": 2.0}}
    links = {"network__uplink": {"dist": "uniform", "low": 2e6, "high": 4e7}}
    result, lines, _ = scripted(make_plan(quiet(**BASE | links | {"merge": merge, "replicas": 4})))
    assert result.merges_missed > 0
    merges = [line for line in of(lines, "MERGE") if line.others]
    missing = sum(len(set(line.takers) - set(line.others)) for line in merges if line.part == 0)
    assert missing > 0
    assert all(set(line.others) <= set(line.takers) for line in merges)


# ------------------------------------------------------------------------------------------- what cannot be said


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"merge": MERGE | {"algorithm": "ring", "overlap": True}}, "merge.overlap"),
        ({"merge": MERGE | {"algorithm": "gossip"}}, "merge.outer"),
        ({"merge": MERGE | {"codec": {"kind": "int8"}}}, "merge.codec"),
        (LIVES["orchestrator"] | {"merge": MERGE | {"flush": False}}, "merge.flush"),
        ({"pipeline__schedule": GPIPE, "sync": {"overlap": True}}, "sync.overlap"),
        ({"pipeline__schedule": GPIPE, "sync": {"bits": 8.0}}, "sync.bits"),
        ({"pipeline__schedule": GPIPE, "sync": {}, "merge": MERGE}, "merge"),
    ],
)
def test_what_weights_cannot_follow_is_refused(quiet: Make, changes: dict[str, Any], key: str) -> None:
    scenario = quiet(**BASE | changes)
    assert [text.split(":")[0] for text in not_scripted(scenario)] == [key]
    with pytest.raises(BackendError, match=key):
        run(make_plan(scenario), script=lambda _: None)


def test_all_else_is_scripted(quiet: Make) -> None:
    assert [not_scripted(quiet(**BASE | changes)) for changes in LIVES.values()] == [[]] * len(LIVES)
