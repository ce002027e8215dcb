"""The tables of a run folder, from what a backend measured. Plain CSV, SI units, one header line."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from orionbed import metrics, waterfall
from orionbed.results import RunResult
from orionbed.tracing import CAUSES

Row = Mapping[str, object]


def write_csv(path: Path, rows: Iterable[Row], columns: Sequence[str]) -> None:
    """Write `rows` with the given columns in order; floats keep their shortest exact form."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def write_tables(result: RunResult, folder: Path) -> None:
    """Write steps.csv, timeline.csv, marks.csv, stages.csv and peers.csv into `folder`."""
    for name, rows, columns in (
        ("steps", steps(result), STEP_COLUMNS),
        ("timeline", metrics.timeline(result), ("t_s", "tokens", "mfu", "peers_up", "phase")),
        ("marks", marks(result), ("t_s", "end_s", "kind", "peer", "detail")),
        ("stages", stages(result), (*STAGE_COLUMNS, *CAUSES[1:])),
        ("peers", peers(result), PEER_COLUMNS),
    ):
        write_csv(folder / f"{name}.csv", rows, columns)


STEP_COLUMNS = (
    "epoch",
    "start_s",
    "training_end_s",
    "end_s",
    "applied",
    "dropped",
    "tokens",
    "mfu_in_phase",
    "merge_s",
)
STAGE_COLUMNS = ("stage", "layers", "parameters", "memory_bytes", "peak_memory_bytes")
PEER_COLUMNS = (
    *("peer", "stage", "replica", "site", "uplink_bps", "downlink_bps", "speed", "busy_s", "microbatches"),
    *("bytes_up", "bytes_down", "utilisation_up", "down_s", "mfu", "group", "gpu", "natted"),
)


def steps(result: RunResult) -> list[Row]:
    """One row per epoch."""
    factor = metrics.mfu_per_rate(result)
    rows: list[Row] = []
    for epoch in result.epochs:
        training_s = epoch.training_end_s - epoch.start_s
        rows.append(
            {
                "epoch": epoch.index,
                "start_s": epoch.start_s,
                "training_end_s": epoch.training_end_s,
                "end_s": epoch.end_s,
                "applied": epoch.applied,
                "dropped": epoch.dropped,
                "tokens": epoch.applied * result.plan.tokens_per_microbatch,
                "mfu_in_phase": epoch.applied / training_s * factor if training_s > 0.0 else 0.0,
                "merge_s": epoch.end_s - epoch.training_end_s,
            }
        )
    return rows


def marks(result: RunResult) -> list[Row]:
    """One row per merge, departure and other event."""
    return [
        {"t_s": m.start_s, "end_s": m.end_s, "kind": m.kind, "peer": m.peer, "detail": m.detail} for m in result.marks
    ]


def stages(result: RunResult) -> list[Row]:
    """One row per stage, with its GPU-seconds by cause."""
    seconds = waterfall.gpu_seconds(result)
    rows: list[Row] = []
    for stage in result.plan.stages:
        members = [peer.index for peer in result.plan.peers if peer.stage == stage.index]
        by_cause = seconds[members].sum(axis=0)
        row: dict[str, object] = {
            "stage": stage.index,
            "layers": stage.num_layers,
            "parameters": stage.parameters,
            "memory_bytes": stage.memory.states_bytes,
            "peak_memory_bytes": stage.memory.total_bytes,
        }
        row.update({name: float(by_cause[code]) for code, name in enumerate(CAUSES) if code})
        rows.append(row)
    return rows


def peers(result: RunResult) -> list[Row]:
    """One row per peer."""
    seconds = waterfall.gpu_seconds(result)
    duration = max(result.duration_s, 1e-9)
    rows: list[Row] = []
    for peer in result.plan.peers:
        sent = float(result.bytes_up[peer.index])
        rows.append(
            {
                "peer": peer.name,
                "stage": peer.stage,
                "replica": peer.replica,
                "site": peer.site,
                "uplink_bps": peer.uplink_bps,
                "downlink_bps": peer.downlink_bps,
                "speed": peer.speed,
                "busy_s": float(sum(work[peer.index] for work in result.work_s.values())),
                "microbatches": int(result.num_done["B"][peer.index] + result.num_done["W"][peer.index])
                // result.plan.stages[peer.stage].num_chunks,
                "bytes_up": sent,
                "bytes_down": float(result.bytes_down[peer.index]),
                "utilisation_up": sent * 8.0 / (peer.uplink_bps * duration),
                "down_s": float(seconds[peer.index, CAUSES.index("down")]),
                "mfu": float(seconds[peer.index, CAUSES.index("useful")]) / duration,
                "group": peer.group,
                "gpu": peer.gpu,
                "natted": int(peer.natted),
            }
        )
    return rows
