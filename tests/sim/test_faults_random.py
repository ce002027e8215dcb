"""Whatever goes wrong, in whatever order: no micro-batch is lost or counted twice, no second and no byte vanishes."""

from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orionbed import waterfall
from orionbed.plan import make_plan
from orionbed.results import RunResult
from orionbed.scenario import Scenario
from orionbed.scenario.faults import Faults
from orionbed.scenario.recovery import InFlight
from sim.backend import _result, _Run

Make = Callable[..., Scenario]

PEERS = st.sampled_from(["peer:s00r0", "peer:s00r1", "peer:s01r0", "peer:s01r1"])
SOME = st.one_of(PEERS, st.sampled_from(["stage:0", "stage:1", "replica:0", "*"]))
AT = st.sampled_from([0.0, 0.1, 0.31, 0.5, 0.77, 1.2, 1.5, 2.0])
LASTS = st.sampled_from([0.01, 0.2, 0.5, 3.0, None])
RESTART = st.one_of(
    st.just("none"),
    st.fixed_dictionaries({"after": st.sampled_from([0.05, 0.4]), "state": st.sampled_from(["lost", "disk"])}),
)


def fault(kind: str, **fields: Any) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({"kind": st.just(kind), **{name.rstrip("_"): value for name, value in fields.items()}})


WAYS = {"from": SOME, "to": SOME}
TIMES = {"at": AT, "for": LASTS}
FAULT = st.one_of(
    fault("crash", at=AT, target=st.one_of(PEERS, st.just({"pick": "one", "of": "*"})), restart=RESTART),
    fault("pause", target=SOME, **TIMES),
    fault("slow", target=SOME, compute_factor=st.sampled_from([0.5, 3.0]), **TIMES),
    fault("link", capacity=st.sampled_from(["0.1x", 1e6, None]), owd=st.sampled_from(["+20 ms", "1 ms"]),
          jitter_sd=st.sampled_from([None, 0.005]), loss=st.sampled_from([None, 0.01]), **WAYS, **TIMES),
    fault("partition", groups=st.sampled_from([(("stage:0",), ("*",)), (("peer:s01r1",), ("*",))]),
          direction=st.sampled_from(["to", "from", "both"]), mode=st.sampled_from(["blackhole", "reset"]), **TIMES),
    fault("corrupt", per_chunk=st.sampled_from([0.01, 0.5, 1.0]), **WAYS, **TIMES),
    fault("clock", target=SOME, offset=st.sampled_from([-2.0, 1.0]), drift_ppm=st.just(50.0), **TIMES),
    fault("flap", at=AT, period=st.sampled_from([0.05, 0.3]), duty=st.sampled_from([0.3, 0.9]),
          **{"for": st.sampled_from([0.2, 1.0])}, **WAYS),
    fault("churn", to=st.sampled_from([0.5, 1.4]), rate_per_peer_hour=st.just(2000.0), restart=RESTART,
          max_down=st.sampled_from([1, None])),
)  # fmt: skip
LISTS = st.lists(FAULT, min_size=1, max_size=4)
QUEUE = {
    "kind": "queue", "window": 4, "router": "swarm", "recompute": "none", "status_every": 0.1, "cache_ttl": 0.3,
    "connect_timeout": 0.05, "attempts": 3, "poll_loop": 0.0, "poll_empty": 0.01, "poll_full": 0.0,
}  # fmt: skip
FIXED = {"kind": "1f1b", "microbatches": 3, "recompute": "none"}
MERGE = {"every": 0.6, "compute": 0.05, "quorum_every": 0.05, "timeout": 0.4}
CHURN = {"up": {"dist": "exponential", "mean": 0.7}, "down": 0.2}
BRIDGE = {"poll_every": 0.05, "keep_alive_every": 0.1, "evict_after": 0.3, "delay": 0.01}
RECOVERY = {"detect": 0.05, "reconfigure": 0.1}
BASES: list[dict[str, Any]] = [
    {"pipeline__schedule": QUEUE},
    {"pipeline__schedule": QUEUE | {"retry": {"backward": True, "push_timeout": 0.15, "concurrent": 2}}},
    {"pipeline__schedule": QUEUE, "merge": MERGE},
    {"pipeline__schedule": QUEUE, "merge": MERGE | {"algorithm": "ring"}},
    {"pipeline__schedule": FIXED},
    {"pipeline__schedule": FIXED, "sync": {"algorithm": "ring"}},
    {"pipeline__schedule": FIXED, "network__transport": {"window": 2e6, "tls": False, "synchronous": True}},
    {"pipeline__schedule": QUEUE, "churn": CHURN},
    {"pipeline__schedule": FIXED, "churn": CHURN},
    {"pipeline__schedule": QUEUE | {"knowledge": BRIDGE}, "merge": MERGE, "churn": CHURN},
    *({"pipeline__schedule": QUEUE, "recovery": RECOVERY | {"in_flight": policy}} for policy in get_args(InFlight)),
]
"""Queues, with pushes that time out, and with merges; fixed batches, with gradients shared, and sent synchronously;
with churn besides; peers known by the bridge; and every policy for what is in flight."""


TINY: dict[str, Any] = {
    "stages": 2, "replicas": 2, "peers__overhead": 0.02, "network__uplink": 2e8, "network__downlink": 2e8,
    "network__delay": 0.005, "network__transport": {"window": 2e6, "tls": False},
    "run": {"duration": 1.5, "trace": "summary"},
}  # fmt: skip
MADE: dict[int, Scenario] = {}


def simulate(
    quiet: Make, which: int, faults: list[dict[str, Any]], heal_at: float | None = None
) -> tuple[RunResult, _Run]:
    if which not in MADE:
        MADE[which] = quiet(**TINY | BASES[which])
    named = [fault | {"id": f"f{number}"} for number, fault in enumerate(faults)]
    block = Faults.model_validate({"list": named, "heal_at": heal_at})
    the_run = _Run(make_plan(MADE[which].model_copy(update={"faults": block})), 0)
    the_run.go(None, None)
    return _result(the_run, 0.0), the_run


def conserved(result: RunResult, the_run: _Run) -> None:
    """Check that each micro-batch has one fate, each second one cause, and each byte one place."""
    ledger = result.ledger
    ledger.check()
    assert ledger.created == ledger.applied + ledger.dropped + ledger.rejected + ledger.in_flight
    assert len(result.applied_s) == ledger.applied
    assert np.all(np.diff(result.applied_s) >= 0.0)
    assert sum(epoch.applied for epoch in result.epochs) == ledger.applied

    seconds = waterfall.gpu_seconds(result)
    assert seconds.sum(axis=1) == pytest.approx(np.full(len(result.plan.peers), result.duration_s), rel=1e-9)
    assert seconds.min() > -1e-9

    network = the_run.network
    stored, read = network.bytes_stored
    assert network.bytes_up.sum() + read == pytest.approx(network.bytes_down.sum() + stored)
    assert network.bytes_delivered == pytest.approx(network.bytes_up.sum() + read)
    assert min(network.bytes_in_flight, network.bytes_destroyed) >= 0.0

    assert len({row["id"] for row in result.faults}) == len(result.faults)
    for row in result.faults:
        assert row["hit"] in {True, False}
        assert row["hit"] or row["destroyed_bytes"] == row["dropped"] == 0


@pytest.mark.slow
@settings(max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(faults=LISTS, which=st.sampled_from(range(len(BASES))), heal_at=st.sampled_from([None, None, 1.0]))
def test_nothing_is_lost_or_counted_twice(
    quiet: Make, faults: list[dict[str, Any]], which: int, heal_at: float | None
) -> None:
    conserved(*simulate(quiet, which, faults, heal_at))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(faults=LISTS, which=st.sampled_from(range(len(BASES))))
def test_the_same_seed_gives_the_same_faults_and_the_same_run(
    quiet: Make, faults: list[dict[str, Any]], which: int
) -> None:
    (first, _), (second, _) = (simulate(quiet, which, faults) for _ in range(2))
    assert first.faults == second.faults
    assert first.applied_s.tobytes() == second.applied_s.tobytes()
    assert first.other_s.tobytes() == second.other_s.tobytes()
    assert first.bytes_up.tobytes() == second.bytes_up.tobytes()
    assert first.events == second.events
