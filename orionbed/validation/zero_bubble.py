"""Zero Bubble: measured throughput of four schedules (table 4), from the authors' own stage times (table 6)."""

from typing import Any

from orionbed.validation.bench import bare_scenario, step_s
from orionbed.validation.case import Case
from orionbed.validation.facts import Row, facts

OVERHEAD_S = 0.6e-3
"""Host time per operation that the profiled stage times leave out; one number, set on this table."""
SCHEDULES = {"1f1b": "1f1b", "interleaved": "interleaved-1f1b", "zb_1p": "zb-1p", "zb_2p": "zb-2p"}


def throughput() -> list[Case]:
    """Samples per GPU and second, in cells of four schedules."""
    cases = []
    for row in facts("zero-bubble"):
        cell = f"{row['model']}, {row['microbatches']} micro-batches"
        for column, schedule in SCHEDULES.items():
            seconds = step_s(_scenario(row, schedule))
            samples = row["microbatches"] * row["micro_batch"] / (seconds * row["stages"])
            cases.append(Case(f"{cell}, {schedule}", row[f"samples_{column}"], samples, group=cell))
    return cases


def _scenario(row: Row, schedule: str) -> Any:
    # One layer per interleaved piece; the first and the last stage have one less, for embedding and head.
    pieces = (row["layers"] + 2) // row["stages"] if schedule == "interleaved-1f1b" else 1
    block: dict[str, Any] = {"kind": schedule, "microbatches": row["microbatches"], "recompute": "none"}
    if pieces > 1:
        block["chunks"] = pieces
    return bare_scenario(
        {
            "model": {
                "layers": row["layers"] + 2, "hidden": row["hidden"], "ffn": 4 * row["hidden"], "heads": row["heads"],
                "kv_heads": row["heads"], "vocab": 51200, "positions": row["sequence"], "block": "gpt",
                "attention": "unfused", "tied_embeddings": False, "dtype": "fp16",
                "optimizer": {"name": "adam", "state_bytes_per_parameter": 18},
            },
            "batch": {"sequence": row["sequence"], "sequences": row["micro_batch"]},
            "pipeline.stages": row["stages"],
            "pipeline.split": [(row["layers"] + 2) // (row["stages"] * pieces)] * (row["stages"] * pieces),
            "pipeline.schedule": block,
            "peers.gpu": "a100-80gb",
            "peers.overhead": OVERHEAD_S,
            "peers.measured": {
                "forward": row["forward_ms"] / 1e3,
                "input_gradient": row["input_ms"] / 1e3,
                "weight_gradient": row["weight_ms"] / 1e3,
            },
            "network.delay": row["hop_ms"] / 1e3,
        }
    )  # fmt: skip
