"""CrossPipe: pipelines over two datacentres, whose messages the authors hold up by a delay and an occupancy."""

from collections.abc import Iterable
from typing import Any

from orionbed.validation.bench import bare_scenario, step_s
from orionbed.validation.case import Case
from orionbed.validation.facts import Row, facts

FORWARD_S, INPUT_S, WEIGHT_S = 0.038, 0.048, 0.019
"""Seconds per stage: the forward is published, the sum (105 ms) follows from 1F1B without delay, and how it divides
between the halves of the backward is set on ZB-H1 and ZB-V without delay."""
STAGES = 8
SCHEDULES = {"s_1f1b": "1f1b", "s_zb_h1": "zb-h1", "s_zb_v": "zb-v"}


def two_datacentres() -> list[Case]:
    """Seconds per micro-batch, in cells of three schedules."""
    return cases_of(facts("crosspipe-2dc"))


def cases_of(rows: Iterable[Row]) -> list[Case]:
    """Seconds per micro-batch of rows that may have more than two datacentres."""
    cases = []
    for row in rows:
        recompute = ", recompute" if row["recompute"] else ""
        cell = f"delay {row['delay']:g}, occupancy {row['occupancy']:g}{recompute}"
        undisturbed = not row["delay"] and not row["recompute"]
        for column, schedule in SCHEDULES.items():
            seconds = step_s(_scenario(row, schedule)) / row["microbatches"]
            cases.append(Case(f"{cell}, {schedule}", row[column], seconds, group=cell, calibration=undisturbed))
    return cases


def _scenario(row: Row, schedule: str) -> Any:
    pieces = 2 if schedule == "zb-v" else 1
    num_sites = row.get("datacentres", 2)
    scenario: dict[str, Any] = {
        "model": {"layers": 64, "hidden": 8192, "ffn": 28672, "heads": 64, "kv_heads": 8, "vocab": 128256},
        "batch": {"sequence": 4096, "sequences": 1},
        "pipeline.stages": STAGES,
        "pipeline.split": [64 // (STAGES * pieces)] * (STAGES * pieces),
        "pipeline.schedule": {
            "kind": schedule,
            "microbatches": row["microbatches"],
            "recompute": "full" if row["recompute"] else "none",
        },
        "peers.gpu": "h100-80gb",
        "peers.gpus": 4,
        "peers.sites": {f"dc-{number}": STAGES // num_sites for number in range(num_sites)},
        "peers.placement": "packed",
        "peers.measured": {
            "forward": FORWARD_S, "input_gradient": INPUT_S, "weight_gradient": WEIGHT_S,
        },
        "network.delay": row["delay"] * FORWARD_S,
        "network.delay_inside": 0.0,
        # The emulation holds each message up in its sender, one after the other.
        "network.transport": {"window": 1e15, "tls": False, "synchronous": True},
    }  # fmt: skip
    if row["occupancy"]:
        boundary_bits = 4096 * 8192 * 2 * 8
        scenario["network.wan"] = boundary_bits / (row["occupancy"] * FORWARD_S)
    return bare_scenario(scenario)
