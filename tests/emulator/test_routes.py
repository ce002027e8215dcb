"""Ways of the emulator against routes of the simulator: two pieces of code, one network."""

from typing import Any

import pytest

from emulator.fluid import Resource
from emulator.routes import Ways, make_fluid
from orionbed.plan import Plan, make_plan
from orionbed.scenario import apply, load
from orionbed.streams import Streams
from sim.clock import Clock
from sim.routes import Routes
from sim.wiring import make_network

SEED = 3
NETWORKS: dict[str, dict[str, Any]] = {
    "plain": {},
    "capped": {
        "network.site_uplink": 1e9, "network.site_downlink": 2e9, "network.wan": 5e8,
        "network.storage": {"rate": 4e9, "delay": 0.02, "streams": 3},
    },
    "one delay": {"network.delay": 0.03, "network.delay_inside": 0.001, "network.site_uplink": 1e9},
    "lossy": {"network.transport": {"loss": 0.001, "streams": 4, "window": 1e6, "congestion": "bbr"}},
    "lossy cubic": {"network.transport": {"loss": 0.01, "initial_window": 5e4, "tls": False}},
    "encrypted": {"network.transport": {"cipher_rate": 3e8, "streams": 2}, "network.wan": 5e8},
    "of another layer": {"network.rate_is": "l2", "network.wan": 5e8},
}  # fmt: skip


def plan_of(changes: dict[str, Any]) -> Plan:
    return make_plan(apply(load("minimal"), changes), SEED)


def simulated(plan: Plan) -> Routes:
    return make_network(plan, Clock(), Streams(SEED))._routes


def named(resource: Resource) -> str:
    """Return the simulator's name of a resource."""
    kind, *which = resource
    return f"{kind}:{'>'.join(map(str, which))}"


def pairs(plan: Plan) -> list[tuple[int, int]]:
    everybody = range(len(plan.peers) + 1)  # the store comes last
    return [(source, target) for source in everybody for target in everybody if source != target]


@pytest.mark.parametrize("name", NETWORKS)
def test_every_way_is_the_simulators(name: str) -> None:
    plan = plan_of(NETWORKS[name])
    routes, fluid, ways = simulated(plan), make_fluid(plan, SEED), Ways(plan, SEED)
    for source, target in pairs(plan):
        ours, theirs = fluid._route(source, target), routes.connect(source, target)
        assert ours.delay_s == theirs.delay_s
        assert ours.ceiling == pytest.approx(theirs.ceiling, rel=1e-12)
        assert ours.streams == theirs.streams
        assert [named(resource) for resource in ours.resources] == [resource.name for resource in theirs.route]
        for resource, other in zip(ours.resources, theirs.route, strict=True):
            assert ways.profile(resource)(0.0)[0] == pytest.approx(other.capacity, rel=1e-12)
        assert ours.initial_window_bytes == pytest.approx(theirs.initial_window_bytes)


@pytest.mark.parametrize("kind", ["shared", "bad"])
def test_links_vary_as_in_the_simulator(kind: str) -> None:
    plan = plan_of({"network.variability": kind})
    routes, ways = simulated(plan), Ways(plan, SEED)
    for peer in (0, 5):
        for resource in routes.connect(peer, (peer + 1) % 8).route:
            direction, number = resource.name.split(":")
            ours = ways.profile((direction, int(number)))
            for at_s in (0.0, 10.0, 100.0, 1000.0):
                assert resource.profile is not None
                assert ours(at_s) == pytest.approx(resource.profile(at_s), rel=1e-12)


def test_a_fresh_profile_begins_anew_and_is_the_same() -> None:
    ways = Ways(plan_of({"network.variability": "bad"}), SEED)
    first = [ways.profile(("up", 2))(at_s) for at_s in (0.0, 50.0, 500.0)]
    assert [ways.fresh_profile(("up", 2))(at_s) for at_s in (0.0,)] == first[:1]
    fresh = ways.fresh_profile(("up", 2))
    assert [fresh(at_s) for at_s in (0.0, 50.0, 500.0)] == first


def test_a_store_without_a_limit_takes_no_part() -> None:
    plan = plan_of({})
    ways = Ways(plan, SEED)
    assert ways.resources(0, ways.store) == (("up", 0),)
    assert ways.resources(ways.store, 0) == (("down", 0),)


def test_jitter_is_drawn_as_in_the_simulator() -> None:
    plan = plan_of({"network.jitter": {"sd": 0.001, "spike_probability": 0.2}})
    network = make_network(plan, Clock(), Streams(SEED))
    draw = make_fluid(plan, SEED)._jitter
    assert draw is not None
    assert network._jitter is not None
    assert [draw() for _ in range(100)] == [network._jitter() for _ in range(100)]
    assert make_fluid(plan_of({"network.jitter": "none"}), SEED)._jitter is None
