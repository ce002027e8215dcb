"""What peers know of one another through the bridge: how old it may be, and what silence costs."""

from collections.abc import Callable
from typing import Any

import pytest

from orionbed.plan import make_plan
from orionbed.results import RunResult
from orionbed.scenario import Scenario
from sim.backend import _result, _Run, run

Make = Callable[..., Scenario]
BRIDGE: dict[str, Any] = {"poll_every": 2.0, "keep_alive_every": 5.0, "evict_after": 60.0, "delay": 0.05}
QUEUE: dict[str, Any] = {
    "kind": "queue", "window": 6, "router": "swarm", "recompute": "none", "knowledge": BRIDGE,
    "poll_loop": 0.0, "poll_empty": 0.0, "poll_full": 0.0, "connect_timeout": 0.5, "cache_ttl": 5.0, "attempts": 5,
}  # fmt: skip
SLOW: dict[str, Any] = {"peers__overhead": 0.5, "stages": 3, "replicas": 3}


@pytest.mark.parametrize(
    "bridge", [BRIDGE, BRIDGE | {"poll_every": 0.3, "keep_alive_every": 9.0, "delay": 1.0}, BRIDGE | {"delay": 0.0}]
)
def test_what_is_known_of_a_peer_that_is_there_is_younger_than_the_bound(quiet: Make, bridge: dict[str, Any]) -> None:
    schedule = QUEUE | {"knowledge": bridge}
    result = run(make_plan(quiet(**SLOW, pipeline__schedule=schedule, run={"duration": 300.0})))
    known = result.orchestrator
    bound_s = bridge["poll_every"] + bridge["keep_alive_every"] + bridge["delay"]
    assert known["staleness_bound_s"] == bound_s
    assert 0.7 * bound_s < known["staleness_max_s"] <= bound_s
    # Half of each interval on average, and the delay: uniform phases, forwards at any time.
    expected_s = (bridge["poll_every"] + bridge["keep_alive_every"]) / 2.0 + bridge["delay"]
    assert known["staleness_mean_s"] == pytest.approx(expected_s, rel=0.25)
    assert known["evictions"] == known["forwards_to_absent"] == 0
    assert result.ledger.applied > 100


def told(quiet: Make, leave_s: float, duration_s: float, **changes: Any) -> RunResult:
    """A run in which one peer of the middle stage leaves without a word."""
    schedule = QUEUE | changes
    the_run = _Run(make_plan(quiet(**SLOW, pipeline__schedule=schedule, run={"duration": duration_s})), 0)
    engine = the_run.engine
    the_run.clock.call_at(leave_s, lambda _: engine.ending.crash(engine.peers[4]))
    the_run.go(None, None)
    return _result(the_run, 0.0)


def test_a_silent_peer_is_chosen_until_it_is_evicted(quiet: Make) -> None:
    result = told(quiet, 100.0, 400.0)
    known = result.orchestrator
    assert known["evictions"] == 1
    assert known["forwards_to_absent"] > 5
    # Evicted a little more than evict_after after its last word: nobody goes on choosing it.
    longer = told(quiet, 100.0, 600.0).orchestrator
    assert longer["forwards_to_absent"] == known["forwards_to_absent"]


def test_the_longer_the_silence_is_borne_the_more_is_sent_in_vain(quiet: Make) -> None:
    missed = [
        told(quiet, 100.0, 300.0, knowledge=BRIDGE | {"evict_after": after_s}).orchestrator["forwards_to_absent"]
        for after_s in (10.0, 40.0, 160.0)
    ]
    assert missed[0] < missed[1] < missed[2]
    by_broadcast = told(quiet, 100.0, 300.0, knowledge="broadcast", status_every=5.0)
    assert by_broadcast.orchestrator == {}
    assert by_broadcast.ledger.applied > 0


def test_a_peer_that_is_there_is_never_evicted_and_one_that_returns_is_seen_again(quiet: Make) -> None:
    merge = {"every": 60.0, "compute": 0.1}
    churn = {"up": {"dist": "exponential", "mean": 60.0}, "down": {"dist": "constant", "value": 90.0}}
    scenario = quiet(**SLOW, pipeline__schedule=QUEUE, merge=merge, churn=churn, run={"duration": 900.0})
    the_run = _Run(make_plan(scenario), 0)
    the_run.go(None, None)
    board = the_run.engine.status
    for view in board.views:
        there = {p.index for p in the_run.engine.peers if p.status == "training"}
        known = {peer for peer, fresh in zip(view.peers, view.fresh, strict=True) if fresh}
        assert known & there or not (set(view.peers) & there)
    assert _result(the_run, 0.0).orchestrator["evictions"] > 0
