"""The bandwidth curve: share of datacenter speed against the median uplink, with and without a narrowed boundary."""

from orionbed.plan import make_plan
from orionbed.processes import in_processes
from orionbed.scenario import Scenario, apply
from sim.backend import run
from sim.baseline import FOREVER_S, SIDE_RUN, simulate_baseline, steady_rate


def _at(scenario: Scenario, uplink_bps: float, boundary: dict[str, object]) -> Scenario:
    """Return `scenario` with all links scaled so that the median uplink is `uplink_bps`, without churn and faults.

    Where peers come in groups the median is that of `network.uplink`, and the groups' own links are scaled as it is.
    """
    factor = uplink_bps / scenario.network.uplink.median
    changes: dict[str, object] = SIDE_RUN | {
        "network.uplink": scenario.network.uplink.scaled(factor),
        "network.downlink": scenario.network.downlink.scaled(factor),
        "peers.groups": [group.with_links_scaled(factor).model_dump() for group in scenario.peers.groups],
        "pipeline.boundary": boundary,
        "churn": "none",
        "faults": [],
        "run.duration": FOREVER_S,
    }
    if not isinstance(scenario.merge, str):
        changes["merge.every"] = min(scenario.merge.every, scenario.report.horizon)
    else:
        changes["run.duration"] = scenario.report.horizon
    return apply(scenario, changes)


def tokens_per_s(scenario: Scenario, uplink_bps: float, boundary: dict[str, object], seed: int) -> float:
    """Simulate one training phase and one merge; combine them at the scenario's own interval."""
    plan = make_plan(_at(scenario, uplink_bps, boundary), seed)
    result = run(plan, seed=seed, max_epochs=1)
    return steady_rate(result, scenario) * plan.tokens_per_microbatch


def bandwidth_curve(scenario: Scenario, seed: int, jobs: int) -> list[dict[str, object]]:
    """Return a row per median uplink and boundary: uplink_bps, boundary, tokens_per_s, relative_speed."""
    own = scenario.pipeline.boundary
    boundaries = [own.model_dump()] + ([{"kind": "none"}] if own.kind != "none" else [])
    points = [(uplink, boundary) for boundary in boundaries for uplink in scenario.report.uplinks]
    if not points:
        return []
    reference = simulate_baseline(scenario, seed).tokens_per_s
    speeds = in_processes(tokens_per_s, [(scenario, uplink, boundary, seed) for uplink, boundary in points], jobs)
    return [
        {
            "uplink_bps": uplink,
            "boundary": boundary["kind"],
            "tokens_per_s": speed,
            "relative_speed": speed / reference if reference else 0.0,
        }
        for (uplink, boundary), speed in zip(points, speeds, strict=True)
    ]
