"""DT-FM's exchanges of gradients over shaped networks: ring, parameter servers. Only in the larger tables."""

from collections.abc import Iterable

from orionbed.model import num_parameters
from orionbed.scenario import apply
from orionbed.validation.bench import bare_scenario, step_s
from orionbed.validation.case import Case
from orionbed.validation.dtfm import NCCL, PAYLOAD_SHARE
from orionbed.validation.facts import Row

MIB = 2.0**20
ALGORITHMS = {"allreduce": "ring", "sharded_ps": "sharded-ps"}


def all_reduce(rows: Iterable[Row]) -> list[Case]:
    """Milliseconds of NCCL's all-reduce."""
    return [
        Case(
            f"ring, {size} MiB, {row['nodes']} nodes, {row['delay_ms']} ms, {row['bandwidth_gbps']} Gbit/s",
            row[f"nccl_{size}MB_ms"],
            1e3 * exchange_s("ring", size, row["nodes"], row["delay_ms"], row["bandwidth_gbps"]),
        )
        for row in rows
        for size in (128, 256)
    ]


def gradient_sync(rows: Iterable[Row]) -> list[Case]:
    """Seconds of a ring and of sharded servers.

    Rows of the central server are left out: DT-FM's is NCCL's reduce and broadcast along a chain, which moves a buffer
    once each way whatever the number of peers; ours takes in everybody's whole buffer, which is something else.
    """
    cases = []
    for row in rows:
        algorithm = ALGORITHMS.get(row["algorithm"])
        if algorithm is None:
            continue
        shape = f"{row['nodes']} nodes, {row['delay_ms']} ms, {row['bandwidth_gbps']} Gbit/s"
        seconds = exchange_s(algorithm, row["size_mb"], row["nodes"], row["delay_ms"], row["bandwidth_gbps"])
        cases.append(Case(f"{algorithm}, {row['size_mb']} MiB, {shape}", row["time_s"], seconds))
    return cases


def exchange_s(algorithm: str, size_mib: float, num_peers: int, delay_ms: float, gbps: float) -> float:
    """Simulate one exchange between the replicas of a model of one stage: a step with it less a step without."""
    num_layers, hidden = 1, 3072
    scenario = bare_scenario(
        {
            "model": {
                "layers": num_layers, "hidden": hidden, "ffn": 4 * hidden, "heads": 24, "kv_heads": 24, "vocab": 1024,
                "dtype": "fp32",
            },
            "batch": {"sequence": 1, "sequences": 1},
            "pipeline.stages": 1,
            "pipeline.replicas": num_peers,
            "pipeline.schedule": {"kind": "gpipe", "microbatches": 1, "recompute": "none"},
            "peers.gpu": "v100-16gb",
            "network.delay": delay_ms / 1e3,
            "network.uplink": gbps * 1e9 * PAYLOAD_SHARE,
            "network.downlink": gbps * 1e9 * PAYLOAD_SHARE,
            "network.transport": NCCL | {"slow_start_after_idle": False},
        }
    )  # fmt: skip
    bits = size_mib * MIB * 8.0 / num_parameters(scenario.model)
    return step_s(apply(scenario, {"sync": {"algorithm": algorithm, "bits": bits}})) - step_s(scenario)
