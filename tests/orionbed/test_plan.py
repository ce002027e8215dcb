"""Plans: who is where, how fast, and whether it fits."""

from collections import Counter
from statistics import median

import pytest

from orionbed.plan import make_plan
from orionbed.scenario import load


def test_the_orion_plan_has_the_published_layout() -> None:
    plan = make_plan(load("orion-100b"))
    assert plan.num_parameters == 99_615_863_808
    assert list(plan.split) == [4, *[6] * 12, 5, 5, 4]
    assert (plan.boundary_bytes_uncompressed, plan.boundary_bytes) == (147_456_000, 2_304_000)
    assert (plan.num_stages, plan.num_replicas, len(plan.peers)) == (16, 3, 48)
    assert round(plan.stages[1].memory.states_bytes / 1e9, 1) == 51.9
    assert plan.fits
    assert sum(stage.parameters for stage in plan.stages) == plan.num_parameters


def test_sixteen_bytes_per_parameter_do_not_fit() -> None:
    assert not make_plan(load("orion-100b", ["model.optimizer.state_bytes_per_parameter=16"])).fits


def test_useful_flops_of_all_operations_are_six_n_per_token() -> None:
    plan = make_plan(load("orion-100b"))
    credited = sum(sum(stage.useful_flops.values()) for stage in plan.stages)
    assert credited == pytest.approx(6.0 * plan.num_parameters * 8000, rel=1e-12)
    assert plan.useful_flops_per_microbatch == 6.0 * plan.num_parameters * 8000


def test_peers_fill_the_sites_and_meet_the_stated_medians() -> None:
    scenario = load("orion-100b")
    plan = make_plan(scenario)
    assert Counter(peer.site for peer in plan.peers) == scenario.peers.sites
    assert median(peer.uplink_bps for peer in plan.peers) == pytest.approx(856e6)
    assert median(peer.downlink_bps for peer in plan.peers) == pytest.approx(1322e6)
    assert len({peer.uplink_bps for peer in plan.peers}) == 48
    assert [peer.name for peer in plan.peers[:4]] == ["s00r0", "s00r1", "s00r2", "s01r0"]


def test_grouped_peers_keep_a_replica_together() -> None:
    plan = make_plan(load("minimal", ["peers.placement=grouped"]))
    sites = {replica: {p.site for p in plan.peers if p.replica == replica} for replica in (0, 1)}
    assert sites == {0: {"virginia"}, 1: {"oregon"}}


def test_the_same_seed_draws_the_same_peers() -> None:
    scenario = load("orion-100b")
    assert make_plan(scenario, 3).peers == make_plan(scenario, 3).peers
    assert make_plan(scenario, 3).peers != make_plan(scenario, 4).peers


def test_drawing_links_does_not_move_other_draws() -> None:
    first = make_plan(load("orion-100b"))
    second = make_plan(load("orion-100b", ["network.uplink=1 Gbps"]))
    assert [p.speed for p in first.peers] == [p.speed for p in second.peers]
    assert [p.site for p in first.peers] == [p.site for p in second.peers]


@pytest.mark.parametrize(("window", "in_flight"), [("16", 16), ("auto", 64)])
def test_memory_counts_what_is_in_flight(window: str, in_flight: int) -> None:
    plan = make_plan(load("orion-100b", [f"pipeline.schedule.window={window}"]))
    assert plan.stages[2].memory.in_flight_bytes == in_flight * 2_304_000
    assert plan.stages[-1].memory.in_flight_bytes == 0


def test_1f1b_holds_fewer_micro_batches_the_later_the_stage() -> None:
    static = '{"kind": "1f1b", "microbatches": 32, "recompute": "none"}'
    plan = make_plan(load("minimal", [f"pipeline.schedule={static}"]))
    held = [stage.memory.in_flight_bytes / stage.num_layers for stage in plan.stages]
    assert held == [pytest.approx(held[-1] * n) for n in (4, 3, 2, 1)]
