"""DT-FM: pipelines and single messages over shaped networks, on V100 machines."""

from collections.abc import Iterable
from typing import Any

from orionbed.scenario import Scenario
from orionbed.validation.bench import bare_scenario, step_s
from orionbed.validation.case import Case
from orionbed.validation.facts import Row, facts

MIB = 2.0**20
SEQUENCE = 2048
RESTART_WINDOW = 128.0 * 1024
"""What a connection starts with after it has idled, for a decayed one of Linux; set on the single messages of both."""
NCCL = {
    "streams": 16,
    "window": 4 * MIB,
    "initial_window": RESTART_WINDOW,
    "slow_start_after_idle": True,
    "tls": False,
}
"""NCCL opens 16 sockets per connection on AWS (its documentation: two threads with eight each)."""
GLOO = NCCL | {"streams": 1, "window": 2.8 * MIB}
"""One socket; its window is set on the single messages."""
PAYLOAD_SHARE = 8949 / 9015
"""Of what a shaped link carries, with the jumbo frames of AWS (MTU 9001)."""
GLOO_LIMIT_BPS = 5e9
"""What one connection between two AWS machines can carry (AWS documentation, 5 Gbit/s)."""
FORWARD_SHARE = 0.25
"""With full recompute a backward takes three times as long as a forward."""


def messages() -> list[Case]:
    """Milliseconds of one message of 64 and of 128 MiB."""
    cases = []
    for row in facts("dtfm-messages"):
        for library in ("nccl", "gloo"):
            for size_mib in (64, 128):
                shape = f"{row['delay_ms']} ms, {row['gbps']} Gbit/s"
                label = f"{library}, {size_mib} MiB, {shape}"
                milliseconds = 1e3 * _message_s(library, size_mib, row["delay_ms"] / 1e3, row["gbps"] * 1e9)
                cases.append(Case(label, row[f"{library}_{size_mib}_ms"], milliseconds))
    return cases


def _message_s(library: str, size_mib: int, delay_s: float, rate_bps: float) -> float:
    """Time one message on an idle connection: a pipeline of two stages that mostly rest, two messages per step."""
    rest_s = 10.0
    scenario = _pipeline(
        stages=2, layers=2, hidden=64, sequence=size_mib * 4096, schedule="gpipe", microbatches=1, step_s=0.0,
        delay_s=delay_s,
        rate_bps=rate_bps if library == "nccl" else min(rate_bps, GLOO_LIMIT_BPS),
        transport=NCCL if library == "nccl" else GLOO, overhead_s=rest_s,
    )  # fmt: skip
    # A step is forward, message, forward, backward, message, backward; the optimizer of so small a model takes no time.
    return (step_s(scenario) - 4.0 * rest_s) / 2.0


def pipelines() -> list[Case]:
    """Seconds per step; one compute constant per group, set on its first, all but unshaped row."""
    return pipeline_cases(facts("dtfm-pipelines"))


def pipeline_cases(rows: Iterable[Row]) -> list[Case]:
    """Seconds per step of pipelines without replicas."""
    constants: dict[tuple[Any, ...], float] = {}
    cases = []
    for row in rows:
        group = (row["model"], row["stages"], row["schedule"], row.get("precision"), row.get("global_batch"))
        first = group not in constants
        if first:
            constants[group] = _calibrated(row)
        label = f"{row['model']}, {row['stages']} stages, {row['schedule']}, {row['delay_ms']} ms, {row['gbps']} Gbit/s"
        seconds = step_s(_of_row(row, constants[group]))
        cases.append(Case(label, row["step_s"], seconds, calibration=first))
    return cases


def _calibrated(row: Row) -> float:
    """Seconds per micro-batch and stage with which the row comes out as published."""
    seconds = row["step_s"] / (_microbatches(row) + row["stages"] - 1)
    for _ in range(4):
        seconds *= row["step_s"] / step_s(_of_row(row, seconds))
    return float(seconds)


def _microbatches(row: Row) -> int:
    return int(row.get("global_batch", 64)) // int(row.get("micro_batch", 1))


def _of_row(row: Row, seconds: float) -> Scenario:
    return _pipeline(
        stages=row["stages"], layers=row["layers"], hidden=row["hidden"], schedule=row["schedule"],
        microbatches=_microbatches(row), dtype=row.get("precision", "fp32"), step_s=seconds,
        delay_s=row["delay_ms"] / 1e3, rate_bps=row["gbps"] * 1e9, transport=NCCL,
    )  # fmt: skip


def _pipeline(
    *, stages: int, layers: int, hidden: int, schedule: str, microbatches: int, step_s: float, delay_s: float,
    rate_bps: float, transport: dict[str, Any], overhead_s: float = 0.0, sequence: int = SEQUENCE,
    dtype: str = "fp32",
) -> Scenario:  # fmt: skip
    """Return a pipeline of V100s on which a micro-batch of one sequence takes `step_s` on each stage."""
    backward_s = step_s * (1.0 - FORWARD_SHARE)
    return bare_scenario(
        {
            "model": {
                "layers": layers, "hidden": hidden, "ffn": 4 * hidden, "heads": hidden // 64,
                "kv_heads": hidden // 64, "vocab": 50257, "block": "gpt", "attention": "unfused",
                "dtype": dtype, "optimizer": {"name": "adam", "state_bytes_per_parameter": 16},
            },
            "batch": {"sequence": sequence, "sequences": 1},
            "pipeline.stages": stages,
            "pipeline.split": [layers // stages] * stages,
            "pipeline.schedule": {"kind": schedule, "microbatches": microbatches, "recompute": "none"},
            "peers.gpu": "v100-16gb",
            "peers.overhead": overhead_s,
            "peers.measured": {
                "forward": step_s * FORWARD_SHARE, "input_gradient": backward_s / 2, "weight_gradient": backward_s / 2,
            },
            "network.delay": delay_s,
            "network.uplink": rate_bps * PAYLOAD_SHARE,
            "network.downlink": rate_bps * PAYLOAD_SHARE,
            "network.transport": transport,
        }
    )  # fmt: skip
