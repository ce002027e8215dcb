"""What `recovery` refuses, and what a policy costs in memory."""

from itertools import pairwise
from typing import Any

import pytest

from orionbed.plan import make_plan
from orionbed.scenario import ScenarioError, apply, load

FIXED = {"pipeline.schedule": {"kind": "1f1b", "microbatches": 8}, "merge": "none", "peers.rejoin": "own"}


@pytest.mark.parametrize(
    "policy", ["resend", "splice", "neighbour", "replicas", "skip-stage", "rebuild", "local-steps"]
)
def test_what_needs_queues_is_refused_with_a_fixed_batch(policy: str) -> None:
    with pytest.raises(ScenarioError, match=f"{policy} needs the queue-driven schedule; with a fixed batch write drop"):
        apply(load("minimal"), FIXED | {"recovery.in_flight": policy})


@pytest.mark.parametrize("policy", ["drop", "iteration", "not-counted"])
def test_what_does_not_is_not(policy: str) -> None:
    assert apply(load("minimal"), FIXED | {"recovery.in_flight": policy}).recovery.in_flight == policy


@pytest.mark.parametrize(
    "change",
    [{"via": "object-storage"}, {"retry.backward": True}, {"retry.push_timeout": 9.0}, {"retry.concurrent": 2}],
)
def test_only_drop_goes_with_sends_of_other_kinds(change: dict[str, Any]) -> None:
    changes = {f"pipeline.schedule.{key}": value for key, value in change.items()}
    assert apply(load("minimal"), changes).recovery.in_flight == "drop"
    with pytest.raises(ScenarioError, match="splice needs plain pushes"):
        apply(load("minimal"), changes | {"recovery.in_flight": "splice"})


def test_only_drop_goes_with_merges_that_leave_the_pipeline_full() -> None:
    kept = {"merge.flush": False}
    assert apply(load("minimal"), kept).recovery.in_flight == "drop"
    with pytest.raises(ScenarioError, match="resend needs merges that flush"):
        apply(load("minimal"), kept | {"recovery.in_flight": "resend"})


def test_local_steps_end_with_a_merge_that_stops_everybody() -> None:
    with pytest.raises(ScenarioError, match="local-steps needs merges that stop the training"):
        apply(load("minimal"), {"merge.algorithm": "ring", "merge.overlap": True, "recovery.in_flight": "local-steps"})


@pytest.mark.parametrize("policy", ["neighbour", "skip-stage"])
def test_one_stage_has_no_neighbour(policy: str) -> None:
    one = {"pipeline.stages": 1, "pipeline.replicas": 2, "peers.sites": {"virginia": 1, "ohio": 1, "california": 0}}
    with pytest.raises(ScenarioError, match="needs a stage before the lost one"):
        apply(load("minimal"), one | {"recovery.in_flight": policy})


def test_a_neighbour_holds_the_states_of_two_stages() -> None:
    plain = make_plan(load("minimal")).stages
    double = make_plan(apply(load("minimal"), {"recovery.in_flight": "neighbour"})).stages
    own = [stage.memory.states_bytes for stage in plain]
    both = [here + behind for here, behind in pairwise(own)]
    assert [stage.memory.states_bytes for stage in double] == [*both, own[-1]]
