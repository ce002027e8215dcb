"""Megatron-LM on A100s: SC'21 weak scaling, whole steps of Korthikanti et al., vTrain's multi-node runs."""

from collections.abc import Iterable, Iterator
from math import inf

from orionbed.operations import times_of
from orionbed.plan import make_plan
from orionbed.schedule.timing import time_order
from orionbed.validation.bench import step_s
from orionbed.validation.case import Case
from orionbed.validation.facts import Row, facts
from orionbed.validation.gpt import GptRun

SELENE_NODE_BYTES_PER_S = 200e9
"""Eight HDR InfiniBand cards of 200 Gbit/s per node (arXiv 2104.04473, section 5)."""
VTRAIN_NODE_BYTES_PER_S = 100e9
"""800 Gbit/s per node (arXiv 2312.12391)."""


def sc21_flops(hidden: int, layers: int, global_batch: int, sequence: int = 2048, vocab: int = 51200) -> float:
    """FLOPs of one step with full recompute, as SC'21 counts them (section 5.1)."""
    extra = 1.0 + sequence / (6.0 * hidden) + vocab / (16.0 * layers * hidden)
    return 96.0 * global_batch * sequence * layers * hidden**2 * extra


def sc21(most_billions: float = inf) -> list[Case]:
    """TFLOP/s per GPU; micro-batch and pieces are the fastest that fit, since the paper does not say."""
    cases = []
    for row in facts("megatron-sc21"):
        if row["billions"] > most_billions:
            continue
        run = fastest(_choices(row))
        num_gpus = row["tensor"] * row["pipeline"] * row["data"]
        flops = sc21_flops(row["hidden"], row["layers"], row["global_batch"])
        label = f"{row['billions']}B, micro-batch {run.micro_batch}, {run.chunks} pieces"
        cases.append(Case(label, float(row["tflops"]), flops / (step_s(run.scenario()) * num_gpus * 1e12)))
    return cases


def _choices(row: Row) -> Iterator[GptRun]:
    for micro_batch in (1, 2, 4, 8, 16):
        for chunks in (1, 2, 3, 4):
            if row["global_batch"] % (row["data"] * micro_batch) or row["layers"] % (row["pipeline"] * chunks):
                continue
            run = GptRun(
                row["hidden"], row["layers"], row["heads"], row["tensor"], row["pipeline"], row["data"],
                row["global_batch"], micro_batch, SELENE_NODE_BYTES_PER_S, chunks,
            )  # fmt: skip
            if chunks == 1 or (row["pipeline"] > 1 and run.num_microbatches % row["pipeline"] == 0):
                yield run


def fastest(runs: Iterable[GptRun]) -> GptRun:
    """Return the run that fits and takes the shortest without its exchange of gradients."""
    best: tuple[float, GptRun] | None = None
    for run in runs:
        plan = make_plan(run.alone().scenario())
        if not plan.fits:
            continue
        assert plan.order is not None
        seconds = time_order(plan.order, times_of(plan.chunk_costs), plan.hops()).makespan_s
        if best is None or seconds < best[0]:
            best = seconds, run
    assert best is not None
    return best[1]


def korthikanti_steps() -> list[Case]:
    """Seconds per step of whole models."""
    cases = []
    for row in facts("korthikanti-steps"):
        for column, recompute in (("full_s", "full"), ("both_s", "selective")):
            run = GptRun(
                row["hidden"], row["layers"], row["heads"], row["tensor"], row["pipeline"], 1, row["global_batch"],
                row["micro_batch"], SELENE_NODE_BYTES_PER_S, row["chunks"], recompute,
                sequence_parallel=recompute == "selective",
            )  # fmt: skip
            cases.append(Case(f"{row['model']}, {recompute} recompute", row[column], step_s(run.scenario())))
    return cases


def vtrain() -> list[Case]:
    """Milliseconds per step of every ninth published run."""
    return vtrain_cases(facts("vtrain-sample"))


def vtrain_cases(rows: Iterable[Row]) -> list[Case]:
    """Milliseconds per step of vTrain's runs."""
    cases = []
    for row in rows:
        run = GptRun(
            row["hidden"], row["layers"], row["heads"], row["tensor"], row["pipeline"], row["data"],
            row["global_batch"], row["micro_batch"], VTRAIN_NODE_BYTES_PER_S,
        )  # fmt: skip
        label = (
            f"{row['billions']}B t{row['tensor']} d{row['data']} p{row['pipeline']} micro-batch {row['micro_batch']}"
        )
        cases.append(Case(label, row["step_ms"], 1e3 * step_s(run.scenario())))
    return cases
