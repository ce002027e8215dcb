"""The ledger's own rules: once per stage, latest attempt only, nothing skipped silently."""

import pytest

from orionbed.ledger import ATTEMPT_BITS, Ledger, LedgerError


def used_by(ledger: Ledger, *stages: int) -> int:
    number = ledger.create()
    for stage in stages:
        ledger.open[number].use(stage)
    return number


def test_a_stage_uses_a_gradient_once() -> None:
    ledger = Ledger(num_stages=2)
    number = used_by(ledger, 1)
    with pytest.raises(LedgerError, match="stage 1 used the gradient of one micro-batch twice"):
        ledger.open[number].use(1)


def test_a_skipped_stage_must_be_said() -> None:
    ledger = Ledger(num_stages=3)
    silent, told = used_by(ledger, 2, 0), used_by(ledger, 2, 0)
    with pytest.raises(LedgerError, match="2 of 3 stages"):
        ledger.apply(silent)
    ledger.open[told].skipped |= 1 << 1
    ledger.apply(told)
    assert (ledger.with_skipped, ledger.skipped_stages) == (1, 1)


def test_a_stage_that_was_passed_by_and_had_used_it_is_not_skipped() -> None:
    ledger = Ledger(num_stages=2)
    number = used_by(ledger, 1, 0)
    ledger.open[number].skipped |= 1 << 1
    ledger.apply(number)
    assert (ledger.applied, ledger.skipped_stages) == (1, 0)


def test_an_attempt_makes_the_one_before_void() -> None:
    ledger = Ledger(num_stages=1)
    first = used_by(ledger)
    second = ledger.again(first)
    assert second % (1 << ATTEMPT_BITS) == first
    assert list(ledger.open) == [second]
    ledger.check()
    with pytest.raises(KeyError):
        ledger.again(first)
    assert ledger.drop(first, "late") is None
    ledger.open[second].use(0)
    ledger.apply(second)
    assert (ledger.created, ledger.applied, ledger.redone, ledger.dropped) == (1, 1, 1, 0)


def test_what_is_taken_back_is_dropped_and_was_partly_used() -> None:
    ledger = Ledger(num_stages=1)
    first = ledger.again(used_by(ledger, 0))
    ledger.open[first].staleness = 3
    record = ledger.apply(first)
    ledger.take_back(record, "local steps lost")
    ledger.check()
    counts = ledger.counts()
    assert (counts["applied"], counts["dropped"], counts["partially_applied"]) == (0, 1, 1)
    assert (counts["redone"], counts["stale_applied"], counts["mean_staleness"]) == (0, 0, 0.0)
    assert ledger.taken_back == 1
