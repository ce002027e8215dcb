"""A queue-driven peer alone: where it sends, how often, what it refuses, and what it forgets."""

from collections.abc import Callable
from itertools import pairwise
from math import inf
from typing import Any

import pytest

from orionbed.faults import Parameters, ResolvedFault

Make = Callable[..., Any]
FIRST, MIDDLE, OTHER, LAST = 0, 2, 3, 4
"""Peers: of the first stage, the two of the middle one, and one of the last."""


def started(peer: Any, until_s: float = inf) -> Any:
    peer.loop.begin(0, until_s)
    return peer


def forwards(peer: Any) -> list[tuple[int, int, int]]:
    """To whom it sent which micro-batch, for the how-manieth time."""
    return [(mail.target, mail.header["m"], mail.header["a"]) for mail in peer.outbox.of("F")]


def status(peer: int, at_s: float, *, free: int = 2, queue: int = 0) -> dict[str, Any]:
    return {"k": "S", "from": peer, "free": free, "queue": queue, "e": 0, "at": at_s}


# ---------------------------------------------------------------- sending


def test_a_first_stage_makes_micro_batches_until_its_window_is_full(queue_peer: Make) -> None:
    peer = started(queue_peer(FIRST))
    peer.until(10.0)
    assert forwards(peer) == [(MIDDLE, 0, 0), (MIDDLE, 2, 0)]  # numbers of replica 0: 0, 2, 4, ...
    assert [mail.at_s for mail in peer.outbox.of("F")] == [1.0, 2.0]
    assert peer.outbox.of("F")[0].num_bytes == peer.loop.plan.boundary_bytes


def test_a_gradient_frees_the_window_and_two_make_a_step(queue_peer: Make) -> None:
    peer = started(queue_peer(FIRST))
    peer.hears(3.0, **{"k": "B", "m": 0, "c": 0, "e": 0, "from": MIDDLE})
    peer.hears(5.5, **{"k": "B", "m": 2, "c": 0, "e": 0, "from": MIDDLE})
    peer.until(8.5)
    assert peer.numbers.done == [("F", 0, 0), ("F", 0, 2), ("B", 0, 0), ("F", 0, 4), ("B", 0, 2), ("F", 0, 6)]
    assert peer.numbers.divisors == [2]
    assert peer.wrote("applied") == [(0, "2"), (2, "2")]
    assert peer.loop.work_since(0) == 2  # its weight in the next merge
    peer.loop.take_merged(1, peer.numbers.weights())
    assert peer.loop.work_since(1) == 0


def test_a_gradient_goes_back_the_way_the_activation_came(queue_peer: Make) -> None:
    peer = started(queue_peer(LAST))
    peer.hears(1.0, **{"k": "F", "m": 7, "c": 2, "e": 0, "from": OTHER})
    peer.until(10.0)
    (mail,) = peer.outbox.of("B")
    assert (mail.target, mail.header["m"], mail.header["c"], mail.at_s) == (OTHER, 7, 1, 4.0)


def test_broadcasts_decide_which_replica_gets_the_next_one(queue_peer: Make) -> None:
    peer = started(queue_peer(FIRST, router="shortest-queue"))
    peer.hears(0.1, **status(MIDDLE, 0.1, queue=5))
    peer.hears(0.2, **status(OTHER, 0.2))
    peer.hears(1.5, **status(OTHER, 1.5, queue=9))
    peer.until(3.0)
    assert [target for target, _, _ in forwards(peer)] == [OTHER, MIDDLE]


# ---------------------------------------------------------------- retrying


def test_a_reset_is_sent_again_to_the_same_peer_after_the_timeout(queue_peer: Make) -> None:
    peer = started(queue_peer(FIRST, router="fastest", window=1))
    peer.until(1.0)
    (first,) = peer.outbox.of("F")
    peer.loses(first, 1.5)
    peer.until(2.4)
    assert len(forwards(peer)) == 1
    peer.until(2.5)
    assert forwards(peer) == [(first.target, 0, 0), (first.target, 0, 1)]
    assert peer.outbox.of("F")[1].body == first.body
    assert [(e.microbatch, e.attempt) for e in peer.journal if e.event == "retried"] == [(0, 1)]


def test_what_a_dead_peer_was_to_get_goes_elsewhere(queue_peer: Make) -> None:
    peer = started(queue_peer(FIRST, router="fastest", window=1))
    peer.until(1.0)
    (first,) = peer.outbox.of("F")
    peer.loop.gone.add(first.target)
    peer.loses(first, 1.5)
    peer.until(3.0)
    assert [target for target, _, _ in forwards(peer)] == [MIDDLE, OTHER]


def test_a_peer_that_says_no_is_asked_last(queue_peer: Make) -> None:
    peer = started(queue_peer(FIRST, router="fastest", window=1))
    peer.hears(1.5, **{"k": "N", "m": 0, "e": 0, "from": MIDDLE})
    peer.until(2.5)
    assert forwards(peer) == [(MIDDLE, 0, 0), (OTHER, 0, 1)]


def test_after_the_last_attempt_it_is_dropped_and_its_slot_is_free(queue_peer: Make) -> None:
    peer = started(queue_peer(FIRST, window=1))
    for attempt in range(3):
        peer.until(1.0 + 2.0 * attempt)
        peer.loses(peer.outbox.of("F")[-1], 2.0 + 2.0 * attempt)
    assert forwards(peer) == [(MIDDLE, 0, 0), (MIDDLE, 0, 1), (MIDDLE, 0, 2)]
    peer.until(7.0)
    assert peer.wrote("dropped") == [(0, "no peer to send to")]
    assert peer.numbers.forgotten == [0]
    peer.until(8.0)
    assert forwards(peer)[-1] == (MIDDLE, 2, 0)


def test_what_comes_back_before_it_is_sent_again_is_not_sent_again(queue_peer: Make) -> None:
    peer = started(queue_peer(FIRST, window=1, attempts=1))
    peer.until(1.0)
    peer.loses(peer.outbox.of("F")[0], 1.2)  # it had got through, only the word of it had not
    peer.hears(1.5, **{"k": "B", "m": 0, "c": 0, "e": 0, "from": MIDDLE})
    peer.until(4.5)
    assert forwards(peer) == [(MIDDLE, 0, 0), (MIDDLE, 2, 0)]
    assert peer.wrote("accumulated") == [(0, "")]
    assert peer.wrote("dropped") == []


@pytest.mark.parametrize("gone", [False, True])
def test_a_gradient_is_sent_again_unless_nobody_waits_for_it(queue_peer: Make, gone: bool) -> None:
    peer = started(queue_peer(LAST))
    peer.hears(1.0, **{"k": "F", "m": 7, "c": 2, "e": 0, "from": MIDDLE})
    peer.until(4.0)
    if gone:
        peer.loop.gone.add(MIDDLE)
    peer.loses(peer.outbox.of("B")[0], 4.5)
    peer.until(6.0)
    sent = [(mail.target, mail.header["a"]) for mail in peer.outbox.of("B")]
    assert sent == ([(MIDDLE, 0)] if gone else [(MIDDLE, 0), (MIDDLE, 1)])
    assert peer.wrote("dropped") == ([(7, "way back lost: connection reset")] if gone else [])


def test_a_gradient_is_given_up_after_as_many_attempts(queue_peer: Make) -> None:
    peer = started(queue_peer(LAST))
    peer.hears(1.0, **{"k": "F", "m": 7, "c": 2, "e": 0, "from": MIDDLE})
    for attempt in range(3):
        peer.until(4.0 + 2.0 * attempt)
        peer.loses(peer.outbox.of("B")[-1], 5.0 + 2.0 * attempt)
    peer.until(30.0)
    assert [mail.header["a"] for mail in peer.outbox.of("B")] == [0, 1, 2]
    assert peer.wrote("dropped") == [(7, "way back lost")]


# ---------------------------------------------------------------- receiving


def test_a_duplicate_forward_is_refused(queue_peer: Make) -> None:
    peer = started(queue_peer(LAST))
    for at_s in (1.0, 2.0):
        peer.hears(at_s, **{"k": "F", "m": 7, "c": 2, "e": 0, "from": MIDDLE})
    peer.hears(9.0, **{"k": "F", "m": 7, "c": 2, "e": 0, "from": OTHER})
    peer.until(30.0)
    assert peer.numbers.done == [("B", 2, 7)]
    assert peer.wrote("refused") == [(7, "here before")] * 2
    assert peer.wrote("dropped") == []


def test_a_duplicate_gradient_is_refused_whether_or_not_the_first_one_was_used(queue_peer: Make) -> None:
    peer = started(queue_peer(FIRST))
    for at_s in (3.0, 3.5, 9.0):
        peer.hears(at_s, **{"k": "B", "m": 0, "c": 0, "e": 0, "from": MIDDLE})
    assert [action for action in peer.numbers.done if action[0] == "B"] == [("B", 0, 0)]
    assert peer.wrote("refused") == [(0, "here before")] * 2


def test_a_gradient_that_nobody_waits_for_is_the_end_of_its_micro_batch(queue_peer: Make) -> None:
    peer = started(queue_peer(FIRST))
    peer.hears(3.0, **{"k": "B", "m": 40, "c": 0, "e": 0, "from": MIDDLE})
    assert peer.wrote("refused") == [(40, "not held")]
    assert peer.wrote("dropped") == [(40, "way back lost")]


def test_messages_of_another_phase_are_not_looked_at(queue_peer: Make) -> None:
    peer = started(queue_peer(LAST))
    peer.hears(1.0, **{"k": "F", "m": 7, "c": 2, "e": 1, "from": MIDDLE})
    peer.until(9.0)
    assert peer.numbers.done == []
    first = started(queue_peer(FIRST, window=1))
    first.hears(1.5, **{"k": "N", "m": 0, "e": 4, "from": MIDDLE})
    first.loses(first.outbox.of("F")[0]._replace(header={"k": "F", "m": 0, "e": 4}), 1.6)
    first.until(9.0)
    assert len(forwards(first)) == 1


def test_whoever_is_not_training_says_no(queue_peer: Make) -> None:
    peer = queue_peer(MIDDLE)
    peer.hears(1.0, **{"k": "F", "m": 7, "c": 1, "e": 0, "from": FIRST})
    (mail,) = peer.outbox
    assert (mail.target, mail.header, mail.control) == (FIRST, {"k": "N", "m": 7, "e": 0}, True)


# ---------------------------------------------------------------- slots that expire


def test_a_slot_expires_after_its_life_times_the_stages_to_the_end(queue_peer: Make) -> None:
    peer = started(queue_peer(FIRST, window=1, cache_ttl=4.0))
    peer.until(12.9)
    assert len(forwards(peer)) == 1
    peer.until(14.5)  # sent at 1 s, and 3 stages times 4 s later
    assert peer.wrote("dropped") == [(0, "slot expired")]
    assert forwards(peer)[-1] == (MIDDLE, 2, 0)
    peer.hears(15.0, **{"k": "B", "m": 0, "c": 0, "e": 0, "from": MIDDLE})
    assert peer.wrote("refused") == [(0, "not held")]


def test_a_slot_does_not_expire_while_its_gradient_is_being_used(queue_peer: Make) -> None:
    peer = started(queue_peer(FIRST, window=1, cache_ttl=4.0))
    peer.hears(12.5, **{"k": "B", "m": 0, "c": 0, "e": 0, "from": MIDDLE})
    peer.until(15.0)
    assert peer.wrote("dropped") == []
    assert peer.wrote("accumulated") == [(0, "")]


def test_a_slot_does_not_expire_while_its_gradient_is_queued(queue_peer: Make) -> None:
    peer = started(queue_peer(FIRST, window=2, cache_ttl=1.0))
    for number in (0, 2):  # their slots would expire at 4 and 5 s; the backward of the second begins at 5.5 s
        peer.hears(3.5, **{"k": "B", "m": number, "c": 0, "e": 0, "from": MIDDLE})
    peer.until(8.0)
    assert peer.wrote("dropped") == []
    assert peer.wrote("accumulated") == [(0, ""), (2, "")]


# ---------------------------------------------------------------- status and silence


def test_a_peer_says_how_it_is_when_it_joins_and_ever_so_often(queue_peer: Make) -> None:
    peer = started(queue_peer(MIDDLE, status_every=5.0))
    peer.hears(0.0, **{"k": "F", "m": 0, "c": 1, "e": 0, "from": FIRST})
    peer.until(17.0)
    times = sorted({mail.at_s for mail in peer.outbox.of("S")})
    assert len(times) in {4, 5}
    assert times[0] == 0.0
    assert [later - earlier for earlier, later in pairwise(times[1:])] == pytest.approx([5.0] * (len(times) - 2))
    assert {mail.target for mail in peer.outbox.of("S")} == {0, 1}
    assert all(mail.control and mail.num_bytes == 0.0 for mail in peer.outbox.of("S"))
    assert [mail.header["free"] for mail in peer.outbox.of("S")][::2][:2] == [2, 1]


def test_a_peer_not_heard_of_for_six_seconds_is_taken_for_gone(queue_peer: Make) -> None:
    peer = started(queue_peer(FIRST, window=1, status_every=5.0))
    peer.hears(5.0, **status(OTHER, 5.0))
    peer.hears(6.5, **{"k": "B", "m": 0, "c": 0, "e": 0, "from": MIDDLE})
    peer.until(9.5)
    assert [target for target, _, _ in forwards(peer)] == [MIDDLE, OTHER]


def test_at_first_everybody_is_taken_to_be_there_again(queue_peer: Make) -> None:
    peer = started(queue_peer(FIRST, window=1, status_every=5.0), until_s=20.0)
    peer.until(25.0)
    peer.loop.begin(1, inf)
    peer.until(26.0)
    assert forwards(peer)[-1][0] == MIDDLE


def test_whose_clock_is_behind_looks_silent(queue_peer: Make) -> None:
    peer = started(queue_peer(FIRST, window=1, status_every=5.0))
    for at_s in (4.0, 8.0):
        peer.hears(at_s, **status(MIDDLE, at_s - 20.0))
        peer.hears(at_s, **status(OTHER, at_s))
    peer.hears(8.5, **{"k": "B", "m": 0, "c": 0, "e": 0, "from": MIDDLE})
    peer.until(12.0)
    assert forwards(peer)[-1][0] == OTHER


def test_a_clock_of_the_future_is_no_longer_life(queue_peer: Make) -> None:
    peer = started(queue_peer(FIRST, window=1, status_every=5.0))
    peer.hears(4.0, **status(MIDDLE, 4000.0))
    peer.hears(12.0, **status(OTHER, 12.0))
    peer.hears(12.5, **{"k": "B", "m": 0, "c": 0, "e": 0, "from": MIDDLE})
    peer.until(16.0)
    assert forwards(peer)[-1][0] == OTHER


def test_whose_own_clock_is_ahead_finds_nobody(queue_peer: Make) -> None:
    fault = ResolvedFault("t", "clock", 0.0, 30.0, (FIRST,), parameters=Parameters(offset_s=20.0, drift_ppm=0.0))
    peer = started(queue_peer(FIRST, window=1, status_every=5.0, faults=(fault,)))
    peer.until(4.0)
    assert forwards(peer) == []
    assert peer.wrote("dropped") == [(0, "no peer to send to")]


def test_a_wrong_clock_is_told_to_the_others(queue_peer: Make) -> None:
    fault = ResolvedFault("t", "clock", 0.0, 30.0, (MIDDLE,), parameters=Parameters(offset_s=20.0, drift_ppm=0.0))
    peer = started(queue_peer(MIDDLE, faults=(fault,)))
    assert [mail.header["at"] for mail in peer.outbox.of("S")] == [20.0, 20.0]


# ---------------------------------------------------------------- the end of a training phase


def test_at_the_end_gradients_at_hand_become_a_step_and_the_rest_is_flushed(queue_peer: Make) -> None:
    peer = started(queue_peer(FIRST), until_s=6.5)
    peer.hears(3.0, **{"k": "B", "m": 0, "c": 0, "e": 0, "from": MIDDLE})
    peer.until(7.0)
    assert peer.numbers.divisors == [1]
    assert peer.wrote("applied") == [(0, "1")]
    assert peer.loop.work_since(0) == 1
    assert peer.wrote("dropped") == [(2, "flushed at merge"), (4, "flushed at merge")]
    assert peer.loop.status == "merging"
    assert peer.told == [{"t": "ended", "epoch": 0, "steps": 0, "at_s": 6.5}]
    peer.until(500.0)  # nothing expires and nothing is sent again
    assert len(peer.outbox.of("F")) == 3
    assert len(peer.wrote("dropped")) == 2


def test_a_backward_that_the_phase_cuts_off_leaves_no_gradient_behind(queue_peer: Make) -> None:
    peer = started(queue_peer(FIRST), until_s=6.5)
    peer.hears(1.5, **{"k": "B", "m": 0, "c": 0, "e": 0, "from": MIDDLE})
    peer.hears(5.0, **{"k": "B", "m": 2, "c": 0, "e": 0, "from": MIDDLE})
    peer.until(9.0)
    assert peer.wrote("applied") == [(0, "1")]
    assert peer.numbers.values.tolist() == [-1.0, 0.0, 1.0, 2.0, 3.0, 4.0]


def test_later_stages_leave_it_to_the_first_to_say_what_is_dropped(queue_peer: Make) -> None:
    peer = started(queue_peer(MIDDLE), until_s=2.5)
    for number in (0, 2):
        peer.hears(0.0, **{"k": "F", "m": number, "c": 1, "e": 0, "from": FIRST})
    peer.until(9.0)
    assert len(peer.outbox.of("F")) == 2
    assert [entry.event for entry in peer.journal][-2:] == ["forward", "reset"]


def test_every_second_is_accounted_for_whatever_happens(queue_peer: Make) -> None:
    peer = started(queue_peer(FIRST), until_s=6.5)
    peer.hears(3.0, **{"k": "B", "m": 0, "c": 0, "e": 0, "from": MIDDLE})
    peer.until(7.0)
    peer.loop.close(10.0)
    account = peer.loop.account
    assert account.accounted_s == 10.0
    assert sum(account.cause_s) + sum(account.work_s.values()) == pytest.approx(10.0)
