"""Whatever peers are lost when, the script of the run can be played, and says what the ledger says."""

from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from orionbed.scenario.merging import Merge
from orionbed.scenario.recovery import FOR_FIXED_BATCH
from orionbed.scenario.sections import Sync
from orionbed.script import Line
from sim.peer import SimPeer
from sim.scribe import Scribe
from tests.sim.recovery.conftest import Story
from tests.sim.script_rules import Replay, agrees

Make = Callable[..., Story]
POLICIES = (
    "drop", "resend", "splice", "neighbour", "replicas", "iteration", "skip-stage", "rebuild", "local-steps",
    "not-counted",
)  # fmt: skip
WORK = ("F", "B", "I", "W", "STEP")
HERE = ("training", "merging")


def scripted(the_story: Story, in_flight: str = "drop") -> list[Line]:
    """Run a story and return its script, which keeps all rules; no peer that is away does anything."""
    replay, lines = Replay(the_story.engine.plan), list[Line]()

    def write(line: Line) -> None:
        lines.append(line)
        replay.take(line)
        by_copy = in_flight == "neighbour"
        assert by_copy or line.does not in WORK or the_story.engine.peers[line.peer].status in HERE, line

    scribe = the_story.engine.scribe = Scribe(the_story.engine, write)
    agrees(replay, the_story.finish(), scribe.num_flush_steps, in_flight)
    return lines


def lose(the_story: Story, random: Random) -> None:
    for _ in range(random.randint(1, 6)):
        peer = random.choice(the_story.engine.peers)
        left_s, away_s = random.uniform(0.05, 9.0), random.choice([0.1, 1.0, 4.0])
        the_story.at(left_s, lambda peer=peer: take(the_story, peer))  # type: ignore[misc]
        the_story.at(left_s + away_s, lambda peer=peer: the_story.come_back(peer))  # type: ignore[misc]


def take(the_story: Story, peer: SimPeer) -> None:
    if peer.status != "down":
        the_story.run.rebalancing.take(peer)


def queue_story(story: Make, in_flight: str, seed: int) -> Story:
    random = Random(seed)
    merges: list[Any] = ["none", Merge(every=4.0, compute=0.1, quorum_every=0.2)]
    return story(
        in_flight,
        stages=random.randint(2, 4),
        replicas=random.randint(1, 3),
        queue={
            "window": random.choice([1, 3, 8, "auto"]),
            "router": random.choice(["replica", "random", "swarm"]),
            "recompute": random.choice(["full", "none"]),
            "cache_ttl": random.choice([0.5, 20.0]),
            "connect_timeout": random.choice([0.1, 1.0]),
            "attempts": random.randint(1, 5),
        },
        costs={"F": 0.25, "B": 0.5, "STEP": 0.01},
        recovery={"detect": random.choice([0.0, 0.3, 2.0]), "reconfigure": 1.5},
        network={"delay": random.choice([0.0, 0.15])},
        peers={
            "jitter": random.choice([0.0, 0.2]),
            "rejoin": random.choice(["own", "poorest", "random"]),
            "rebalance_every": random.choice([None, 3.0]),
        },
        merge=random.choice(merges),
        run={"duration": 10.0, "trace": "summary", "seed": seed},
    )


@pytest.mark.parametrize("in_flight", POLICIES)
def test_lines_follow_from_one_another_and_agree_with_the_ledger(story: Make, in_flight: str) -> None:
    for seed in range(10):
        the_story = queue_story(story, in_flight, seed)
        lose(the_story, Random(seed))
        scripted(the_story, in_flight)


@pytest.mark.parametrize("in_flight", FOR_FIXED_BATCH)
def test_with_a_fixed_batch_too(story: Make, in_flight: str) -> None:
    for seed in range(5):
        random = Random(seed)
        syncs: list[Any] = ["none", Sync(), Sync(every=2), Sync(every=2, fragments=2)]
        sync = syncs[seed % 4]
        merge = "none" if seed < 4 else Merge(every=4.0, compute=0.1, quorum_every=0.2)
        kind = random.choice(["1f1b", "zb-h1", "opportunistic"])
        the_story = story(
            in_flight, 3, 2, schedule={"kind": kind, "microbatches": 4, "recompute": "none"}, sync=sync, merge=merge,
            costs={"F": 0.25, "I": 0.25, "W": 0.25, "STEP": 0.05}, peers={"jitter": 0.2},
            run={"duration": 12.0, "trace": "summary", "seed": seed},
        )  # fmt: skip
        lose(the_story, random)
        scripted(the_story, in_flight)


@pytest.mark.parametrize("in_flight", ["drop", "splice", "local-steps"])
def test_a_script_changes_nothing_and_comes_out_the_same(story: Make, in_flight: str) -> None:
    def once(*, writes: bool) -> tuple[Any, list[Line]]:
        the_story, lines = queue_story(story, in_flight, 3), list[Line]()
        lose(the_story, Random(5))
        if writes:
            the_story.engine.scribe = Scribe(the_story.engine, lines.append)
        result = the_story.finish()
        return (result.applied_s.tobytes(), result.other_s.tobytes(), result.events, result.ledger.counts()), lines

    plain, first, second = once(writes=False), once(writes=True), once(writes=True)
    assert plain[0] == first[0]
    assert first == second


# ------------------------------------------------------------------------------------------- one loss, line by line


def of_microbatch(lines: list[Line], number: int) -> list[tuple[str, int, int, int]]:
    return [(line.does, line.peer, line.chunk, line.source) for line in lines if line.microbatch == number]


def one_loss(story: Make, in_flight: str, lost_s: float, recompute: str = "none") -> tuple[Story, list[Line]]:
    """Three stages, two replicas (peers 0 1, 2 3, 4 5), and the loss of peer 2; F 1 s, B 2 s, at the end 3 s."""
    the_story = story(
        in_flight, 3, 2, queue={"window": 1, "recompute": recompute}, run={"duration": 40.0, "trace": "summary"}
    )
    the_story.lose(lost_s, 1)
    return the_story, scripted(the_story, in_flight)


def test_what_is_sent_again_keeps_its_number_and_input(story: Make) -> None:
    _, lines = one_loss(story, "resend", 1.5)
    mine = of_microbatch(lines, 0)
    assert mine[0] == ("F", 0, 0, -1)
    assert mine[1] == ("F", 3, 1, 0)
    assert ("B", 0, 0, 3) in mine


def test_a_replacement_has_the_input_from_before_and_the_gradient_from_behind(story: Make) -> None:
    _, lines = one_loss(story, "splice", 4.0)
    mine = of_microbatch(lines, 0)
    assert mine[:3] == [("F", 0, 0, -1), ("F", 2, 1, 0), ("B", 4, 2, 2)]
    assert [each for each in mine if each[1] == 3] == [("F", 3, 1, 0), ("B", 3, 1, 4)]
    assert mine[-1] == ("B", 0, 0, 3)


def test_a_copy_of_the_lost_layers_works_with_the_weights_of_another_peer_of_their_stage(story: Make) -> None:
    _, lines = one_loss(story, "neighbour", 4.0)
    mine = of_microbatch(lines, 0)
    assert mine[:3] == [("F", 0, 0, -1), ("F", 2, 1, 0), ("B", 4, 2, 2)]
    assert mine[3:] == [("F", 3, 1, 0), ("B", 3, 1, 4), ("B", 0, 0, 3)]


def test_a_skipped_stage_is_passed_both_ways(story: Make) -> None:
    _, lines = one_loss(story, "skip-stage", 4.0)
    mine = of_microbatch(lines, 0)
    assert mine == [("F", 0, 0, -1), ("F", 2, 1, 0), ("B", 4, 2, 2), ("B", 0, 0, 4)]
    _, lines = one_loss(story, "skip-stage", 1.5)
    mine = of_microbatch(lines, 0)
    assert [each for each in mine if each[1] > 1] == [("B", mine[1][1], 2, 0)]


def test_what_is_dropped_keeps_what_stages_behind_have_accumulated(story: Make) -> None:
    the_story, lines = one_loss(story, "drop", 5.5)
    assert the_story.ledger.partially_applied >= 1
    assert of_microbatch(lines, 0) == [("F", 0, 0, -1), ("F", 2, 1, 0), ("B", 4, 2, 2), ("FORGET", 0, -1, -1)]


def test_an_iteration_that_is_lost_takes_everybodys_gradients_with_it(story: Make) -> None:
    _, lines = one_loss(story, "iteration", 5.5)
    assert {line.peer for line in lines if line.does == "RESET" and line.at_s == 5.5} == set(range(6))


def test_a_peer_that_comes_back_adopts_a_living_ones_weights_or_both_neighbours(story: Make) -> None:
    for in_flight, others in (("not-counted", ()), ("rebuild", (0, 4))):
        the_story = story(in_flight, 3, 2)
        the_story.lose(5.0, 1)
        the_story.at(9.0, lambda it=the_story: it.come_back(it.peer(1)))  # type: ignore[misc]
        adopted = [line for line in scripted(the_story, in_flight) if line.does == "ADOPT"]
        assert [(line.peer, line.chunk, line.source, line.others) for line in adopted] == [(2, 1, 3, others)]
