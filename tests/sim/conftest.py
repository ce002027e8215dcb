"""Small scenarios and plans with simple numbers, for tests of the simulator."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from orionbed.compute import Cost
from orionbed.hops import plan_hops
from orionbed.operations import stage_costs, times_of
from orionbed.plan import Plan, make_plan
from orionbed.scenario import Scenario, apply, load
from orionbed.schedule.build import build_order

Make = Callable[..., Scenario]

QUIET: dict[str, Any] = {
    "model": {"layers": 8, "hidden": 256, "ffn": 1024, "heads": 4, "kv_heads": 4, "vocab": 1024},
    "batch": {"sequence": 256, "sequences": 4},
    "pipeline.boundary": {"kind": "none"},
    "pipeline.schedule": {
        "kind": "queue", "window": 8, "router": "replica", "recompute": "none",
        "poll_loop": 0.0, "poll_empty": 0.0, "poll_full": 0.0,
    },
    "network.uplink": 1e12,
    "network.downlink": 1e12,
    "network.delay": 0.0,
    "network.jitter": "none",
    "network.variability": "constant",
    "network.transport": {"window": 1e12, "tls": False},
    "network.storage": {"delay": 0.0},
    "merge": "none",
    "churn": "none",
    "run": {"duration": 60.0, "trace": "summary"},
    "report": {"uplinks": []},
    "published": [],
    "provenance": {},
    "uncertain": {},
}  # fmt: skip


def quiet_scenario(stages: int = 2, replicas: int = 1, **changes: Any) -> Scenario:
    """A scenario in which nothing costs anything but compute; `changes` use `__` for the dots of keys."""
    given = {key.replace("__", "."): value for key, value in changes.items()}
    shape = {
        "pipeline.stages": stages,
        "pipeline.replicas": replicas,
        "peers.sites": {"virginia": stages * replicas},
    }
    return apply(load("minimal"), QUIET | shape | given)


@pytest.fixture(name="quiet", scope="session")
def _quiet() -> Make:
    return quiet_scenario


def simple_plan(scenario: Scenario, costs: Mapping[str, float], *, fused: bool = False) -> Plan:
    """A plan whose every chunk takes the given seconds for F and B, or F, I and W, and whose messages are empty.

    With `fused` the last stage does all in its B, as queue-driven pipelines do.
    """
    plan = make_plan(scenario)
    chunks: list[dict[Any, Cost]] = []
    for chunk in range(plan.num_chunks):
        mine: dict[Any, Cost] = {kind: Cost(model_s=seconds, model_flops=1.0) for kind, seconds in costs.items()}
        if "I" in mine:
            mine["B"] = mine["I"] + mine["W"]
        if fused and chunk == plan.num_chunks - 1:
            mine = {"B": mine["F"] + mine["B"]}
        chunks.append(mine)
    stage_of = range(plan.num_stages) if plan.order is None else plan.order.stage_of
    stages = []
    for stage in plan.stages:
        own = stage_costs(chunks, stage_of, stage.index, Cost())
        stages.append(replace(stage, costs=own, useful_flops=dict.fromkeys(own, 0.0)))
    plan = replace(plan, stages=tuple(stages), chunk_costs=tuple(chunks), boundary_bytes=0)
    schedule = scenario.pipeline.schedule
    if schedule.kind == "queue":
        return plan
    hops = plan_hops(scenario.network, plan.peers, plan.site_names, 0)
    return replace(plan, order=build_order(schedule, plan.num_stages, times_of(chunks), hops, 0.5))


@pytest.fixture(name="simple", scope="session")
def _simple() -> Callable[..., Plan]:
    return simple_plan
