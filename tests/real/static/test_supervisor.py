"""The supervisor of a static run, with processes that compute nothing and go wrong when they are told to."""

import asyncio
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orionbed.backends import BackendError
from orionbed.fleet.certificates import Authority
from orionbed.fleet.supervising import AbortedRunError
from orionbed.plan import make_plan
from orionbed.scenario import apply, load
from real.job import Job
from real.launch import layout_of
from real.settings import real_shape
from real.static import supervisor as module
from real.static.supervisor import StaticSupervisor

STAND_IN = Path(__file__).with_name("stand_in.py")

pytestmark = [pytest.mark.xdist_group("real"), pytest.mark.timeout(60)]


def job_of(**settings: Any) -> Job:
    changes = {f"real.{key}": value for key, value in settings.items()}
    plan = make_plan(apply(load("hardware/small"), changes))
    return Job(plan, 0, real_shape(plan, "cpu"), "cpu", "gloo", ("127.0.0.1", 0), "a secret of the run")


def supervised(
    monkeypatch: pytest.MonkeyPatch, behaviour: str, job: Job | None = None
) -> tuple[StaticSupervisor, list[str], Exception | None]:
    """Return the supervisor after its run, what it said, and the error that the run ended with."""
    job = job or job_of()
    restarts = job.plan.scenario.real.restarts

    def command(_layout: object, _node: int, path: Path, *, restarts: int) -> list[str]:
        return [sys.executable, str(STAND_IN), str(path), behaviour, str(restarts)]

    monkeypatch.setattr(module, "torchrun", command)
    said: list[str] = []

    async def run() -> tuple[StaticSupervisor, Exception | None]:
        found = StaticSupervisor(job, layout_of(job.plan), said.append, lambda _reports: None)
        try:
            await found.run()
        except (AbortedRunError, BackendError) as error:
            return found, error
        return found, None

    del restarts
    found, error = asyncio.run(run())
    return found, said, error


@pytest.mark.parametrize("encrypted", [False, True])
def test_all_reports_of_all_processes_come_together(monkeypatch: pytest.MonkeyPatch, encrypted: bool) -> None:
    job = job_of()
    if encrypted:
        job = replace(job, credentials=Authority().issue("a process"))
    found, said, error = supervised(monkeypatch, "works", job)
    assert error is None
    assert sorted(said) == ["2 processes are up", "warmed up; what counts begins"]
    assert found.reports.num_complete == 4
    assert [member.final is not None for member in found.members] == [True, True]


@pytest.mark.parametrize(
    ("behaviour", "how"),
    [("dies", "died"), ("stops", "was not heard of for"), ("fails", "failed with ValueError: no such thing")],
)
def test_a_lost_process_ends_the_run_with_its_name_and_its_last_action(
    monkeypatch: pytest.MonkeyPatch, behaviour: str, how: str
) -> None:
    began_s = time.monotonic()
    found, _, error = supervised(monkeypatch, behaviour, job_of(silence=3.0))
    assert isinstance(error, AbortedRunError)
    assert str(error).startswith(f"s01r0 (rank 1) {how}")
    assert str(error).endswith("its last action was 1B0 of step 3")
    assert found.reports.num_complete == 3, "what there was is kept"
    assert time.monotonic() - began_s < 30.0


def test_a_run_in_which_nothing_happens_any_more_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STALLED_AFTER", 1.0)
    _, _, error = supervised(monkeypatch, "stalls", job_of(silence=2.5))
    assert isinstance(error, AbortedRunError)
    assert "nobody has finished an operation for" in str(error)
    assert "s00r0: 1B0 of step 3" in str(error)


@pytest.mark.parametrize("behaviour", ["dies", "stops"])
def test_with_a_checkpoint_all_begin_again_and_each_step_counts_once(
    monkeypatch: pytest.MonkeyPatch, behaviour: str, tmp_path: Path
) -> None:
    job = job_of(restarts=1, checkpoint=str(tmp_path), silence=3.0)
    found, said, error = supervised(monkeypatch, behaviour, job)
    assert error is None
    assert found.reports.num_complete == 4
    assert [step for _, step in found.reports.restarts] == [2]
    assert {report.step for _, report in found.reports.wasted} <= {2, 3}
    assert said[2].startswith("s01r0 (rank 1)")
    assert said[3:] == ["went on from step 2"]


def test_processes_that_cannot_start_are_an_error_with_what_they_said(monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, error = supervised(monkeypatch, "cannot")
    assert isinstance(error, BackendError)
    assert "could not be started:\nthere is no such module" in str(error)


def test_nothing_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    for behaviour in ("works", "dies"):
        found, _, _ = supervised(monkeypatch, behaviour)
        for member in found.members:
            assert not Path(f"/proc/{member.pid}").exists()
