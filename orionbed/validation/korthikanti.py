"""Korthikanti et al. 2022: the times of one layer, and activation memory. Nothing is simulated here."""

from orionbed.compute import CostModel
from orionbed.plan import make_plan
from orionbed.validation.case import Case
from orionbed.validation.facts import Row, facts
from orionbed.validation.gpt import GptRun
from orionbed.validation.megatron import SELENE_NODE_BYTES_PER_S

GIB = 2.0**30


def layer_times() -> list[Case]:
    """Milliseconds of forward and backward of one layer."""
    cases = []
    for row in facts("korthikanti-layer"):
        parallel = bool(row["sequence_parallel"])
        plan = make_plan(GptRun(6144, 48, 64, 8, 1, 1, 4, 4, SELENE_NODE_BYTES_PER_S).scenario())
        batch, model = plan.scenario.batch, plan.scenario.model
        costs = CostModel(plan.gpu, gpus=8, sequence_parallel=parallel)
        layer = costs.layer(model, batch.tokens, batch.sequence)
        again_s = {
            "none": 0.0,
            "selective": costs.attention_core(model, batch.tokens, batch.sequence).forward_s,
            "full": layer.forward_s,
        }[row["recompute"]]
        cases.append(Case(f"forward, {row['variant']}", row["forward_ms"], 1e3 * layer.forward_s))
        cases.append(Case(f"backward, {row['variant']}", row["backward_ms"], 1e3 * (layer.backward_s + again_s)))
    return cases


def activation_memory() -> list[Case]:
    """GiB of activations on the first stage, and what each technique leaves of them, in percent."""
    cases = []
    for row in facts("korthikanti-memory"):
        whole = _activations(row, "none", parallel=False)
        both = _activations(row, "selective", parallel=True)
        cases.append(Case(f"{row['model']}, GiB", row["none_gib"], whole / GIB))
        cases.append(Case(f"{row['model']}, selective and sequence parallel, GiB", row["both_gib"], both / GIB))
        for column, recompute, parallel in (
            ("sequence_percent", "none", True),
            ("selective_percent", "selective", False),
            ("both_percent", "selective", True),
            ("full_percent", "full", False),
        ):
            share = 100.0 * _activations(row, recompute, parallel=parallel) / whole
            cases.append(Case(f"{row['model']}, {column.removesuffix('_percent')}, % of it", row[column], share))
    return cases


def _activations(row: Row, recompute: str, *, parallel: bool) -> float:
    run = GptRun(
        row["hidden"], row["layers"], row["heads"], row["tensor"], row["pipeline"], 1,
        row["microbatches"] * row["micro_batch"], row["micro_batch"], SELENE_NODE_BYTES_PER_S, row["chunks"],
        recompute, sequence_parallel=parallel,
    )  # fmt: skip
    return float(make_plan(run.scenario()).stages[0].memory.in_flight_bytes)
