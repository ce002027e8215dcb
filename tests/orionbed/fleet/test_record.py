"""What participants report, put together: no second of a peer is missing, whatever happened to it."""

from typing import Any

import pytest

from orionbed import tracing
from orionbed.fleet.record import Record
from orionbed.journal import Entry
from orionbed.results import Mark
from orionbed.tracing import CAUSES


def report(record: Record, peer: int, until_s: float, doing: str = "busy", *, life: int = 0, **more: Any) -> None:
    """Let a life of a peer report that it did nothing but wait for others since it began."""
    known = record.lives[peer, life]
    causes = list(known.cause_s)
    causes[tracing.CAUSE_UPSTREAM] += until_s - max(known.accounted_s, more.pop("born_s", 0.0))
    parts: dict[str, Any] = {"transfers": [], "failures": [], "entries": [], "spans": []}
    record.report(peer, {"life": life, "account": [until_s, *causes], "doing": doing, **parts, **more})


def entry(at_s: float, event: str, peer: int = 0, life: int = 0, **more: Any) -> Entry:
    return Entry(at_s, event, peer, life, **more)


def seconds(record: Record, peer: int = 0) -> float:
    """Return what all lives of a peer account for together."""
    return sum(sum(life.cause_s) for (index, _), life in record.lives.items() if index == peer)


def spent(record: Record, cause: int, peer: int = 0) -> float:
    return sum(life.cause_s[cause] for (index, _), life in record.lives.items() if index == peer)


# ---------------------------------------------------------------- accounts


def test_a_peer_that_crashes_and_returns_accounts_for_the_whole_run() -> None:
    record = Record(1)
    report(record, 0, 8.0)
    record.enter(entry(10.0, "crashed"))
    record.enter(entry(15.0, "returned", life=1))
    report(record, 0, 28.0, life=1, born_s=15.0)
    record.close(30.0, set(), 1)
    assert seconds(record) == pytest.approx(30.0)
    assert spent(record, tracing.CAUSE_DOWN) == 5.0
    assert spent(record, tracing.CAUSE_THROWN_AWAY) == 2.0 + 2.0  # busy when last heard of, each time
    assert record.marks == [Mark(10.0, 15.0, "down", 0)]


def test_the_last_second_that_a_life_told_of_is_that_of_its_account_or_of_its_journal() -> None:
    record = Record(1)
    report(record, 0, 8.0, "idle", entries=[list(entry(8.5, "retried", microbatch=3)), list(entry(8.7, "retried"))])
    report(record, 0, 8.6, "idle", entries=[])
    assert record.lives[0, 0].heard_s == 8.7
    report(record, 0, 9.0)
    assert record.lives[0, 0].heard_s == 9.0


def test_a_peer_lost_again_before_it_said_that_it_was_back_was_away_all_along() -> None:
    record = Record(1)
    report(record, 0, 8.0, "idle")
    record.reasons[0] = "flapping"
    record.enter(entry(8.0, "crashed"))
    record.enter(entry(20.0, "crashed", life=1))
    record.enter(entry(25.0, "returned", life=2))
    report(record, 0, 30.0, life=2, born_s=25.0)
    record.close(30.0, {0}, 1)
    assert seconds(record) == pytest.approx(30.0)
    assert spent(record, tracing.CAUSE_DOWN) == 17.0
    assert record.marks == [Mark(8.0, 25.0, "down", 0, "flapping")]


def test_a_peer_that_does_not_return_is_down_to_the_end() -> None:
    record = Record(1)
    report(record, 0, 8.0, "idle")
    record.enter(entry(10.0, "crashed"))
    record.close(30.0, set(), 1)
    assert seconds(record) == pytest.approx(30.0)
    assert spent(record, tracing.CAUSE_DOWN) == 20.0
    assert spent(record, tracing.CAUSE_UPSTREAM) == 10.0


def test_any_number_of_lives_adds_up() -> None:
    record = Record(1)
    report(record, 0, 3.0)
    for life in range(4):
        record.enter(entry(5.0 + 10.0 * life, "crashed", life=life))
        record.enter(entry(9.0 + 10.0 * life, "returned", life=life + 1))
        report(record, 0, 12.0 + 10.0 * life, "merging", life=life + 1, born_s=9.0 + 10.0 * life)
    record.close(50.0, {0}, 1)
    assert seconds(record) == pytest.approx(42.0)  # what is left the peer itself tells at the end
    assert spent(record, tracing.CAUSE_DOWN) == 16.0
    assert len(record.marks) == 4


def test_a_crash_that_comes_after_the_last_report_costs_what_was_being_done() -> None:
    for doing, cause in (
        ("busy", tracing.CAUSE_THROWN_AWAY),
        ("idle", tracing.CAUSE_UPSTREAM),
        ("merging", tracing.CAUSE_MERGE_TRANSFER),
        ("benched", tracing.CAUSE_BENCHED),
    ):
        record = Record(1)
        report(record, 0, 4.0, doing)
        before = spent(record, cause)
        record.enter(entry(10.0, "crashed"))
        assert spent(record, cause) - before == 6.0


def test_a_peer_that_accounted_for_more_than_its_life_loses_nothing() -> None:
    record = Record(1)
    report(record, 0, 12.0)
    record.enter(entry(10.0, "crashed"))
    assert record.lives[0, 0].accounted_s == 12.0


def test_who_could_not_tell_the_end_is_accounted_for_to_the_end() -> None:
    record = Record(1)
    report(record, 0, 20.0)
    report(record, 1, 20.0)
    record.close(30.0, {1}, 3)
    assert seconds(record, 0) == 30.0
    assert seconds(record, 1) == 20.0
    assert seconds(record, 2) == 30.0  # nobody ever heard of it
    assert len(record.lives[0, 0].cause_s) == len(CAUSES)


# ---------------------------------------------------------------- micro-batches


def test_a_micro_batch_is_applied_once_when_all_chunks_have_used_it() -> None:
    record = Record(2)
    record.enter(entry(1.0, "created", microbatch=0))
    record.enter(entry(2.0, "accumulated", peer=1, chunk=1, microbatch=0))
    assert record.applied == 0
    for at_s in (3.0, 4.0):
        record.enter(entry(at_s, "accumulated", chunk=0, microbatch=0))
    assert record.applied == 1
    assert record.applied_since(1.0)
    assert not record.applied_since(1.5)


def test_what_was_dropped_and_sent_again_can_be_applied() -> None:
    record = Record(1)
    for event in ("created", "dropped", "retried", "accumulated"):
        record.enter(entry(1.0, event, microbatch=0))
    assert record.applied == 1
    for event in ("created", "dropped", "accumulated"):
        record.enter(entry(2.0, event, microbatch=1))
    assert record.applied == 1


def test_with_a_peer_goes_what_lies_there_and_with_a_first_one_all_that_it_made() -> None:
    record = Record(3)
    report(record, 1, 1.0, transfers=[[0, 0, number, 0.5, 1.0, 10.0] for number in (4, 5, 6)])
    record.enter(entry(2.0, "forward", peer=1, microbatch=4))  # it has left again
    record.enter(entry(2.0, "dropped", peer=0, microbatch=6))
    assert record.held_by(1, 0, was_first=False) == {5}
    for number in (7, 8):
        record.enter(entry(3.0, "created", microbatch=number))
    record.enter(entry(4.0, "forward", microbatch=7))
    assert record.held_by(0, 0, was_first=True) == {7, 8}


def test_another_life_of_the_peer_holds_nothing() -> None:
    record = Record(3)
    report(record, 1, 1.0, transfers=[[0, 0, 4, 0.5, 1.0, 10.0]])
    assert record.held_by(1, 1, was_first=False) == set()
    assert record.transfers == [(1, 0, 0, 4, 0.5, 1.0, 10.0)]


def test_losses_are_kept_apart_from_the_journal() -> None:
    record = Record(1)
    record.enter(entry(1.0, "loss", microbatch=3, detail="2.5"))
    assert record.losses == [(1.0, 3, 2.5)]
    assert record.entries == []


def test_bytes_that_were_lost_are_found_by_peer_by_way_and_by_time() -> None:
    record = Record(1)
    report(record, 0, 9.0, failures=[[1, 2.0, 100.0], [2, 4.0, 50.0], [1, 8.0, 7.0]])
    assert record.failed_bytes({1}, set(), 0.0, 5.0) == 100.0
    assert record.failed_bytes(set(), {(0, 2)}, 0.0, 5.0) == 50.0
    assert record.failed_bytes({1}, {(0, 1)}, 0.0, 9.0) == 107.0
    assert record.failed_bytes({3}, {(2, 0)}, 0.0, 9.0) == 0.0


def test_spans_know_whose_they_are() -> None:
    record = Record(1)
    report(record, 5, 2.0, spans=[[1, tracing.LANE_COMPUTE, tracing.KIND_F, 3, 0, 0.5, 1.5, 0.0, 0]])
    (span,) = record.spans
    assert (span.peer, span.step, span.microbatch, span.start_s, span.end_s) == (5, 1, 3, 0.5, 1.5)
