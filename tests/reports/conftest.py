"""A small made-up run folder whose numbers hang together: a pipeline of replicas that the trace really contains."""

import csv
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orionbed import tracing
from orionbed.tracing import CAUSE_LABELS, TraceRecorder

FORWARD_S, BACKWARD_S, HOP_S, BOUNDARY_BYTES = 0.63, 1.89, 0.045, 2_304_000.0
SITES = ("virginia", "ohio", "iowa", "oregon", "california")
# fmt: off
LOSSES = {
    "kernel": 0.235, "recompute": 0.105, "boundary": 0.004, "optimizer": 0.012, "imbalance": 0.03, "fill": 0.011,
    "window": 0.0, "polling": 0.016, "transfer": 0.028, "encryption": 0.0, "upstream": 0.041, "merge_transfer": 0.092,
    "merge_wait": 0.043, "merge_compute": 0.009, "startup": 0.004, "benched": 0.008, "down": 0.021,
    "thrown_away": 0.027,
}
# fmt: on


def write_csv(path: Path, columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def peer_names(stages: int, replicas: int) -> list[str]:
    return [f"s{stage:02d}r{replica}" for stage in range(stages) for replica in range(replicas)]


def pipeline_trace(stages: int, replicas: int, length_s: float, start_s: float = 1800.0) -> tracing.Trace:
    """Backward first, one and a half micro-batches per stage in flight; every hop is a send and a receive."""
    recorder = TraceRecorder(peer_names(stages, replicas))
    for replica in range(replicas):
        ready: list[list[tuple[float, int, str]]] = [[] for _ in range(stages)]
        free = [start_s + 0.2 * replica] * stages
        in_flight, created = 0, 0

        def hop(source: int, target: int, microbatch: int, at: float, *, replica: int = replica) -> float:
            lane = {"lane": tracing.LANE_UP, "kind": tracing.KIND_SEND}
            for stage, code in ((source, lane), (target, {"lane": tracing.LANE_DOWN, "kind": tracing.KIND_RECEIVE})):
                recorder.add(
                    0, replica, stage, stage * replicas + replica, code["lane"], code["kind"], microbatch, 0,
                    at, at + HOP_S, BOUNDARY_BYTES, tracing.CAUSE_NONE,
                )  # fmt: skip
            return at + HOP_S

        while True:
            while in_flight < 1.5 * stages:
                ready[0].append((min(free), replica * 1000 + created, "F"))
                created, in_flight = created + 1, in_flight + 1
            choices = [
                (max(at, free[stage]), kind == "F", stage, at, microbatch, kind)
                for stage in range(stages)
                for at, microbatch, kind in ready[stage]
            ]
            begin, _, stage, at, microbatch, kind = min(choices)
            if begin > start_s + length_s:
                break
            ready[stage].remove((at, microbatch, kind))
            peer, last = stage * replicas + replica, stage == stages - 1
            if begin > free[stage]:
                cause = tracing.CAUSE_WINDOW if stage == 0 else tracing.CAUSE_UPSTREAM
                recorder.add(
                    0, replica, stage, peer, tracing.LANE_COMPUTE, tracing.KIND_IDLE, -1, 0,
                    free[stage], begin, 0.0, cause,
                )  # fmt: skip
            length = (FORWARD_S if kind == "F" else BACKWARD_S) * (0.7 if stage == 0 else 1.0) * (1 + 0.03 * replica)
            code = tracing.KIND_F if kind == "F" else tracing.KIND_B
            end = begin + length
            recorder.add(
                0, replica, stage, peer, tracing.LANE_COMPUTE, code, microbatch, 0, begin, end, 0.0, tracing.CAUSE_NONE
            )
            free[stage] = end
            if kind == "F" and not last:
                ready[stage + 1].append((hop(stage, stage + 1, microbatch, end), microbatch, "F"))
            elif kind == "F":
                ready[stage].append((end, microbatch, "B"))
            elif stage:
                ready[stage - 1].append((hop(stage, stage - 1, microbatch, end), microbatch, "B"))
            else:
                in_flight -= 1
    return recorder.table()


# fmt: off
def summary_of(stages: int, replicas: int, hours: float) -> dict[str, Any]:
    peers, total_s = stages * replicas, hours * 3600
    useful = 1.0 - sum(LOSSES.values())
    parameters, peak = 99_615_863_808, 312e12
    tokens_per_s = useful * peak * peers / (6 * parameters)
    rates = {"in_phase": 1.168, "with_merges": 1.004, "wall_clock": 1.0}
    mfu = {name: useful * factor for name, factor in rates.items()}
    mfu |= {"peak_sustained": 0.383, "peak_with_merges": 0.331}
    created = round(tokens_per_s * total_s / 8000 * 1.031)
    in_flight, dropped = 12, round(created * 0.03)
    published = [
        ("mfu.wall_clock", 0.308, "predicted", "average MFU"),
        ("mfu.peak_sustained", 0.38, "predicted", "peak MFU over 6 h"),
        ("tokens.per_s.in_phase", 9000.0, "fitted", "about 9000 tokens/s"),
        ("datacenter.relative_speed", 0.65, "predicted", ""),
        ("model.boundary_bytes", 2_304_000, "input", "boundary after ResBM"),
    ]
    summary: dict[str, Any] = {
        "schema_version": 1, "scenario": "orion-test", "title": "Orion, a made-up run", "backend": "sim", "seed": 3,
        "git": "0123456789ab", "started_at": "2026-06-01T12:00:00+00:00", "wall_s": 61.4,
        "model": {
            "num_parameters": parameters, "num_layers": 90, "boundary_bytes_uncompressed": 147_456_000,
            "boundary_bytes": 2_304_000, "compression_ratio": 64.0, "flops_per_token": 6 * parameters,
            "flops_convention": "6N per token",
        },
        "layout": {
            "num_stages": stages, "num_replicas": replicas, "num_peers": peers, "gpu": "a100-80gb",
            "peak_flops": peak, "memory_bytes": 80e9, "fits": True,
            "sites": {site: peers // len(SITES) for site in SITES},
        },
        "duration_s": {
            "total": total_s, "training": total_s * 0.852, "merging": total_s * 0.144, "startup": total_s * 0.004,
        },
        "tokens": {
            "total": round(tokens_per_s * total_s),
            "per_s": {name: tokens_per_s * factor for name, factor in rates.items()},
        },
        "mfu": mfu | {"peak_window_s": min(6.0, hours / 3) * 3600, "peak_start_s": total_s * 0.4},
        "hfu": {name: value * 1.34 for name, value in mfu.items()},
        "datacenter": {
            "mfu": 0.489, "tokens_per_s": tokens_per_s / useful * 0.489, "relative_speed": useful / 0.489,
            "definition": "the same layout on 200 Gbit/s links, no churn, selective recompute",
            "published": [
                {"name": "A100, 530B", "mfu": 0.421, "source": "arXiv 2205.05198", "relative_speed": useful / 0.421}
            ],
        },
        "waterfall": [
            {"cause": c, "label": label, "fraction": f, "gpu_s": f * total_s * peers}
            for c, label in CAUSE_LABELS.items()
            for f in [useful if c == "useful" else LOSSES[c]]
        ],
        "microbatches": {
            "created": created, "applied": created - dropped - in_flight, "stale_applied": 120, "redone": 8,
            "dropped": dropped, "duplicated": 0, "rejected": 0, "in_flight": in_flight, "partially_applied": 31,
            "mean_staleness": 3.4,
            "dropped_by_reason": {"flushed by a merge": dropped - 20, "peer crashed": 20},
        },
        "merges": {
            "count": round(hours),
            "mean_s": 520.0, "bytes_up_per_peer": 30e9, "bytes_down_per_peer": 48e9, "missed": 2,
        },
        "network": {
            "bytes_total": 1.23e13, "bytes_boundary": 9.5e12, "bytes_merge": 2.8e12, "bytes_storage_read": 1.7e12,
            "mean_uplink_utilisation": 0.031,
        },
        "churn": {"departures": 9, "down_gpu_s": 0.021 * total_s * peers, "benched_gpu_s": 0.008 * total_s * peers},
        "faults": [],
        "published": [
            {"quantity": q, "published": value, "kind": kind, "source": "made up for this test", "note": note}
            for q, value, kind, note in published
        ],
        "contradictions": [
            {"reading": "average MFU", "tokens_per_s": 7717.0, "mfu": 0.308, "hours": 39.6, "source": "report"},
            {
                "reading": "about 9000 tokens/s", "tokens_per_s": 9000.0, "mfu": 0.359, "hours": 34.0,
                "source": "summary",
            },
            {
                "reading": "this run, all", "tokens_per_s": tokens_per_s, "mfu": useful, "hours": hours,
                "source": "this run",
            },
        ],
        "warnings": [
            {"code": "window", "message": "6.1% of all GPU-seconds wait for the window", "advice": "raise the window"}
        ],
        "assumptions": [
            {"key": "network.uplink.median", "value": "856 Mbps", "kind": "published", "source": "the operator, 2026"},
            {"key": "pipeline.schedule.window", "value": "16", "kind": "code", "source": "public repository"},
            {"key": "peers.overhead", "value": "20 ms", "kind": "assumed", "source": "host time per operation"},
            {"key": "batch.sequences", "value": "10", "kind": "derived", "source": "147,456,000 bytes"},
            {"key": "merge.every", "value": "57 min", "kind": "fitted", "source": "tokens.per_s.in_phase = 9000"},
        ],
        "engine": {"events": 21_400_000, "events_per_s": 348_534.0},
    }
    for entry in summary["published"]:
        value: Any = summary
        for part in entry["quantity"].split("."):
            value = value[part]
        entry |= {"ours": value, "error": value / entry["published"] - 1}
    millions = summary["tokens"]["total"] / 1e6
    gpu_usd = total_s / 3600 * peers * 1.25
    summary["cost"] = {
        "gpu_hours": total_s / 3600 * peers, "gpu_usd": gpu_usd, "egress_usd": 0.0, "total_usd": gpu_usd,
        "egress_gb": 12_300.0, "egress_usd_at_list_price": 1107.0, "currency_date": "2026-06",
        "usd_per_million_tokens": gpu_usd / millions, "usd_per_million_tokens_gpu_only": gpu_usd / millions,
        "datacenter_usd_per_million_tokens": 2.0 * peers / (summary["datacenter"]["tokens_per_s"] * 3600 / 1e6),
    }
    return summary


def add_curve_and_bands(folder: Path, summary: dict[str, Any]) -> None:
    rng = np.random.default_rng(5)
    uplinks = np.geomspace(10e6, 10e9, 13)
    curve = [
        (u, kind, speed * 12_255, speed)
        for kind, scale in (("resbm", 15e6), ("none", 936e6))
        for u, speed in zip(uplinks, 0.78 / (1 + scale / uplinks), strict=True)
    ]
    write_csv(folder / "curve.csv", ("uplink_bps", "boundary", "tokens_per_s", "relative_speed"), curve)
    summary["curve_needed"] = [
        {
            "share": share, "boundary": kind,
            "uplink_bps": scale / (0.78 / share - 1) if share < 0.78 else None,
            "uplink_bps_of_best": scale / (1 / share - 1),
        }
        for kind, scale in (("resbm", 15e6), ("none", 936e6))
        for share in (0.5, 0.75, 0.9, 0.95, 0.99)
    ]
    scale, every = rng.uniform(0.8, 1.0, 20), rng.uniform(1800, 5400, 20)
    mfu = 0.34 * scale + 0.004 * (every / 3600 - 1) + rng.normal(0, 0.002, 20)
    names = (
        "mfu_in_phase", "mfu_with_merges", "mfu_wall_clock", "mfu_peak_sustained", "relative_speed", "tokens_per_s",
    )
    values = (mfu * 1.16, mfu, mfu * 0.99, mfu * 1.22, mfu / 0.489, mfu * 25_060)
    columns = ("draw", "peers.kernel_scale", "merge.every", "pipeline.schedule.router", *names)
    rows = [
        (i, scale[i], every[i], ("swarm", "random")[i % 2], *(float(column[i]) for column in values)) for i in range(20)
    ]
    write_csv(folder / "bands.csv", columns, rows)
    keys = ("mfu.in_phase", "mfu.with_merges", "mfu.wall_clock", "mfu.peak_sustained", "datacenter.relative_speed")
    summary["bands"] = {
        key: [float(q) for q in np.quantile(column, (0.05, 0.5, 0.95))]
        for key, column in zip((*keys, "tokens.per_s.wall_clock"), values, strict=True)
    }
    summary["bands_samples"] = 20
# fmt: on


def write_tables(folder: Path, summary: dict[str, Any], stages: int, replicas: int, hours: float) -> None:
    rng = np.random.default_rng(1)
    peers, minutes = stages * replicas, round(hours * 60)
    useful = summary["mfu"]["wall_clock"]
    merges = [(h * 3600.0 + 3120.0, h * 3600.0 + 3640.0) for h in range(int(hours))]
    downs = sorted(
        (float(t), float(t + d)) for t, d in zip(rng.uniform(0, hours * 3600, 9), rng.exponential(900, 9), strict=True)
    )
    rows, up = [], np.full(minutes, float(peers))
    for start, end in downs:
        up[int(start // 60) : int(end // 60) + 1] -= 1
    for minute in range(minutes):
        t = minute * 60.0
        phase = "merge" if any(a <= t + 30 < b for a, b in merges) else "startup" if t < 300 else "training"
        level = useful * 1.17 * (1 + rng.normal(0, 0.04)) * (1 - 2 * (peers - up[minute]) / peers)
        mfu = level if phase == "training" else 0.0
        rows.append((t, round(mfu / useful * summary["tokens"]["per_s"]["wall_clock"] * 60), mfu, up[minute], phase))
    write_csv(folder / "timeline.csv", ("t_s", "tokens", "mfu", "peers_up", "phase"), rows)
    marks = [(a, b, "merge", -1, "") for a, b in merges] + [
        (a, b, "down", i, "crash") for i, (a, b) in enumerate(downs)
    ]
    write_csv(folder / "marks.csv", ("t_s", "end_s", "kind", "peer", "detail"), sorted(marks))
    steps = [(i, a - 3120, a, b, 3000, 40, 24_000_000, 0.36, b - a) for i, (a, b) in enumerate(merges)]
    names = ("epoch", "start_s", "training_end_s", "end_s", "applied", "dropped", "tokens", "mfu_in_phase", "merge_s")
    write_csv(folder / "steps.csv", names, steps)
    per_stage = []
    for stage in range(stages):
        layers = 4 if stage in (0, stages - 1) else 6
        factor = layers / 5.8
        share = {c: f * (factor if c in ("kernel", "recompute") else 1) for c, f in LOSSES.items()}
        work = useful * factor
        share["imbalance"] += max(0.0, 1 - work - sum(share.values()))
        total = work + sum(share.values())
        seconds = [hours * 3600 * replicas * f / total for f in (work, *share.values())]
        per_stage.append((stage, layers, layers * 1_080_576_000, layers * 8.9e9, *seconds))
    write_csv(folder / "stages.csv", ("stage", "layers", "parameters", "memory_bytes", "useful", *LOSSES), per_stage)
    uplinks, downlinks = rng.lognormal(np.log(856e6), 0.35, peers), rng.lognormal(np.log(1322e6), 0.3, peers)
    speeds = rng.lognormal(0, 0.03, peers)
    table = [
        (
            name,
            i // replicas,
            i % replicas,
            SITES[i % 5],
            up,
            down,
            speed,
            hours * 2900,
            400,
            1.1e11,
            1.3e11,
            1.1e11 * 8 / up / (hours * 3600),
            300.0 * (i == 3),
            useful * speed * (4 if i < replicas else 6) / 5.8,
        )
        for i, (name, up, down, speed) in enumerate(
            zip(peer_names(stages, replicas), uplinks, downlinks, speeds, strict=True)
        )
    ]
    columns = ["peer", "stage", "replica", "site", "uplink_bps", "downlink_bps", "speed", "busy_s", "microbatches"]
    columns += ["bytes_up", "bytes_down", "utilisation_up", "down_s", "mfu"]
    write_csv(folder / "peers.csv", columns, table)


def make_run(
    folder: Path,
    stages: int = 4,
    replicas: int = 2,
    hours: float = 3.0,
    trace_s: float = 60.0,
    *,
    optional: bool = True,
) -> Path:
    """Write a run folder; without `optional` only what every run has: the summary without curve and bands."""
    folder.mkdir(parents=True)
    summary = summary_of(stages, replicas, hours)
    if optional:
        write_tables(folder, summary, stages, replicas, hours)
        add_curve_and_bands(folder, summary)
        pipeline_trace(stages, replicas, trace_s).save(folder / "trace.npz")
        manifest = {
            "run": folder.name,
            "command": ["orionbed", "run", "scenarios/orion-100b.yaml", "--set", "a=b c"],
            "seed": 3,
            "python": "3.11.9",
            "packages": {"simpy": "4.1.1", "numpy": "2.2.0"},
        }
        (folder / "manifest.json").write_text(json.dumps(manifest))
        (folder / "scenario.yaml").write_text("name: orion-test\n")
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """Change a run's summary in place."""
    path = folder / "summary.json"
    summary = json.loads(path.read_text())
    change(summary)
    path.write_text(json.dumps(summary))
    return folder


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    return make_run(tmp_path / "orion-test-sim-abc123-s3")


@pytest.fixture
def bare_folder(tmp_path: Path) -> Path:
    return make_run(tmp_path / "bare-sim-abc123-s3", optional=False)


@pytest.fixture
def editor() -> Callable[[Path, Callable[[dict[str, Any]], object]], Path]:
    return edit


@pytest.fixture(scope="session")
def maker() -> Callable[..., Path]:
    return make_run
