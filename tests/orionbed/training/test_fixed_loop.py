"""A peer with a fixed batch per step, alone: versions, steps that are given up, and messages of other times."""

from collections.abc import Callable
from math import inf
from typing import Any

import pytest

Make = Callable[..., Any]
SCHEDULE = {"kind": "1f1b", "microbatches": 2}
FIRST, MIDDLE, LAST = 0, 2, 4  # of replica 0


@pytest.fixture
def fixed_peer(toy_plan: Make, alone: Make) -> Make:
    """Make a peer of three stages and two replicas that do two micro-batches a step, and let it begin."""

    def make(index: int, sync: Any = "none") -> Any:
        peer = alone(toy_plan(SCHEDULE, sync=sync), index)
        peer.loop.begin(0, inf)
        return peer

    return make


def gradients(peer: Any, at_s: float, step: int, generation: int = 0) -> None:
    """Let the gradients of a step come to a peer of the first stage."""
    for microbatch in (2 * step, 2 * step + 1):
        peer.hears(at_s, **{"k": "B", "m": microbatch, "c": 0, "e": generation, "from": MIDDLE})


def step(peer: Any, number: int) -> None:
    """Do step `number` in the seven seconds from 7 times it on: two forwards, two backwards, an optimizer step."""
    gradients(peer, 7.0 * number + 2.5, number)
    peer.until(7.0 * number + 6.9)


def numbers(peer: Any, event: str) -> list[tuple[int, int]]:
    return [(entry.microbatch, entry.step) for entry in peer.journal if entry.event == event]


def test_a_step_makes_a_version_and_the_next_one_begins(fixed_peer: Make) -> None:
    peer = fixed_peer(FIRST)
    step(peer, 0)
    assert peer.numbers.divisors == [2]
    assert [e.step for e in peer.journal if e.event == "committed"] == [1]
    assert [mail.header["m"] for mail in peer.outbox.of("F")][:2] == [0, 1]
    assert numbers(peer, "applied") == [(0, 1), (2, 1)]  # replica 0 of two: even numbers
    assert [message["version"] for message in peer.told] == [1]
    assert peer.numbers.done[4:] == [("F", 0, 4)]
    assert peer.loop.work_since(0) == 2


def test_two_versions_are_kept(fixed_peer: Make) -> None:
    peer = fixed_peer(FIRST)
    before = []
    for number in range(3):
        before.append(peer.numbers.state())
        gradients(peer, peer.loop.now_s + 2.5, number)
        peer.until(peer.loop.now_s + 4.0)
    assert peer.loop.version == 3
    assert peer.loop.state_of(2) == before[2]
    with pytest.raises(KeyError):
        peer.loop.state_of(1)


def test_a_step_that_is_given_up_leaves_no_trace_but_in_the_journal(fixed_peer: Make) -> None:
    peer = fixed_peer(FIRST)
    step(peer, 0)
    state = peer.numbers.state()
    peer.until(8.5)  # in the middle of the next step
    peer.loop.give_up_step(1, 2)
    assert peer.numbers.state() == state
    assert numbers(peer, "dropped") == [(4, 2), (6, 2)]
    assert [(e.step, e.detail) for e in peer.journal if e.event == "aborted"] == [(2, "back to version 1")]
    assert peer.loop.status == "benched"
    assert peer.loop.policy.held() == []
    peer.until(100.0)
    assert len(peer.numbers.done) <= 6


def test_who_got_one_step_further_goes_back_with_the_others(fixed_peer: Make) -> None:
    peer = fixed_peer(FIRST)
    first = peer.numbers.state()
    step(peer, 0)
    peer.until(8.5)
    peer.loop.give_up_step(0, 2)
    assert peer.numbers.state() == first
    assert peer.loop.version == 0
    assert peer.loop.work_since(0) == 0  # a merge would not count what was given up
    assert sorted(numbers(peer, "dropped")) == [(0, 1), (2, 1), (4, 2), (6, 2)]
    peer.loop.begin_at(2)
    peer.loop.begin(0, inf)
    gradients(peer, 20.0, 2, generation=2)
    peer.until(30.0)
    assert [e.step for e in peer.journal if e.event == "committed"] == [1, 1]  # version 1 is made anew
    assert [number for number, _ in numbers(peer, "applied")] == [0, 2, 8, 10]  # out of other micro-batches


def test_what_was_given_up_is_given_up_once(fixed_peer: Make) -> None:
    peer = fixed_peer(FIRST)
    peer.until(1.5)
    peer.loop.give_up_step(0, 1)
    peer.loop.give_up_step(0, 2)
    assert numbers(peer, "dropped") == [(0, 1), (2, 1)]


def test_messages_of_an_old_generation_are_too_late(fixed_peer: Make) -> None:
    peer = fixed_peer(MIDDLE)
    peer.until(1.0)
    peer.loop.give_up_step(0, 1)
    peer.loop.begin_at(1)
    peer.loop.begin(0, inf)
    peer.hears(3.0, **{"k": "F", "m": 2, "c": 1, "e": 0, "from": FIRST})
    peer.until(9.0)
    assert peer.numbers.done == []


def test_messages_for_the_step_to_come_wait_for_it(fixed_peer: Make) -> None:
    peer = fixed_peer(MIDDLE)
    peer.until(1.0)
    peer.loop.give_up_step(0, 1)
    peer.hears(3.0, b"early", **{"k": "F", "m": 2, "c": 1, "e": 1, "from": FIRST})
    assert peer.numbers.done == []
    peer.loop.begin_at(1)
    peer.loop.begin(0, inf)
    peer.until(9.0)
    assert peer.numbers.done == [("F", 1, 4)]
    assert [mail.header["e"] for mail in peer.outbox.of("F")] == [1]


def test_an_adopted_state_is_a_version_like_ones_own(fixed_peer: Make) -> None:
    peer, other = fixed_peer(FIRST), fixed_peer(FIRST)
    step(other, 0)
    peer.loop.adopt(1, other.loop.state_of(1))
    assert peer.loop.version == 1
    assert peer.loop.state_of(1) == other.loop.state_of(1)
    adopted, committed = peer.journal[-1], next(e for e in other.journal if e.event == "committed")
    assert (adopted.event, adopted.step, adopted.detail) == ("adopted", committed.step, committed.detail)


def test_states_are_handed_to_the_disk(fixed_peer: Make) -> None:
    peer = fixed_peer(FIRST)
    kept: list[tuple[int, bytes]] = []
    peer.loop.on_state = lambda version, state: kept.append((version, state))
    step(peer, 0)
    assert kept == [(1, peer.numbers.state())]


def test_with_replicas_that_agree_a_step_waits_for_the_others_gradient(fixed_peer: Make) -> None:
    peer = fixed_peer(FIRST, sync={"algorithm": "ring"})
    gradients(peer, 2.5, 0)
    peer.until(20.0)
    assert peer.numbers.divisors == []
    (part,) = peer.outbox.of("R")
    assert part.target == 1
    mine = peer.numbers.gradient.copy()  # 4 in each place: micro-batches 0 and 2 count 1 and 3
    for number in (0, 1):
        body = (mine[:3] * 10.0).tobytes()
        peer.hears(20.0 + number, body, **{"k": "R", "s": 0, "r": number, "e": 0, "from": 1})
    peer.until(22.0)
    assert peer.numbers.divisors == [4]  # two replicas with two micro-batches each
    assert peer.numbers.values == pytest.approx([0 - 10, 1 - 10, 2 - 10, 3 - 11, 4 - 11, 5 - 11])


def test_a_ring_under_way_is_forgotten_with_its_step(fixed_peer: Make) -> None:
    peer = fixed_peer(FIRST, sync={"algorithm": "ring"})
    gradients(peer, 2.5, 0)
    peer.until(20.0)
    peer.loop.give_up_step(0, 1)
    for number in (0, 1):
        peer.hears(21.0, bytes(24), **{"k": "R", "s": 0, "r": number, "e": 0, "from": 1})
    peer.until(30.0)
    assert peer.numbers.divisors == []
    assert len(peer.outbox.of("R")) == 1


def test_a_failure_is_reported_and_nothing_else(fixed_peer: Make) -> None:
    peer = fixed_peer(FIRST)
    peer.until(2.0)
    peer.loses(peer.outbox.of("F")[0], 2.1)
    peer.loop.reporter.flush(peer.loop.account, "idle")
    assert [report["failures"] for report in peer.reports if report["failures"]] == [
        [[MIDDLE, 2.1, float(peer.loop.plan.boundary_bytes)]]
    ]
    assert len(peer.outbox.of("F")) == 2
