"""Bands: the same scenario many times, each with its uncertain inputs drawn anew."""

from collections.abc import Callable
from typing import Any

from orionbed import backends
from orionbed.processes import in_processes
from orionbed.runs import RunError
from orionbed.scenario import Scenario, ScenarioError, apply, draw
from orionbed.streams import Streams

QUANTITIES = {
    "mfu_in_phase": "mfu.in_phase",
    "mfu_with_merges": "mfu.with_merges",
    "mfu_wall_clock": "mfu.wall_clock",
    "mfu_peak_sustained": "mfu.peak_sustained",
    "relative_speed": "datacenter.relative_speed",
    "tokens_per_s": "tokens.per_s.wall_clock",
}
BASELINE_HORIZON_S = 3600.0


def sample(
    scenario: Scenario,
    backend: str,
    *,
    seed: int,
    num_samples: int,
    jobs: int,
    progress: Callable[[int], None] | None = None,
) -> list[dict[str, Any]]:
    """Run `num_samples` draws over `run.samples_horizon` each, on `jobs` processes.

    Returns a row per draw: `draw`, every drawn key, and the quantities of `QUANTITIES`. The rows depend on the seed and
    the scenario only, not on the number of processes.

    Raises:
        RunError: a draw gives a scenario that cannot be.

    """
    draws = [(scenario, backend, seed, index) for index in range(num_samples)]
    return in_processes(one_draw, draws, jobs, progress)


def one_draw(scenario: Scenario, backend: str, seed: int, index: int) -> dict[str, Any]:
    """Draw the uncertain inputs once, run, and return the row of this draw.

    Raises:
        RunError: the draw gives a scenario that cannot be.

    """
    from orionbed.plan import make_plan
    from orionbed.published import lookup
    from orionbed.summary import summarise

    streams = Streams(seed).child(f"sample/{index}")
    try:
        drawn, values = draw(scenario, streams.get("uncertain"))
    except ScenarioError as error:
        raise RunError(
            f"draw {index} of `uncertain` is no good, narrow the distribution it came from:\n{error}"
        ) from None
    changes: dict[str, object] = {
        "run.tokens": None,
        "run.duration": scenario.run.samples_horizon,
        # Start-up weighs more in a short run than in a whole one, so a draw has none but the first download.
        "run.startup": 0.0,
        "run.trace": "summary",
        "datacenter.horizon": min(drawn.datacenter.horizon, BASELINE_HORIZON_S),
    }
    drawn = apply(drawn, changes)
    module = backends.load(backend)
    result = module.run(make_plan(drawn, streams.seed), seed=streams.seed)
    baseline = module.simulate_baseline(drawn, streams.seed)
    summary = summarise(result, baseline, git="", started_at="")
    return {"draw": index, **values, **{name: lookup(summary, key) for name, key in QUANTITIES.items()}}


def bands(rows: list[dict[str, Any]]) -> dict[str, list[float]]:
    """Return {summary key: [5 %, 50 %, 95 %]} over the draws."""
    import numpy as np

    found = {}
    for name, key in QUANTITIES.items():
        values = [row[name] for row in rows if row[name] is not None]
        if values:
            found[key] = [float(q) for q in np.quantile(values, (0.05, 0.50, 0.95))]
    return found
