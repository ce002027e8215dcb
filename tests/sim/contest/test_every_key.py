"""Every key of a contest changes what comes of it."""

import pytest

from orionbed.contest.schema import Contest
from orionbed.scenario.keys import all_keys

BASE = {
    "miners": {
        "count": 10,
        "layers": {"least": 2, "most": 3},
        "several": {"share": 0.2, "layers": 2},
        "classes": {
            "strong": {"share": 0.5, "drop": 0.0, "join": 1.0},
            "weak": {"share": 0.5, "drop": 0.1, "join": 0.3},
        },
        "check_every": "5 s",
        "forward": {"dist": "lognormal", "median": "1 s", "sigma": 0.5},
        "backward": 2.0,
        "cache": 2,
    },
    "network": {
        "activation": "1 MB",
        "bandwidth": {"dist": "lognormal", "median": "50 Mbps", "sigma": 0.5},
        "latency": {"dist": "lognormal", "median": "20 ms", "sigma": 0.5},
        "global_latency": "10 ms",
        "overhead": "5 ms",
    },
    "epochs": {"count": 2, "activations": 30, "in_flight": 12, "staleness": "9 s", "notice": "4 s", "merge": "30 s",
               "drift": 0.2},
}  # fmt: skip
CHANGES = {
    "miners.count": 11,
    "miners.layers": {"least": 3, "most": 4},
    "miners.layers.least": 1,
    "miners.layers.most": 6,
    "miners.several": {"share": 0.0},
    "miners.several.share": 0.6,
    "miners.several.layers": 1,
    "miners.classes": {"all": {"share": 1.0, "drop": 0.0, "join": 1.0}},
    "miners.classes.weak": {"share": 0.5, "drop": 0.4, "join": 0.3},
    "miners.classes.weak.drop": 0.3,
    "miners.classes.weak.join": 0.9,
    "miners.check_every": "3 s",
    "miners.forward": "1 s",
    "miners.backward": 3.0,
    "miners.cache": 1,
    "network.activation": "3 MB",
    "network.bandwidth": "30 Mbps",
    "network.latency": "90 ms",
    "network.global_latency": "70 ms",
    "network.overhead": "90 ms",
    "epochs.count": 3,
    "epochs.activations": 31,
    "epochs.in_flight": 9,
    "epochs.staleness": "2 s",
    "epochs.notice": "9 s",
    "epochs.merge": "55 s",
    "epochs.drift": 0.0,
}
ELSEWHERE = {
    "kind", "name", "title", "provenance", "miners", "network", "epochs",
    # What a router may take: tests/orionbed/contest.
    "router", "router.route_timeout", "router.run_timeout", "router.faults",
    # Shares add up, so one cannot change alone; the classes as a whole do.
    "miners.classes.strong", "miners.classes.strong.share", "miners.classes.weak.share",
    # The same field as the other class's.
    "miners.classes.strong.drop", "miners.classes.strong.join",
}  # fmt: skip


def outcome(contest: Contest, played) -> list:
    """Everything of four short contests: one seed alone may not meet what a key is about."""
    return [played(contest, "swarm", seed).plain() for seed in range(4)]


def test_every_key_is_here(quiet) -> None:
    keys = {
        key
        for key in all_keys(quiet(BASE))
        if not key.startswith(("miners.forward.", "network.bandwidth.", "network.latency."))
    }
    assert keys - ELSEWHERE == set(CHANGES)


@pytest.fixture(name="before", scope="module")
def _before() -> list:
    from tests.sim.contest.conftest import played, quiet

    return outcome(quiet(BASE), played)


@pytest.mark.parametrize("key", CHANGES)
def test_it_changes_what_comes_of_a_contest(quiet, played, before, key: str) -> None:
    from copy import deepcopy

    assert outcome(quiet({**deepcopy(BASE), key: CHANGES[key]}), played) != before


def test_the_same_seed_gives_the_same_and_another_another(quiet, played, before) -> None:
    assert outcome(quiet(BASE), played) == before
    assert played(quiet(BASE), "swarm", 1).epochs != played(quiet(BASE), "swarm", 0).epochs
