"""The scenario's datacenter, simulated by the same code: what the internet costs is measured against it."""

from orionbed import metrics
from orionbed.plan import make_plan
from orionbed.results import RunResult
from orionbed.scenario import Scenario, apply
from orionbed.summary import Baseline
from sim.backend import run

FOREVER_S = 30 * 86400.0
# What a run beside the main one leaves out: it has no target, no start-up, no trace, and nobody reads its sources.
SIDE_RUN: dict[str, object] = {
    "run.tokens": None,
    "run.startup": 0.0,
    "run.trace": "summary",
    "orchestrator": "none",
    "published": [],
    "provenance": {},
    "uncertain": {},
}
DEFINITION = (
    "the same model, layout, kernels, schedule and merges on links of {gbps:g} Gbit/s and {delay_us:g} us, plain "
    "boundaries, {recompute} recompute, no churn and no polling delays"
)


def datacenter_scenario(scenario: Scenario) -> Scenario:
    """Return `scenario` moved into its datacenter."""
    datacenter = scenario.datacenter
    num_peers = scenario.pipeline.stages * scenario.pipeline.replicas
    changes: dict[str, object] = SIDE_RUN | {
        "network.uplink": datacenter.link,
        "network.downlink": datacenter.link,
        "network.correlation": 0.0,
        "network.rate_is": "goodput",
        "network.delay": datacenter.delay,
        "network.delay_inside": None,
        "network.jitter": "none",
        "network.variability": "constant",
        "network.transport": {"window": 1e9, "tls": False},
        "network.site_uplink": None,
        "network.site_downlink": None,
        "network.wan": None,
        "network.storage": {"delay": datacenter.delay},
        **_in_one_place(scenario, num_peers),
        "network.nat": {},
        "pipeline.boundary": {"kind": "none"},
        "pipeline.schedule.recompute": datacenter.recompute,
        "churn": "none",
        "recovery": {},
        "faults": [],
        "run.duration": datacenter.horizon if isinstance(scenario.merge, str) else FOREVER_S,
    }
    if not isinstance(scenario.merge, str):
        changes["merge.every"] = min(scenario.merge.every, datacenter.horizon)
        changes["merge.failure"] = 0.0
    if scenario.pipeline.schedule.kind == "queue":
        changes |= {f"pipeline.schedule.{key}": 0.0 for key in ("poll_loop", "poll_empty", "poll_full")}
        plain = {"via": "p2p", "retry": {}, "knowledge": "broadcast"}
        changes |= {f"pipeline.schedule.{key}": value for key, value in plain.items()}
    return apply(scenario, changes)


def _in_one_place(scenario: Scenario, num_peers: int) -> dict[str, object]:
    """Return the changes that bring all peers to one site, with links that are those of all."""
    groups = [group.model_dump() for group in scenario.peers.groups]
    if not groups:
        return {"peers.sites": {"datacenter": num_peers}}
    same = {"sites": "datacenter", "links": None, "uplink": None, "downlink": None, "correlation": None, "natted": 0.0}
    return {"peers.groups": [group | same for group in groups]}


def simulate_baseline(scenario: Scenario, seed: int) -> Baseline:
    """Simulate the datacenter over one training phase and one merge, or over its horizon when there are no merges."""
    plan = make_plan(datacenter_scenario(scenario), seed)
    result = run(plan, seed=seed, max_epochs=1)
    rate = steady_rate(result, scenario)
    datacenter = scenario.datacenter
    return Baseline(
        mfu=rate * metrics.mfu_per_rate(result),
        tokens_per_s=rate * plan.tokens_per_microbatch,
        definition=DEFINITION.format(
            gbps=datacenter.link / 1e9, delay_us=datacenter.delay * 1e6, recompute=datacenter.recompute
        ),
        fits=plan.fits,
    )


def steady_rate(result: RunResult, scenario: Scenario) -> float:
    """Micro-batches per second of a run of one epoch, with merges at the interval of `scenario`."""
    in_phase = metrics.rates(result).in_phase
    if isinstance(scenario.merge, str):
        return in_phase
    every_s = scenario.merge.between
    return in_phase * every_s / (every_s + result.merging_s)
