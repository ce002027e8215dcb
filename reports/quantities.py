"""What the dotted keys of `summary.json` are called and how their numbers are printed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from reports import formatting as fmt
from reports.palette import cause_label

AVERAGES: Final[Mapping[str, str]] = {
    "in_phase": "in training phases",
    "with_merges": "with merges",
    "wall_clock": "by the wall clock",
    "peak_sustained": "best sustained window",
    "peak_with_merges": "best window, merges included",
}

LABELS: Final[Mapping[str, str]] = {
    "tokens_per_s": "tokens/s",
    "tokens.total": "tokens trained",
    "duration_s.total": "run time",
    "duration_s.training": "time in training phases",
    "duration_s.merging": "time in merges",
    "duration_s.startup": "start-up time",
    "datacenter.mfu": "MFU in a datacenter",
    "datacenter.tokens_per_s": "tokens/s in a datacenter",
    "datacenter.relative_speed": "share of datacenter speed",
    "model.num_parameters": "parameters",
    "model.boundary_bytes": "bytes per boundary",
    "model.boundary_bytes_uncompressed": "bytes per boundary, uncompressed",
    "model.compression_ratio": "compression at the boundary",
    "model.flops_per_token": "FLOPs per token",
    "layout.num_peers": "peers",
    "layout.num_stages": "stages",
    "layout.num_replicas": "replicas",
    "layout.gpus_per_peer": "GPUs per peer",
    "layout.layers_per_chunk": "layers per chunk",
    "layout.peak_flops": "peak of one GPU",
    "layout.memory_bytes": "memory of one GPU",
    "microbatches.created": "micro-batches created",
    "microbatches.applied": "micro-batches applied",
    "microbatches.applied_share": "micro-batches applied",
    "microbatches.mean_staleness": "local steps between forward and backward",
    "merges.count": "merges",
    "merges.mean_s": "length of a merge",
    "merges.bytes_up_per_peer": "upload per peer and merge",
    "merges.bytes_down_per_peer": "download per peer and merge",
    "merges.covered": "share of weights averaged by a merge",
    "churn.availability": "share of the time that peers were there",
    "syncs.count": "syncs of replicas",
    "syncs.mean_s": "length of a sync",
    "syncs.bytes_per_peer_and_step": "sync traffic per peer and step",
    "train.held_out.loss": "held-out loss, nats a token",
    "train.held_out.loss_of_one_replica": "held-out loss of one replica, nats a token",
    "train.loss.last": "training loss of the last tenth, nats a token",
    "train.staleness.mean": "optimizer steps between forward and backward",
    "train.staleness.largest": "most optimizer steps between forward and backward",
    "train.merges.mean_drift": "drift of replicas before a merge",
    "train.steps.total": "optimizer steps of all peers",
    "schedule.name": "schedule",
    "schedule.num_microbatches": "micro-batches per step",
    "schedule.step_s_without_contention": "step without contention",
    "schedule.hop_s": "one hop",
    "schedule.best": "best other schedule",
    "schedule.gain": "gain of the best other schedule",
    "churn.departures": "departures of peers",
    "network.bytes_total": "bytes over the network",
    "network.bytes_sync": "bytes of syncs",
    "network.mean_uplink_utilisation": "uplinks in use",
    "cost.total_usd": "cost of the run",
    "cost.gpu_usd": "cost of the GPUs",
    "cost.egress_usd": "cost of the traffic",
    "cost.usd_per_million_tokens": "dollars per million tokens",
    "cost.usd_per_million_tokens_gpu_only": "dollars per million tokens, GPUs only",
    "cost.datacenter_usd_per_million_tokens": "dollars per million tokens in a datacenter",
}

_GROUPS: Final[Mapping[str, str]] = {
    "mfu": "MFU",
    "hfu": "HFU",
    "mfu_with_attention": "MFU counting attention",
    "tokens.per_s": "tokens/s",
}

HEADLINES: Final = (
    *("mfu.wall_clock", "mfu.with_merges", "mfu.in_phase", "mfu.peak_sustained"),
    *("hfu.wall_clock", "tokens.per_s.wall_clock", "tokens.per_s.with_merges", "tokens.per_s.in_phase"),
    *("tokens.total", "duration_s.total", "duration_s.training", "duration_s.merging"),
    *("datacenter.relative_speed", "datacenter.mfu", "microbatches.applied_share", "merges.count", "merges.mean_s"),
    *("churn.departures", "network.bytes_total", "network.mean_uplink_utilisation", "model.boundary_bytes"),
    *("cost.total_usd", "cost.usd_per_million_tokens", "cost.usd_per_million_tokens_gpu_only"),
)
"""What two runs are compared by, in this order; the waterfall's causes follow."""


def label(key: str) -> str:
    """Return the words for a dotted key of the summary; an unknown key speaks for itself."""
    if key in LABELS:
        return LABELS[key]
    group, _, average = key.rpartition(".")
    if group == "waterfall":
        return cause_label(average)
    if group in _GROUPS and average in AVERAGES:
        return f"{_GROUPS[group]}, {AVERAGES[average]}"
    flat = _flat(key)
    return label(flat) if flat else key


def is_fraction(key: str) -> bool:
    """Whether the number at a key is a share that prints as per cent and differs in points."""
    group, _, last = key.rpartition(".")
    return (
        (group in ("mfu", "hfu", "mfu_with_attention", "waterfall") and last not in ("peak_window_s", "peak_start_s"))
        or last in ("relative_speed", "mfu", "mean_uplink_utilisation", "applied_share", "share", "bubble", "gain")
        or key in ("merges.covered", "churn.availability")
        or key.startswith("mfu_")
    )


def show(key: str, value: Any) -> str:
    """Print the number at a dotted key of the summary with its unit; text as it is."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, int | float):
        return fmt.ABSENT if value is None else str(value)
    return _printer(key)(value)


def show_difference(key: str, difference: float | None) -> str:
    """Print a difference of two values at a key with its sign."""
    if difference is None:
        return fmt.ABSENT
    if is_fraction(key):
        return fmt.points(difference)
    sign = "" if difference < 0 else "+" if difference > 0 else "±"
    return sign + _printer(key)(difference)


def _printer(key: str) -> Callable[[float], str]:
    last = key.rpartition(".")[2]
    if is_fraction(key):
        return fmt.percent
    rules: tuple[tuple[bool, Callable[[float], str]], ...] = (
        ("usd" in last, fmt.money),
        (last == "compression_ratio", lambda v: f"{fmt.number(v)}×"),
        (last in ("total", "num_parameters") and not key.startswith("duration_s"), fmt.count),
        ("tokens.per_s" in key or "tokens_per_s" in last, lambda v: fmt.per_second(v, "tok")),
        ("flops" in last and "per_token" in last, lambda v: fmt.flops(v, "FLOP")),
        ("flops" in last, fmt.flops),
        (last.endswith("_bps"), fmt.rate),
        ("bytes" in last, fmt.data),
        (key.startswith("duration_s") or last.endswith("_s"), fmt.duration),
    )
    return next((printer for applies, printer in rules if applies), fmt.number)


def _flat(key: str) -> str | None:
    """Return the dotted key behind a flat one as the bands use it: `mfu_with_merges` is `mfu.with_merges`."""
    for average in AVERAGES:
        if key.endswith(f"_{average}"):
            return f"{key.removesuffix(f'_{average}')}.{average}"
    return {"relative_speed": "datacenter.relative_speed"}.get(key)
