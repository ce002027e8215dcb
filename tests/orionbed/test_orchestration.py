"""The orchestrator's decisions, each alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orionbed import orchestration
from orionbed.scenario import ScenarioError, apply, load


def test_resets_wait_nothing_then_five_ten_twenty_seconds_up_to_the_cap() -> None:
    waits = [orchestration.reset_wait_s(resets, 5.0, 300.0, 0.0, 0.5) for resets in range(12)]
    assert waits == [0.0, 0.0, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0, 300.0, 300.0]


@given(st.integers(0, 5000), st.floats(0.0, 1.0), st.floats(0.0, 1.0, exclude_max=True))
def test_jitter_moves_a_wait_by_its_share_and_never_above_the_cap(resets: int, jitter: float, draw: float) -> None:
    plain = orchestration.reset_wait_s(resets, 5.0, 300.0, 0.0, 0.5)
    moved = orchestration.reset_wait_s(resets, 5.0, 300.0, jitter, draw)
    assert (1.0 - jitter) * plain - 1e-9 <= moved <= min(300.0, (1.0 + jitter) * plain) + 1e-9


@pytest.mark.parametrize(
    ("backwards", "over"),
    [([10] * 8 + [0] * 2, True), ([10] * 7 + [9] * 3, False), ([], False), ([10], True), ([9], False)],
)
def test_training_is_over_when_enough_peers_have_done_enough(backwards: list[int], over: bool) -> None:
    assert orchestration.training_is_over(backwards, 0.8, 10) is over


def test_joiners_fill_up_the_poorest_stages_and_prefer_their_own() -> None:
    assert orchestration.poorest_stages(3, [2, 2, 2], [1, 3, 1]) == [2, 0, 2]
    assert orchestration.poorest_stages(1, [1], [2, 2, 2]) == [1]
    assert orchestration.poorest_stages(0, [], [2, 2]) == []


def test_the_slowest_stage_gets_the_fastest_joiner() -> None:
    # Joiner 1 is twice as fast as joiner 0; stage 1 is the slowest, stage 0 the next.
    paces_s = [[2.0, 2.0, 2.0], [1.0, 1.0, 1.0]]
    assert orchestration.stages_by_speed(paces_s, [2, 2], [0.6, 0.3, 2.0]) == [0, 1]


def test_policies_rank_by_score() -> None:
    scores = {4: 10.0, 1: 3.0, 7: 3.0, 2: 8.0, 5: 9.0}
    assert orchestration.lowest(scores, 3) == [1, 7, 2]
    assert orchestration.below(scores, 0.5) == [1, 7]  # the median is 8
    assert orchestration.below({0: 1.0, 1: 9.0}, 0.5) == [0]  # the median is 5
    assert orchestration.below({}, 0.5) == []


@given(st.lists(st.integers(0, 3), min_size=1, max_size=12), st.data())
def test_no_stage_is_ever_emptied(stages: list[int], data: st.DataObject) -> None:
    peers = list(range(len(stages)))
    candidates = data.draw(st.lists(st.sampled_from(peers), unique=True))
    counts = [stages.count(stage) for stage in range(4)]
    gone = orchestration.kicked(candidates, dict(enumerate(stages)), counts)
    left = [stages.count(stage) - sum(stages[peer] == stage for peer in gone) for stage in range(4)]
    assert all(now >= 1 for before, now in zip(counts, left, strict=True) if before)
    # Whoever stays although named is the last of a stage.
    assert all(left[stages[peer]] == 1 for peer in set(candidates) - set(gone))


ASKS = {
    "orchestrator": {"orchestrator": {}},
    "pipeline.schedule.via": {"pipeline.schedule.via": "object-storage"},
    "pipeline.schedule.retry": {"pipeline.schedule.retry.backoff": 0.25},
    "pipeline.schedule.knowledge": {"pipeline.schedule.knowledge": {}},
}


@pytest.mark.parametrize("key", ASKS)
def test_other_backends_hear_what_they_do_not_have(key: str) -> None:
    assert orchestration.simulated_alone(load("minimal")) == []
    found = orchestration.simulated_alone(apply(load("minimal"), ASKS[key]))
    assert [line.partition(":")[0] for line in found] == [key]


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        (["orchestrator={}", "merge=none"], "has epochs, which end with a merge"),
        (["orchestrator={}", "peers.rejoin=random"], "is decided by orchestrator.assign here"),
        (["orchestrator={}", "pipeline.schedule={kind: 1f1b, microbatches: 4}"], "is for the queue-driven schedule"),
        (["pipeline.schedule.knowledge={evict_after: 6 s}"], "or peers that live are evicted"),
        (["orchestrator={kick: {number: 2}}"], "policy"),
    ],
)
def test_what_does_not_go_together_is_said(sets: list[str], said: str) -> None:
    with pytest.raises(ScenarioError) as error:
        load("minimal", sets)
    assert said in str(error.value)
