"""Plans with churn, and what their peers' absences are, cut off somewhere."""

from collections.abc import Callable
from itertools import takewhile
from typing import Any

import pytest

from orionbed.absences import Absence, Absences
from orionbed.plan import Plan, make_plan
from orionbed.scenario import apply, load

HOUR_S = 3600.0
Away = Callable[..., list[tuple[int, Absence]]]


def plan_of(churn: Any, stages: int = 4, replicas: int = 2, **changes: Any) -> Plan:
    """A plan of `stages` x `replicas` peers, spread over two sites, with a `churn` in SI numbers or text."""
    num_peers = stages * replicas
    shape = {
        "pipeline.stages": stages,
        "pipeline.replicas": replicas,
        "peers.sites": {"virginia": num_peers // 2, "oregon": num_peers - num_peers // 2},
    }
    given = {key.replace("__", "."): value for key, value in changes.items()}
    return make_plan(apply(load("minimal"), shape | {"churn": churn, "uncertain": {}} | given))


def away_in(plan: Plan, hours: float, seed: int = 0, start_s: float = 0.0) -> list[tuple[int, Absence]]:
    """All absences that begin within so many hours, peer by peer."""
    absences, end_s = Absences(plan, seed, start_s), start_s + hours * HOUR_S
    return [
        (peer.index, absence)
        for peer in plan.peers
        for absence in takewhile(lambda one: one.start_s < end_s, absences.of(peer.index))
    ]


@pytest.fixture(name="away", scope="session")
def _away() -> Away:
    def away(churn: Any, hours: float, *, seed: int = 0, start_s: float = 0.0, **changes: Any) -> list[Any]:
        return away_in(plan_of(churn, **changes), hours, seed, start_s)

    return away


@pytest.fixture(name="planned", scope="session")
def _planned() -> Callable[..., Plan]:
    return plan_of
