"""From journals written by hand to the ledger: what counts as applied, dropped, done again, and how stale it was."""

from typing import Any

from orionbed import tracing
from orionbed.fleet.record import Span
from orionbed.fleet.tally import Tally, in_vain
from orionbed.journal import Entry


class Journal(list[Entry]):
    """Entries of two chunks, which peers 0 and 1 hold; a second passes from one to the next."""

    def write(self, event: str, microbatch: int, chunk: int = 0, **more: Any) -> "Journal":
        peer = more.pop("peer", chunk)
        self.append(Entry(float(len(self)), event, peer, chunk=chunk, stage=chunk, microbatch=microbatch, **more))
        return self

    def begins(self, microbatch: int) -> "Journal":
        return self.write("created", microbatch).write("forward", microbatch)

    def uses(self, microbatch: int, chunk: int) -> "Journal":
        return self.write("backward", microbatch, chunk).write("accumulated", microbatch, chunk)

    def applies(self, step: int, chunk: int, *microbatches: int) -> "Journal":
        for microbatch in microbatches:
            self.write("applied", microbatch, chunk, step=step)
        return self


def tally(journal: Journal) -> Tally:
    found = Tally(journal, 2)
    found.ledger().check()
    return found


def test_a_micro_batch_is_applied_when_the_last_chunk_has_its_gradient() -> None:
    journal = Journal().begins(0).uses(0, 1).uses(0, 0)
    found = tally(journal)
    assert found.applied == {0}
    assert found.applied_s().tolist() == [5.0]
    ledger = found.ledger()
    assert (ledger.created, ledger.applied, ledger.in_flight, ledger.redone) == (1, 1, 0, 0)


def test_until_then_it_is_under_way() -> None:
    ledger = tally(Journal().begins(0).uses(0, 1).begins(2)).ledger()
    assert (ledger.created, ledger.applied, ledger.in_flight) == (2, 0, 2)


def test_what_is_dropped_is_counted_by_its_reason_without_the_fault_and_the_particulars() -> None:
    journal = Journal().begins(0).begins(1).begins(2).uses(2, 1)
    journal.write("dropped", 0, detail="peer lost [fault k1]")
    journal.write("dropped", 1, detail="way back lost: connection reset")
    journal.write("dropped", 2, detail="peer lost")
    ledger = tally(journal).ledger()
    assert ledger.dropped_by_reason == {"peer lost": 2, "way back lost": 1}
    assert ledger.partially_applied == 1


def test_the_first_reason_counts() -> None:
    journal = Journal().begins(0).write("dropped", 0, detail="slot expired").write("dropped", 0, detail="peer lost")
    assert tally(journal).ledger().dropped_by_reason == {"slot expired": 1}


def test_what_is_dropped_and_nevertheless_used_everywhere_is_applied() -> None:
    journal = Journal().begins(0).uses(0, 1).write("dropped", 0, chunk=1, detail="way back lost").uses(0, 0)
    ledger = tally(journal).ledger()
    assert (ledger.applied, ledger.dropped) == (1, 0)


def test_what_is_retried_and_then_applied_is_counted_as_done_again() -> None:
    journal = Journal().begins(0).write("retried", 0).uses(0, 1).uses(0, 0).begins(1).uses(1, 1).uses(1, 0)
    ledger = tally(journal).ledger()
    assert (ledger.applied, ledger.redone) == (2, 1)


def test_what_is_retried_is_no_longer_dropped() -> None:
    journal = Journal().begins(0).write("dropped", 0, detail="way back lost").write("retried", 0)
    assert tally(journal).ledger().in_flight == 1
    journal.write("dropped", 0, detail="no peer to send to")
    assert tally(journal).ledger().dropped_by_reason == {"no peer to send to": 1}


def test_a_step_that_is_given_up_takes_back_what_it_had_applied() -> None:
    journal = Journal().begins(0).uses(0, 1).uses(0, 0).applies(1, 1, 0)
    assert tally(journal).applied == {0}
    journal.write("dropped", 0, step=1, detail="step given up")
    found = tally(journal)
    assert found.applied == set()
    assert found.applied_s().tolist() == []
    assert found.ledger().dropped_by_reason == {"step given up": 1}


def test_a_better_reason_replaces_that_of_the_step() -> None:
    journal = Journal().begins(0).write("dropped", 0, detail="step given up")
    journal.write("dropped", 0, detail="peer lost [fault k1]")
    assert tally(journal).ledger().dropped_by_reason == {"peer lost": 1}


def test_staleness_is_the_steps_between_forward_and_backward_of_each_chunk() -> None:
    journal = Journal().begins(0).begins(1).begins(2)
    for number in range(3):
        journal.write("forward", number, 1).uses(number, 1)
    journal.uses(0, 0).applies(1, 0, 0).uses(1, 0).applies(2, 0, 1).uses(2, 0)
    ledger = tally(journal).ledger()
    assert (ledger.applied, ledger.stale_applied, ledger.staleness_sum) == (3, 2, 1 + 2)


def test_a_step_counts_once_however_many_micro_batches_it_uses() -> None:
    journal = Journal().begins(0).begins(1).begins(2).uses(0, 1).uses(1, 1).uses(2, 1)
    journal.uses(0, 0).uses(1, 0).applies(1, 0, 0, 1).uses(2, 0)
    assert tally(journal).ledger().staleness_sum == 1


def test_a_peer_that_is_born_again_has_taken_no_step() -> None:
    journal = Journal().begins(0).uses(0, 1).uses(0, 0).applies(1, 0, 0)
    journal.write("created", 5, life=1).write("forward", 5, life=1)
    journal.write("applied", 0, step=2)  # of the life before
    journal.write("accumulated", 5, chunk=1).write("accumulated", 5, life=1)
    assert tally(journal).ledger().staleness_sum == 0


def test_what_was_never_created_does_not_count() -> None:
    assert tally(Journal().uses(7, 1).uses(7, 0).write("dropped", 8)).ledger().created == 0


def test_work_in_vain_is_that_on_what_was_dropped_or_is_under_way() -> None:
    journal = Journal().begins(0).uses(0, 1).uses(0, 0).begins(1).write("dropped", 1, detail="peer lost").begins(2)
    found = tally(journal)
    spans = [Span(0, 0, tracing.LANE_COMPUTE, tracing.KIND_F, number, 0.0, 1.0, 0.0, 0) for number in (-1, 0, 1, 2)]
    thrown, unfinished = in_vain(spans, found, found.ledger())
    assert [span.microbatch for span in thrown] == [1]
    assert [span.microbatch for span in unfinished] == [2]
