"""The scenario's datacenter, simulated by the same code: what the internet costs is measured against it."""

from orionbed import metrics
from orionbed.plan import make_plan
from orionbed.results import RunResult
from orionbed.scenario import Scenario, apply
from orionbed.summary import Baseline
from sim.backend import run

DEFINITION = (
    "the same model, layout, kernels, schedule and merges on links of {gbps:g} Gbit/s and {delay_us:g} us, plain "
    "boundaries, {recompute} recompute, no churn and no polling delays"
)


def datacenter_scenario(scenario: Scenario) -> Scenario:
    """Return `scenario` moved into its datacenter."""
    datacenter = scenario.datacenter
    num_peers = scenario.pipeline.stages * scenario.pipeline.replicas
    changes: dict[str, object] = {
        "network.uplink": datacenter.link,
        "network.downlink": datacenter.link,
        "network.correlation": 0.0,
        "network.rate_is": "goodput",
        "network.delay": datacenter.delay,
        "network.jitter": "none",
        "network.variability": "constant",
        "network.transport": {"window": 1e9, "tls": False},
        "network.site_uplink": None,
        "network.site_downlink": None,
        "network.wan": None,
        "network.storage": {"delay": datacenter.delay},
        "peers.sites": {"datacenter": num_peers},
        "pipeline.boundary": {"kind": "none"},
        "pipeline.schedule.recompute": datacenter.recompute,
        "churn": "none",
        "faults": [],
        "run.tokens": None,
        "run.duration": datacenter.horizon,
        "run.startup": 0.0,
        "run.trace": "summary",
        "published": [],
        "provenance": {},
        "uncertain": {},
    }
    if scenario.pipeline.schedule.kind == "queue":
        changes |= {f"pipeline.schedule.{key}": 0.0 for key in ("poll_loop", "poll_empty", "poll_full")}
    return apply(scenario, changes)


def simulate_baseline(scenario: Scenario, seed: int) -> Baseline:
    """Simulate the datacenter for its horizon; merges count by their mean length at the scenario's interval."""
    moved = datacenter_scenario(scenario)
    plan = make_plan(moved, seed)
    result = run(plan, seed=seed)
    rate = steady_rate(result)
    datacenter = scenario.datacenter
    return Baseline(
        mfu=rate * metrics.mfu_per_rate(result),
        tokens_per_s=rate * plan.tokens_per_microbatch,
        definition=DEFINITION.format(
            gbps=datacenter.link / 1e9, delay_us=datacenter.delay * 1e6, recompute=datacenter.recompute
        ),
        fits=plan.fits,
    )


def steady_rate(result: RunResult) -> float:
    """Micro-batches per second with merges at the scenario's interval, whatever part of a cycle the run ended in."""
    in_phase = metrics.rates(result).in_phase
    merge = result.plan.scenario.merge
    merges = [mark.end_s - mark.start_s for mark in result.marks if mark.kind == "merge"]
    if isinstance(merge, str) or not merges:
        return in_phase
    return in_phase * merge.every / (merge.every + sum(merges) / len(merges))
