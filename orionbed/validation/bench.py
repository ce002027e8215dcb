"""Bare scenarios for published cases, and what is measured on them."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from orionbed import backends
from orionbed.plan import make_plan
from orionbed.results import RunResult
from orionbed.scenario import Scenario, apply, load

# A laboratory: nothing varies, nobody leaves, links are what the case says.
_BARE: dict[str, Any] = {
    "pipeline.replicas": 1,
    "pipeline.boundary": {"kind": "none"},
    "network.delay": 0.0,
    "network.jitter": "none",
    "network.variability": "constant",
    "network.rate_is": "goodput",
    "network.correlation": 0.0,
    "network.uplink": 1e15,
    "network.downlink": 1e15,
    "network.transport": {"window": 1e15, "tls": False},
    "merge": "none",
    "churn": "none",
    "report": {"uplinks": []},
    "published": [],
    "provenance": {},
    "uncertain": {},
}


@cache
def _minimal() -> Scenario:
    return load("minimal")


def bare_scenario(changes: Mapping[str, Any]) -> Scenario:
    """Return a scenario without churn, merges, jitter or limits, with `changes` by dotted key."""
    shape: dict[str, Any] = {}
    if "peers.sites" not in changes:
        stages, replicas = changes["pipeline.stages"], changes.get("pipeline.replicas", 1)
        shape["peers.sites"] = {"cluster": stages * replicas}
    return apply(_minimal(), _BARE | shape | dict(changes))


def step_s(scenario: Scenario, *, warm_up: int = 1, steps: int = 1) -> float:
    """Simulate and return the seconds of one optimizer step, the mean of `steps` after the first `warm_up`."""
    result, per_step = _run_steps(scenario, warm_up + steps)
    ends = result.applied_s[per_step - 1 :: per_step]
    if warm_up == 0:
        return float(ends[-1]) / steps
    return float(ends[-1] - ends[warm_up - 1]) / steps


def _run_steps(scenario: Scenario, num_steps: int) -> tuple[RunResult, int]:
    plan = make_plan(scenario)
    per_step = int(plan.microbatches_per_step) * plan.num_replicas
    tokens = float(plan.tokens_per_microbatch * per_step * num_steps)
    run: dict[str, Any] = {"run": {"tokens": tokens, "duration": None, "trace": "summary"}}
    plan = make_plan(apply(scenario, run))
    return backends.load("sim").run(plan), per_step
