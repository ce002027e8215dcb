"""Absences, done to processes: who is killed when, and what happens when a process takes long to come back."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from orionbed.absences import Absence
from orionbed.fleet.mishaps import Mishaps
from orionbed.fleet.record import Record
from orionbed.plan import make_plan
from orionbed.scenario import apply, load

INF = float("inf")


class Stage:
    """Stands in for orchestra and supervisor: time passes at once, and coming back takes `back_after_s` more."""

    def __init__(self, back_after_s: float) -> None:
        self.now_s = 0.0
        self.seed = 0
        self.plan = make_plan(apply(load("minimal"), {"churn": "none", "uncertain": {}}))
        self.record = Record(self.plan.num_chunks)
        self.limits = SimpleNamespace(recovery_deadline_s=600.0)
        self.supervisor = self
        self.back_after_s = back_after_s
        self.happened: list[tuple[str, float, str]] = []
        self.peer: Any = SimpleNamespace(index=3, status="training")

    async def sleep_until(self, run_s: float) -> None:
        self.now_s = max(self.now_s, run_s)

    def live(self, *absences: Absence) -> list[tuple[str, float, str]]:
        mishaps: Any = Mishaps(self)  # type: ignore[arg-type]

        def crash(peer: Any, at_s: float, fault: str) -> None:
            assert fault == ""
            self.happened.append(("gone", at_s, self.record.reasons.pop(peer.index)))

        async def come_back(peer: Any, at_s: float, *, kept: bool) -> float:
            assert (peer, kept) == (self.peer, True)
            self.now_s = at_s + self.back_after_s
            self.happened.append(("back", self.now_s, ""))
            return self.now_s

        mishaps.crash, mishaps.come_back = crash, come_back
        asyncio.run(mishaps._churn(self.peer, iter(absences)))
        return self.happened


def test_a_process_is_killed_and_started_when_its_absences_say_so() -> None:
    absences = [Absence(5.0, 8.0, "bulk"), Absence(20.0, 21.0, "windows"), Absence(30.0, INF, "trace")]
    assert Stage(0.0).live(*absences) == [
        ("gone", 5.0, "bulk"), ("back", 8.0, ""), ("gone", 20.0, "windows"), ("back", 21.0, ""),
        ("gone", 30.0, "trace"),
    ]  # fmt: skip


def test_an_absence_that_is_over_before_the_process_is_back_is_no_second_one() -> None:
    absences = [Absence(5.0, 8.0, "bulk"), Absence(9.0, 10.0, "bulk"), Absence(10.5, 14.0, "bulk")]
    assert Stage(3.0).live(*absences) == [
        ("gone", 5.0, "bulk"), ("back", 11.0, ""), ("gone", 11.0, "bulk"), ("back", 17.0, ""),
    ]  # fmt: skip


@pytest.mark.parametrize("status", ["down", "starting"])
def test_who_is_down_by_a_fault_is_not_killed_again(status: str) -> None:
    stage = Stage(0.0)
    stage.peer.status = status
    assert stage.live(Absence(5.0, 8.0, "bulk")) == []
