"""Peers of several kinds: groups, their machines, costs, memory, prices, NATs."""

from collections import Counter
from functools import cache
from statistics import median
from typing import Any

import numpy as np
import pytest

from orionbed import hardware
from orionbed.estimate import estimate, gpus_in_words
from orionbed.faults import selected
from orionbed.geography import estimated_one_way_s, great_circle_km, one_way_delays, tables
from orionbed.nat import relayed_delays, relayed_pairs
from orionbed.plan import Plan, make_plan
from orionbed.policies import durations_of
from orionbed.scenario import Scenario, ScenarioError, apply, assumptions, load, to_yaml
from orionbed.scenario.packaged import FOLDER

A100: dict[str, Any] = {"name": "a", "count": 4, "gpu": "a100-80gb", "sites": {"virginia": 4}}
RTX: dict[str, Any] = {"name": "b", "count": 4, "gpu": "rtx-4090-24gb", "sites": "oregon"}


def mixed(*groups: dict[str, Any], **changes: Any) -> Scenario:
    given = {key.replace("__", "."): value for key, value in changes.items()}
    shape: dict[str, Any] = {"peers.gpu": None, "peers.sites": None, "peers.groups": list(groups)}
    return apply(load("minimal"), shape | {"provenance": {}, "uncertain": {}} | given)


def refused(*groups: dict[str, Any], **changes: Any) -> str:
    with pytest.raises(ScenarioError) as error:
        mixed(*groups, **changes)
    return str(error.value)


@pytest.fixture(name="plan", scope="module")
def _plan() -> Plan:
    return make_plan(mixed(A100 | {"price": 2.0}, RTX | {"speed": 0.5}))


def test_alike_groups_make_the_plan_of_peers_that_are_all_alike() -> None:
    plain = make_plan(load("minimal"))
    plan = make_plan(mixed(A100, A100 | {"name": "b", "sites": {"oregon": 4}}))
    assert plan.others == ()
    for name in ("stages", "chunk_costs", "split", "peak_flops", "fits", "gpu_hour", "gpu_counts"):
        assert getattr(plan, name) == getattr(plain, name)
    assert Counter(peer.site for peer in plan.peers) == Counter(peer.site for peer in plain.peers)


def test_each_peer_has_the_peak_the_memory_and_the_price_of_its_own(plan: Plan) -> None:
    assert plan.peak_flops == 4 * 312e12 + 4 * 165.2e12
    assert {peer.group: plan.gpu_of(peer).memory for peer in plan.peers} == {"a": 80e9, "b": 24e9}
    assert plan.gpu_hour == (2.0 + plan.scenario.cost.gpu_hour) / 2
    assert plan.gpu_counts == {"a100-80gb": 4, "rtx-4090-24gb": 4}
    assert gpus_in_words(plan) == "4 a100-80gb, 4 rtx-4090-24gb"
    assert Counter((peer.group, peer.gpu, peer.site) for peer in plan.peers) == {
        ("a", "a100-80gb", "virginia"): 4,
        ("b", "rtx-4090-24gb", "oregon"): 4,
    }


def test_operations_take_what_they_take_on_the_peers_own_gpu(plan: Plan) -> None:
    alone = make_plan(mixed(RTX | {"count": 8}))
    for peer in plan.peers:
        times = durations_of(plan, peer.stage, peer.speed, peer.hardware)
        own = alone if peer.group == "b" else plan
        for chunk, kinds in durations_of(own, peer.stage, 1.0).items():
            assert times[chunk] == {kind: seconds / peer.speed for kind, seconds in kinds.items()}


def test_costs_are_computed_once_for_each_kind_of_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[hardware.Make] = []
    real = hardware.by_chunk
    monkeypatch.setattr("orionbed.plan.by_chunk", lambda s, make, split: calls.append(make) or real(s, make, split))
    make_plan(mixed(A100 | {"count": 3, "sites": "virginia"}, RTX, A100 | {"name": "c", "count": 1, "sites": "oregon"}))
    assert [make.gpu for make in calls] == ["a100-80gb", "rtx-4090-24gb"]


def test_a_stage_fits_only_if_it_fits_the_smallest_of_its_gpus() -> None:
    large = {"model.optimizer.state_bytes_per_parameter": 60}
    assert make_plan(apply(mixed(A100 | {"count": 8, "sites": "virginia"}), large)).fits
    plan = make_plan(apply(mixed(A100, RTX), large))
    assert not plan.fits
    assert "of 24 GB" in estimate(plan)["memory_line"]


def test_what_a_group_says_comes_before_what_is_said_for_all() -> None:
    own = {"efficiency": 0.5, "kernel_scale": 2.0, "overhead": 0.1, "uplink": 1e6, "downlink": 2e6, "speed": 3.0}
    plan = make_plan(mixed(A100, A100 | {"name": "b", "sites": "oregon"} | own))
    assert len(plan.others) == 1
    mine = [peer for peer in plan.peers if peer.group == "b"]
    assert {(p.uplink_bps, p.downlink_bps, p.speed) for p in mine} == {(1e6, 2e6, 3.0)}
    for_all = {"peers.efficiency": 0.5, "peers.kernel_scale": 2.0, "peers.overhead": 0.1}
    flat = make_plan(apply(load("minimal"), for_all))
    assert plan.others[0].chunk_costs == flat.chunk_costs


def test_another_group_moves_no_draws() -> None:
    def drawn(*groups: dict[str, Any]) -> set[tuple[float, float, bool]]:
        peers = make_plan(mixed(*groups, network__nat={"natted": 0.5})).peers
        return {(peer.speed, peer.uplink_bps, peer.natted) for peer in peers if peer.group == "a"}

    noisy = A100 | {"speed": {"dist": "lognormal", "median": 1.0, "sigma": 0.3}}
    assert drawn(noisy, RTX) == drawn(RTX | {"links": "home-us-2025", "natted": 1.0}, noisy)


def test_homes_have_the_published_medians() -> None:
    for links, up, down in (("home-us-2022", 21.6e6, 153.8e6), ("home-us-2025", 60e6, 302.68e6)):
        peers = make_plan(mixed(A100 | {"count": 8, "sites": "ohio", "links": links})).peers
        assert median(peer.uplink_bps for peer in peers) == pytest.approx(up)
        assert median(peer.downlink_bps for peer in peers) == pytest.approx(down)


@pytest.mark.parametrize("split", ["balanced", "by-speed"])
def test_balanced_assignment_is_never_slower_than_the_file(split: str) -> None:
    limits = []
    changes = {"pipeline__split": split, "peers__placement": "packed"}
    for assignment in ("in-order", "balanced"):
        plan = make_plan(mixed(A100, RTX, peers__assignment=assignment, **changes))
        assert sum(plan.split) == plan.scenario.model.layers
        limits.append(estimate(plan)["max_tokens_per_s"])
    assert limits[1] >= limits[0]
    if split == "balanced":
        assert limits[1] > 1.2 * limits[0]  # packed, the small cards have half of the stages to themselves


@pytest.mark.parametrize("kind", ["1f1b", "interleaved-1f1b"])
def test_fixed_batches_are_arranged_too(kind: str) -> None:
    schedule = {"kind": kind, "microbatches": 8} | ({"chunks": 2} if kind == "interleaved-1f1b" else {})
    plan = make_plan(mixed(A100, RTX, pipeline__schedule=schedule, merge="none", peers__assignment="balanced"))
    first = [plan.speed_of(peer) for peer in plan.peers if peer.replica == 0]
    second = [plan.speed_of(peer) for peer in plan.peers if peer.replica == 1]
    assert min(a / b for a, b in zip(first, second, strict=True)) >= 1.0
    assert len(plan.slowest_costs) == plan.num_chunks


def test_mistakes_are_named() -> None:
    few = refused(A100)
    assert "peers.groups: add up to 4 peers, but 4 stages x 2 replicas need 8; add 4" in few
    assert "peers.groups.1.sites: add up to 3 peers, but the group has 4" in refused(
        A100, RTX | {"sites": {"oregon": 3}}
    )
    assert "peers.groups.1.name: a is the name of an earlier group" in refused(A100, RTX | {"name": "a"})
    assert "peers.groups.1.gpu: no GPU profile 'rtx'" in refused(A100, RTX | {"gpu": "rtx"})
    assert "peers.groups.1.sites: is not in the delay table" in refused(A100, RTX | {"sites": "paris"})
    assert "peers.groups.1.speed: must always be greater than 0" in refused(A100, RTX | {"speed": 0.0})
    assert "peers.gpu: is for peers that are all alike" in refused(A100, RTX, peers__gpu="a100-80gb")
    assert "peers.sites: is for peers that are all alike" in refused(A100, RTX, peers__sites={"ohio": 8})
    times = {"forward": 1.0, "input_gradient": 1.0, "weight_gradient": 1.0}
    assert "peers.measured: are times of one kind of machine" in refused(A100, RTX, peers__measured=times)
    nowhere = {"relay": {"site": "x"}}
    assert "network.nat.relay.site: is not in the delay table" in refused(A100, RTX, network__nat=nowhere)
    pieces = {"kind": "interleaved-1f1b", "microbatches": 8, "chunks": 2}
    assert "pipeline.split: deals layers to stages of one piece" in refused(
        A100, RTX, pipeline__schedule=pieces, pipeline__split="by-speed", merge="none"
    )


def test_faults_select_by_group() -> None:
    fault = {"id": "k", "kind": "crash", "at": 60.0, "target": "group:b"}
    plan = make_plan(mixed(A100, RTX, faults=[fault]))
    assert [plan.peers[index].group for index in selected("group:b", plan.peers)] == ["b"] * 4
    assert "there is no group c; did you mean" not in refused(A100, RTX, faults=[fault | {"target": "group:c"}])
    assert "there is no group c; there are a, b" in refused(A100, RTX, faults=[fault | {"target": "group:c"}])
    with pytest.raises(ScenarioError, match="no group b; all peers are alike"):
        apply(load("minimal"), {"faults": [fault]})


def test_groups_are_written_and_read_again_and_have_their_sources(tmp_path: Any) -> None:
    scenario = load("iota-16b-180-gpus")
    file = tmp_path / "again.yaml"
    file.write_text(to_yaml(scenario))
    assert load(file) == scenario
    rows = {row["key"]: row for row in assumptions(scenario)}
    assert rows["peers.groups.1.price"]["kind"] == "published"
    assert rows["gpus/l40s-48gb.peak"]["kind"] == "published"
    assert rows["gpus/rtx-3090-24gb.peak"]["kind"] == "published"


PACKAGED = [("iota-16b-180-gpus", 180), ("train-at-home-217", 217), ("orion-45b", 51), ("orion-1t", 564)]


@pytest.mark.parametrize(("name", "num_peers"), PACKAGED)
def test_the_packaged_scenarios_fit_and_say_where_every_number_is_from(name: str, num_peers: int) -> None:
    plan = make_plan(load(name))
    assert plan.fits
    assert len(plan.peers) == num_peers
    if name == "orion-1t":
        assert plan.num_parameters == pytest.approx(1e12, rel=0.002)
    rows = assumptions(plan.scenario)
    unsourced = [row["key"] for row in rows if row["source"] == "given without a source"]
    # How long, and of when the prices are, claims nothing of the world.
    assert [key for key in unsourced if not key.startswith(("run.", "cost.prices_as_of"))] == []


def test_the_home_scenario_has_217_devices_in_22_countries() -> None:
    scenario = load("train-at-home-217")
    assert (sum(scenario.peers.counts.values()), len(scenario.peers.counts)) == (217, 22)


# ------------------------------------------------------------------ NATs


def natted(share: float = 1.0, punch: float = 0.7, **relay: Any) -> Plan:
    nat = {"natted": share, "punch": punch, "relay": relay}
    return make_plan(apply(orion(), {"network.nat": nat}))


@cache
def orion() -> Scenario:
    return apply(load("orion-100b"), {"provenance": {}, "published": [], "uncertain": {}})


def test_a_share_of_the_pairs_of_natted_peers_needs_the_relay() -> None:
    pairs = relayed_pairs(natted(), 0)
    assert np.array_equal(pairs, pairs.T)
    assert not pairs.diagonal().any()
    assert pairs[np.triu_indices(48, 1)].mean() == pytest.approx(0.3, abs=0.04)  # 1128 pairs: 3 sigma are 0.041
    assert not relayed_pairs(natted(punch=1.0), 0).any()
    assert relayed_pairs(natted(punch=0.0), 0).sum() == 48 * 47
    assert not relayed_pairs(natted(0.0), 0).any()


def test_more_natted_peers_leave_the_other_pairs_as_they_were() -> None:
    few, all_ = natted(0.5), natted()
    behind = [peer.index for peer in few.peers if peer.natted]
    assert len(behind) == 24
    some = relayed_pairs(few, 0)
    assert np.array_equal(some[np.ix_(behind, behind)], relayed_pairs(all_, 0)[np.ix_(behind, behind)])
    assert some.sum() == some[np.ix_(behind, behind)].sum()


def test_the_way_over_a_relay_is_the_sum_of_both_ways() -> None:
    plan = natted(delay=0.02)
    direct = one_way_delays("us-metros", plan.site_names)
    assert relayed_delays(plan) == pytest.approx(direct + 0.02)
    for site in ("ohio", "illinois"):  # one where there are peers, one where there are none
        over = relayed_delays(natted(delay=0.0, site=site))
        to_relay = one_way_delays("us-metros", (*plan.site_names, site))[:-1, -1]
        assert over == pytest.approx(to_relay[:, None] + to_relay[None, :])


# ------------------------------------------------------------- countries


def test_every_way_between_countries_is_measured_or_follows_from_the_distance() -> None:
    lines = (FOLDER / "delays" / "countries-22.csv").read_text(encoding="utf-8").splitlines()
    places = {}
    for line in lines:
        country, colon, rest = line.removeprefix("#   ").partition(": ")
        if line.startswith("#   ") and colon and rest[-1].isdecimal():
            *_city, latitude, longitude = rest.split()
            places[country] = (float(latitude), float(longitude))
    assert len(places) == 22
    assert "countries-22" in tables()
    rows = [line.split(",") for line in lines if not line.startswith("#")][1:]
    assert len(rows) == 22 * 23 // 2
    assert Counter(kind for *_, kind in rows) == {"assumed": 22, "measured": 54, "estimated": 177}
    for site, other, one_way_ms, kind in rows:
        if kind == "estimated":
            distance_km = great_circle_km(places[site], places[other])
            assert float(one_way_ms) == pytest.approx(1e3 * estimated_one_way_s(distance_km), abs=0.051)


def test_the_distance_fit() -> None:
    assert great_circle_km((0.0, 0.0), (0.0, 180.0)) == pytest.approx(np.pi * 6371.0)
    assert great_circle_km((10.0, 20.0), (10.0, 20.0)) == 0.0
    assert 2.0 * estimated_one_way_s(1000.0) == pytest.approx(0.0204)
