"""How runs end."""

from collections.abc import Callable

import pytest

from orionbed.plan import make_plan
from orionbed.scenario import Scenario
from orionbed.summary import summarise
from sim import backend

Make = Callable[..., Scenario]


def test_a_run_that_gets_nowhere_is_ended_and_says_so(quiet: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "STALLED_AFTER_S", 5000.0)
    # Nobody stays up as long as one operation takes.
    churn = {"up": {"dist": "uniform", "low": 1.0, "high": 2.0}, "down": {"dist": "uniform", "low": 1.0, "high": 2.0}}
    scenario = quiet(stages=2, churn=churn, peers__overhead=10.0, run={"tokens": 1e6})
    result = backend.run(make_plan(scenario))
    assert result.ledger.applied == 0
    assert 5000.0 < result.duration_s < 7000.0
    summary = summarise(result, None, git="", started_at="")
    assert "no micro-batch was completed" in summary["aborted"]
    assert "aborted" in {entry["code"] for entry in summary["warnings"]}


def test_a_run_ends_with_its_last_token(quiet: Make) -> None:
    result = backend.run(make_plan(quiet(stages=2, peers__overhead=1.0, run={"tokens": 10_000.0})))
    assert result.ledger.applied == 10  # of 1024 tokens each
    assert result.duration_s == result.applied_s[-1]
    assert result.aborted == ""


def test_whichever_limit_comes_first_ends_a_run(quiet: Make) -> None:
    limits = {"tokens": 1e9, "duration": 30.0}
    assert backend.run(make_plan(quiet(peers__overhead=1.0, run=limits))).duration_s == 30.0


def test_progress_is_told_about_every_ten_minutes(quiet: Make) -> None:
    seen: list[backend.Progress] = []
    backend.run(make_plan(quiet(peers__overhead=1.0, run={"duration": 1500.0})), progress=seen.append)
    assert [state.now_s for state in seen] == [600.0, 1200.0, 1500.0]
    assert seen[0].applied <= seen[1].applied <= seen[2].applied


def test_a_run_that_ends_within_a_merge_closes_its_epoch(quiet: Make) -> None:
    merge = {"every": 20.0, "compute": 50.0}
    result = backend.run(make_plan(quiet(replicas=2, peers__overhead=0.5, merge=merge, run={"duration": 40.0})))
    assert len(result.epochs) == 1
    assert result.epochs[0].end_s == 40.0
    assert result.epochs[0].training_end_s < 25.0
