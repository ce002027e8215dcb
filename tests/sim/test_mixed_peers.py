"""Unequal peers in one run: closed forms for speed, waterfall and cost; relays on the way of a message."""

from collections.abc import Callable
from math import inf
from typing import Any

import numpy as np
import pytest

from orionbed.plan import Plan, make_plan
from orionbed.results import RunResult
from orionbed.scenario import Scenario, apply, load
from orionbed.streams import Streams
from orionbed.summary import summarise
from orionbed.tables import peers as peers_table
from orionbed.tracing import CAUSES
from orionbed.waterfall import gpu_seconds
from sim.backend import run
from sim.baseline import datacenter_scenario
from sim.clock import Clock
from sim.links import PeerLinks, Relays, Storage, Transport
from sim.routes import Routes
from sim.wiring import make_network

Make = Callable[..., Scenario]

# 312 and 165.2 TFLOP/s, both used to the full.
GROUPS: list[dict[str, Any]] = [
    {"name": "large", "count": 2, "gpu": "a100-80gb", "sites": "virginia", "price": 2.0},
    {"name": "small", "count": 2, "gpu": "rtx-4090-24gb", "sites": "ohio", "price": 0.5},
]
WIDE = {"window": 1e12, "initial_window": 1e12, "tls": False}
IDEAL: dict[str, Any] = {
    "model": {"layers": 8, "hidden": 2048, "ffn": 8192, "heads": 16, "kv_heads": 16, "vocab": 64},
    "batch": {"sequence": 2, "sequences": 4096},
    "peers.efficiency": 1.0,
    "peers.placement": "packed",
    "run": {"duration": 300.0, "trace": "summary"},
}


def mixed(quiet: Make, stages: int = 1, router: str = "fastest", **changes: Any) -> Plan:
    schedule = {
        "kind": "queue", "window": 16, "router": router, "recompute": "none", "local_step_every": 1_000_000,
        "poll_loop": 0.0, "poll_empty": 0.0, "poll_full": 0.0, "status_every": 0.5,
    }  # fmt: skip
    groups = {"peers.gpu": None, "peers.sites": None, "peers.groups": GROUPS, "pipeline.schedule": schedule}
    given = {key.replace("__", "."): value for key, value in changes.items()}
    return make_plan(apply(quiet(stages, 4 // stages), IDEAL | groups | given))


@pytest.fixture(name="result", scope="module")
def _result(quiet: Make) -> RunResult:
    return run(mixed(quiet))


def test_peers_of_one_stage_do_what_each_can(result: RunResult) -> None:
    """One stage and nothing to wait for: micro-batches per second are peak over FLOPs, on each GPU of its own."""
    done = result.num_done["B"] / result.training_s
    flops = result.plan.stages[0].costs["B"].model_flops
    assert done == pytest.approx([312e12 / flops] * 2 + [165.2e12 / flops] * 2, rel=0.01)


def test_mfu_is_the_share_of_the_sum_of_all_peaks(result: RunResult) -> None:
    summary = summarise(result, None, git="", started_at="")
    useful = result.ledger.applied * result.plan.useful_flops_per_microbatch
    peak = 2 * 312e12 + 2 * 165.2e12
    assert summary["mfu"]["in_phase"] == pytest.approx(useful / (peak * result.training_s), rel=1e-9)
    assert summary["mfu"]["in_phase"] == pytest.approx(1.0, abs=0.02)
    assert summary["layout"]["gpus"] == {"a100-80gb": 2, "rtx-4090-24gb": 2}
    assert summary["layout"]["peak_flops"] * 4 == peak
    assert summary["layout"]["memory_bytes"] == 24e9
    # What they executed they executed for the model: nothing is computed twice.
    assert summary["hfu"]["in_phase"] == pytest.approx(summary["mfu"]["in_phase"], rel=0.02)


def test_every_peer_is_useful_by_its_own_peak(result: RunResult) -> None:
    seconds = gpu_seconds(result)
    assert seconds.sum() == pytest.approx(result.duration_s * 4, rel=1e-9)
    useful = seconds[:, CAUSES.index("useful")] / result.training_s
    assert useful == pytest.approx([1.0] * 4, abs=0.02)
    assert np.abs(seconds[:, CAUSES.index("kernel")]).max() < 0.02 * result.training_s
    rows = peers_table(result)
    assert [row["gpu"] for row in rows] == ["a100-80gb"] * 2 + ["rtx-4090-24gb"] * 2
    assert [row["group"] for row in rows] == ["large"] * 2 + ["small"] * 2


def test_each_gpu_costs_its_own_price(result: RunResult) -> None:
    bill = summarise(result, None, git="", started_at="")["cost"]
    assert bill["gpu_usd"] == pytest.approx(result.duration_s / 3600.0 * 2 * (2.0 + 0.5))


def test_a_slow_stage_leaves_the_fast_one_idle_for_want_of_balance(quiet: Make) -> None:
    """Packed, the large GPUs have one stage and the small the other; what the large ones miss is imbalance."""
    result = run(mixed(quiet, stages=2))
    plan, seconds = result.plan, gpu_seconds(result)
    assert [peer.group for peer in plan.peers] == ["large", "large", "small", "small"]
    per_s = [2.0 / plan.pace_s(plan.peers[0], 0), 2.0 / plan.pace_s(plan.peers[2], 1)]
    assert result.ledger.applied / result.training_s == pytest.approx(min(per_s), rel=0.03)
    imbalance = seconds[:2, CAUSES.index("imbalance")].sum() / (2 * result.training_s)
    assert imbalance == pytest.approx(1.0 - min(per_s) / max(per_s), abs=0.04)


def test_balance_makes_the_same_peers_faster(quiet: Make) -> None:
    applied = {
        split: run(mixed(quiet, stages=2, peers__assignment=assignment, pipeline__split=split)).ledger.applied
        for assignment, split in (("in-order", "balanced"), ("balanced", "by-speed"))
    }
    assert applied["by-speed"] > 1.2 * applied["balanced"]


def test_the_datacenter_has_the_same_gpus_in_one_place(quiet: Make) -> None:
    groups = [group | {"links": "home-us-2022", "natted": 1.0} for group in GROUPS]
    scenario = mixed(quiet, peers__groups=groups).scenario
    inside = make_plan(datacenter_scenario(scenario))
    assert {peer.site for peer in inside.peers} == {"datacenter"}
    assert {peer.uplink_bps for peer in inside.peers} == {scenario.datacenter.link}
    assert not any(peer.natted for peer in inside.peers)
    assert inside.gpu_counts == {"a100-80gb": 2, "rtx-4090-24gb": 2}


def test_seconds_of_the_packaged_home_scenario_run() -> None:
    shorter = {"run.duration": 60.0, "run.startup": 0.0, "provenance": {}, "merge": "none"}
    scenario = apply(load("train-at-home-217"), shorter)
    result = run(make_plan(scenario), fetches=False)
    result.ledger.check()
    assert result.ledger.applied > 5
    assert gpu_seconds(result).sum() == pytest.approx(result.duration_s * 217, rel=1e-9)


# -------------------------------------------------------------- relays


def routes(capacity: float = inf) -> Routes:
    pairs = np.zeros((3, 3), dtype=bool)
    pairs[0, 1] = pairs[1, 0] = True
    one_way = np.full((2, 2), 0.03)
    links = PeerLinks(
        uplink=np.full(3, 100.0),
        downlink=np.full(3, 100.0),
        site=np.array([0, 1, 1]),
        one_way_s=one_way,
        relays=Relays(pairs, one_way + 0.02, 40.0, capacity),
    )
    return Routes(links, Transport(window_bytes=1e9), Storage())


def test_pairs_that_cannot_connect_go_over_the_relay() -> None:
    found = routes(capacity=50.0)
    over, direct = found.connect(0, 1), found.connect(0, 2)
    assert (over.delay_s, direct.delay_s) == (0.05, 0.03)
    assert over.ceiling == 40.0
    assert direct.ceiling > 1e9
    assert [resource.name for resource in over.route] == ["up:0", "relay", "down:1"]
    assert [resource.name for resource in direct.route] == ["up:0", "down:2"]
    # Both ways share the relay, and the store is reached without it.
    assert found.connect(1, 0).route[1] is over.route[1]
    assert [resource.name for resource in found.connect(0, 3).route] == ["up:0"]


def test_a_relay_without_a_limit_is_no_resource() -> None:
    assert [resource.name for resource in routes().connect(1, 0).route] == ["up:1", "down:0"]


@pytest.mark.parametrize(("punch", "arrives_s"), [(1.0, 2.0), (0.0, 1.0 + 4.0 + 0.5)])
def test_a_message_over_a_relay_takes_its_rate_and_its_delay(quiet: Make, punch: float, arrives_s: float) -> None:
    nat = {"natted": 1.0, "punch": punch, "relay": {"rate": 4e6, "delay": 0.5}}
    links = {"network__uplink": 8e6, "network__downlink": 8e6, "network__transport": WIDE}
    plan = make_plan(quiet(2, 1, network__nat=nat, **links))
    clock = Clock()
    network = make_network(plan, clock, Streams(0))
    arrived: list[float] = []
    network.send(0, 1, 2e6, lambda *_: arrived.append(clock.now))
    clock.run_to(60.0)
    # 2 MB at 8 Mbit/s; or over the relay a handshake, 2 MB at 4 Mbit/s, and half a second.
    assert arrived == [pytest.approx(arrives_s, rel=1e-6)]
