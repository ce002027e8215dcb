"""One point of the merging lab: a few merges, and what they cost."""

from collections.abc import Mapping
from statistics import fmean
from typing import Any

from orionbed import metrics, tracing, waterfall
from orionbed.plan import make_plan
from orionbed.scenario import Scenario, apply
from orionbed.scenario.merging import Merge
from orionbed.summary import summarise
from sim.backend import run
from sim.baseline import FOREVER_S, SIDE_RUN

_MERGING = (
    tracing.CAUSE_MERGE_TRANSFER,
    tracing.CAUSE_MERGE_WAIT,
    tracing.CAUSE_MERGE_COMPUTE,
    tracing.CAUSE_BENCHED,
)


def merge_point(
    scenario: Scenario, changes: Mapping[str, Any], seed: int, merges: int, horizon_s: float | None
) -> dict[str, Any]:
    """Simulate `merges` merges of the whole stage and the training before each, or `horizon_s` seconds.

    Returns the row of the lab's table: `duty` is the share of the GPUs' time that went neither into merges nor into
    waiting for weights after them; bytes are per peer and per merge of the whole stage; `delay_s` is how long a merge,
    or that of a fragment, took.
    """
    changed = apply(scenario, SIDE_RUN | dict(changes) | {"run.duration": horizon_s or FOREVER_S})
    block = changed.merge
    assert isinstance(block, Merge)
    max_epochs = merges * block.fragments if horizon_s is None else None
    result = run(make_plan(changed, seed), seed=seed, max_epochs=max_epochs, fetches=False)
    found = summarise(result, None, git="", started_at="")
    spent = waterfall.gpu_seconds(result).sum(axis=0)
    merge, count = found["merges"], max(1, found["merges"]["count"])
    rates = metrics.rates(result)
    lasts_s = merge["mean_s"]
    if block.algorithm == "gossip":  # the first ones train on long before
        lasts_s = fmean(result.merge_counts.exchanges_s or [0.0])
    return {
        "every_s": block.every,
        "failure": block.failure,
        "duty": 1.0 - float(spent[list(_MERGING)].sum() / spent.sum()),
        "mfu_in_phase": found["mfu"]["in_phase"],
        "mfu_with_merges": found["mfu"]["with_merges"],
        "tokens_per_s": rates.with_merges * result.plan.tokens_per_microbatch,
        "bytes_up": merge["bytes_up_per_peer"] * block.fragments,
        "bytes_down": merge["bytes_down_per_peer"] * block.fragments,
        "delay_s": lasts_s,
        "covered": merge["covered"],
        "missed": merge["missed"] / (count * len(result.plan.peers)),
        "failures": merge["failures"],
        "retries": merge["retries"],
        "refused": merge["refused"],
        "num_merges": merge["count"],
    }


def merge_arrivals(scenario: Scenario, seed: int, merges: int) -> list[list[float]]:
    """Return, for each of a few merges, after how many seconds each peer's upload was there, nobody cut off."""
    changes = {"run.duration": FOREVER_S, "merge.deadline": {"kind": "all"}, "merge.coverage_floor": None}
    changed = apply(scenario, SIDE_RUN | changes)
    result = run(make_plan(changed, seed), seed=seed, max_epochs=merges, fetches=False)
    return result.merge_counts.arrivals_s
