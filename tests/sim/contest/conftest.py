"""Small contests: one kind of miner that never drops, no delays, unless a test says otherwise."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest

from orionbed.contest.answering import Facts, InProcess
from orionbed.contest.baselines import make_baseline
from orionbed.contest.interface import Request
from orionbed.contest.results import SeedResult
from orionbed.contest.schema import Contest
from sim.contest.api import run_contest

QUIET: dict[str, Any] = {
    "kind": "routing-contest",
    "name": "quiet",
    "miners": {
        "count": 4,
        "layers": {"least": 2, "most": 2},
        "classes": {"steady": {"share": 1.0, "drop": 0.0, "join": 1.0}},
        "forward": "1 s",
        "backward": 2.0,
        "cache": 100,
    },
    "network": {"activation": "1 B", "bandwidth": "1e6 Gbps", "latency": "0 s"},
    "epochs": {"count": 1, "activations": 12, "in_flight": 8},
}


class Fixed:
    """Always the same route, and a memory of what it was asked."""

    def __init__(self, *route: int) -> None:
        self.answer = list(route)
        self.requests: list[Request] = []

    def route(self, request: Request) -> list[int]:
        self.requests.append(request)
        return self.answer


class FirstKnown(Fixed):
    """The first known miner of each layer."""

    def route(self, request: Request) -> list[int]:
        self.requests.append(request)
        return [layer.miners[0].miner for layer in request.layers]


def quiet(changes: dict[str, Any] | None = None) -> Contest:
    """Return the quiet contest with values at dotted keys in place."""
    data = deepcopy(QUIET)
    for key, value in (changes or {}).items():
        *path, last = key.split(".")
        block = data
        for name in path:
            block = block.setdefault(name, {})
        block[last] = value
    return Contest.model_validate(data)


def played(contest: Contest, router: Any = "random", seed: int = 0) -> SeedResult:
    """Return what comes of a router, or of a baseline by its name."""

    def make(facts: Facts) -> InProcess:
        return InProcess(make_baseline(router, facts.seed) if isinstance(router, str) else router, facts)

    return run_contest(contest, seed, router if isinstance(router, str) else type(router).__name__, make)


@pytest.fixture(name="quiet")
def _quiet() -> Callable[..., Contest]:
    return quiet


@pytest.fixture(name="played")
def _played() -> Callable[..., SeedResult]:
    return played


@pytest.fixture(name="fixed")
def _fixed() -> type[Fixed]:
    return Fixed


@pytest.fixture(name="first_known")
def _first_known() -> type[FirstKnown]:
    return FirstKnown
