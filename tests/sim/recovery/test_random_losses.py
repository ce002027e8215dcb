"""Whatever peers are lost when, every policy knows where every micro-batch is, and counts it once."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orionbed.scenario.merging import Merge
from orionbed.scenario.recovery import FOR_FIXED_BATCH
from orionbed.scenario.sections import Sync

Make = Callable[..., Any]
POLICIES = (
    "drop", "resend", "splice", "neighbour", "replicas", "iteration", "skip-stage", "rebuild", "local-steps",
    "not-counted",
)  # fmt: skip
LOSS = st.tuples(st.floats(0.05, 14.0), st.integers(0, 11), st.sampled_from([0.1, 1.0, 4.0]))
CHANGES = st.fixed_dictionaries(
    {
        "stages": st.integers(2, 4),
        "replicas": st.integers(1, 3),
        "queue": st.fixed_dictionaries(
            {
                "window": st.sampled_from([1, 3, 8, "auto"]),
                "router": st.sampled_from(["replica", "random", "swarm", "fastest"]),
                "recompute": st.sampled_from(["full", "none"]),
                "cache_ttl": st.sampled_from([0.5, 20.0]),
                "connect_timeout": st.sampled_from([0.1, 1.0]),
                "attempts": st.integers(1, 5),
                "poll_empty": st.sampled_from([0.0, 0.1]),
                "poll_full": st.sampled_from([0.0, 0.3]),
            }
        ),
        "costs": st.just({"F": 0.25, "B": 0.5, "STEP": 0.01}),
        "recovery": st.fixed_dictionaries({"detect": st.sampled_from([0.0, 0.3, 2.0]), "reconfigure": st.just(1.5)}),
        "network": st.fixed_dictionaries({"delay": st.sampled_from([0.0, 0.15])}),
        "peers": st.fixed_dictionaries(
            {
                "jitter": st.sampled_from([0.0, 0.2]),
                "rejoin": st.sampled_from(["own", "poorest", "random"]),
                "rebalance_every": st.sampled_from([None, 3.0]),
            }
        ),
        "merge": st.sampled_from(["none", Merge(every=5.0, compute=0.1, quorum_every=0.2)]),
        "run": st.fixed_dictionaries(
            {"duration": st.just(15.0), "trace": st.just("summary"), "seed": st.integers(0, 99)}
        ),
    }
)
FIXED: dict[str, Any] = {"schedule": {"kind": "1f1b", "microbatches": 3, "recompute": "none"}}


def lose(story: Any, losses: list[tuple[float, int, float]]) -> None:
    """Let peers leave at some times, and come back a while later."""
    for time_s, index, away_s in losses:
        peer = story.engine.peers[index % len(story.engine.peers)]
        story.at(time_s, lambda peer=peer: story.leave(peer))
        story.at(time_s + away_s, lambda peer=peer: story.come_back(peer))


@pytest.mark.parametrize("in_flight", POLICIES)
@settings(max_examples=32, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(changes=CHANGES, losses=st.lists(LOSS, min_size=1, max_size=8))
def test_nothing_is_lost_or_counted_twice(
    story: Make, in_flight: str, changes: dict[str, Any], losses: list[tuple[float, int, float]]
) -> None:
    the_story = story(in_flight, **changes)
    lose(the_story, losses)
    forgotten: list[int] = []

    def look() -> None:
        the_story.ledger.check()
        if the_story.engine.in_training:
            forgotten.extend(the_story.unaccounted())

    for tick in range(1, 10):
        the_story.at(1.5 * tick + 0.01, look)
    result = the_story.finish()
    assert forgotten == []
    assert result.ledger.skipped_stages == 0 or in_flight == "skip-stage"


@pytest.mark.parametrize("in_flight", FOR_FIXED_BATCH)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(losses=st.lists(LOSS, min_size=1, max_size=6), replicas=st.integers(1, 3), synced=st.booleans())
def test_nor_with_a_fixed_batch(
    story: Make, in_flight: str, losses: list[tuple[float, int, float]], replicas: int, *, synced: bool
) -> None:
    sync = Sync() if synced else "none"
    the_story = story(in_flight, 3, replicas, **FIXED, sync=sync, run={"duration": 30.0, "trace": "summary"})
    lose(the_story, losses)
    the_story.finish()


@pytest.mark.parametrize("in_flight", POLICIES)
def test_the_same_losses_give_the_same_run_to_the_bit(story: Make, in_flight: str) -> None:
    def once() -> tuple[bytes, bytes, object, int]:
        the_story = story(in_flight, 4, 3, queue={"router": "random"}, network={"delay": 0.1}, peers={"jitter": 0.1})
        lose(the_story, [(7.0, 4, 5.0), (9.5, 7, 9.0), (21.0, 1, 3.0), (21.5, 5, 3.0), (33.0, 10, 8.0)])
        result = the_story.finish()
        return result.applied_s.tobytes(), result.other_s.tobytes(), result.recovery, result.events

    assert once() == once()


@pytest.mark.parametrize("in_flight", POLICIES[1:])
def test_a_policy_makes_a_difference(story: Make, in_flight: str) -> None:
    def applied(policy: str) -> bytes:
        the_story = story(policy, 4, 2, queue={"recompute": "none"}, network={"delay": 0.1})
        lose(the_story, [(7.0, 2, 5.0), (19.5, 4, 9.0), (31.0, 3, 8.0)])
        return bytes(the_story.finish().applied_s.tobytes())

    assert applied(in_flight) != applied("drop")
