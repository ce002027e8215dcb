"""The bandwidth curve: share of datacenter speed against the median uplink, with and without a narrowed boundary."""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from orionbed.plan import make_plan
from orionbed.scenario import Scenario, apply
from sim.backend import run
from sim.baseline import simulate_baseline

# The training phase is measured from here on, when the pipeline has filled.
SETTLED_S = 300.0


def _at(scenario: Scenario, uplink_bps: float, boundary: dict[str, object]) -> Scenario:
    """Return `scenario` with both links scaled so that the median uplink is `uplink_bps`, and without churn."""
    factor = uplink_bps / scenario.network.uplink.median
    changes: dict[str, object] = {
        "network.uplink": scenario.network.uplink.scaled(factor),
        "network.downlink": scenario.network.downlink.scaled(factor),
        "pipeline.boundary": boundary,
        "churn": "none",
        "run.tokens": None,
        "run.duration": 30 * 86400.0,
        "run.startup": 0.0,
        "run.trace": "summary",
        "published": [],
        "provenance": {},
        "uncertain": {},
    }
    if not isinstance(scenario.merge, str):
        changes["merge.every"] = min(scenario.merge.every, scenario.report.horizon)
    else:
        changes["run.duration"] = scenario.report.horizon
    return apply(scenario, changes)


def tokens_per_s(scenario: Scenario, uplink_bps: float, boundary: dict[str, object], seed: int) -> float:
    """Simulate one training phase and one merge; combine them at the scenario's own interval."""
    changed = _at(scenario, uplink_bps, boundary)
    plan = make_plan(changed, seed)
    result = run(plan, seed=seed, max_epochs=1)
    epoch = result.epochs[0]
    settled_s = epoch.start_s + min(SETTLED_S, (epoch.training_end_s - epoch.start_s) / 2)
    measured = result.applied_s[(result.applied_s > settled_s) & (result.applied_s <= epoch.training_end_s)]
    rate = len(measured) / max(epoch.training_end_s - settled_s, 1e-9) * plan.tokens_per_microbatch
    if isinstance(scenario.merge, str):
        return rate
    every_s, merge_s = scenario.merge.every, epoch.end_s - epoch.training_end_s
    return rate * every_s / (every_s + merge_s)


def bandwidth_curve(scenario: Scenario, seed: int, jobs: int) -> list[dict[str, object]]:
    """Return a row per median uplink and boundary: uplink_bps, boundary, tokens_per_s, relative_speed."""
    own = scenario.pipeline.boundary
    boundaries = [own.model_dump()] + ([{"kind": "none"}] if own.kind != "none" else [])
    points = [(uplink, boundary) for boundary in boundaries for uplink in scenario.report.uplinks]
    if not points:
        return []
    # Not forked: the pool's workers start clean whatever the caller has loaded.
    with ProcessPoolExecutor(max_workers=jobs, mp_context=get_context("spawn")) as pool:
        baseline = pool.submit(simulate_baseline, scenario, seed)
        speeds = [pool.submit(tokens_per_s, scenario, uplink, boundary, seed) for uplink, boundary in points]
        reference = baseline.result().tokens_per_s
        return [
            {
                "uplink_bps": uplink,
                "boundary": boundary["kind"],
                "tokens_per_s": speed.result(),
                "relative_speed": speed.result() / reference,
            }
            for (uplink, boundary), speed in zip(points, speeds, strict=True)
        ]
