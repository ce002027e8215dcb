"""The summary of a run: one plain dictionary, the same for every backend, written as summary.json."""

from dataclasses import dataclass
from statistics import fmean
from typing import Any

from orionbed import metrics, waterfall
from orionbed import model as arithmetic
from orionbed.absences.presence import presence_in
from orionbed.advice import schedule_block
from orionbed.cost import cost_block
from orionbed.estimate import gpus_in_words
from orionbed.metrics import Rates
from orionbed.plan import Plan
from orionbed.published import compare_published, contradictions
from orionbed.results import MERGE_MARKS, RunResult
from orionbed.scenario import assumptions
from orionbed.tracing import CAUSES
from orionbed.warn import warnings_of

SCHEMA_VERSION = 1
FLOPS_CONVENTION = "6N per token, N = all parameters with embedding and head; HFU counts the FLOPs executed"
PEAK_DEFINITION = "best sliding window of the run, per second of training in it; peak_with_merges: per second of it"

Summary = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Baseline:
    """The scenario's datacenter, simulated: its rates per second and what was assumed."""

    mfu: float
    tokens_per_s: float
    definition: str
    fits: bool


def summarise(result: RunResult, baseline: Baseline | None, *, git: str, started_at: str) -> Summary:
    """Return the summary of a finished run (design: schema_version 1; fractions 0..1, SI units)."""
    plan = result.plan
    scenario = plan.scenario
    rates = metrics.rates(result)
    seconds = waterfall.gpu_seconds(result)
    summary: Summary = {
        "schema_version": SCHEMA_VERSION,
        "scenario": scenario.name,
        "title": scenario.title,
        "backend": result.backend,
        "seed": result.seed,
        "git": git,
        "started_at": started_at,
        "wall_s": result.wall_s,
        "aborted": result.aborted or None,
        "model": model_block(plan),
        "layout": layout_block(plan),
        "duration_s": {
            "total": result.duration_s,
            "training": result.training_s,
            "merging": result.merging_s,
            "startup": result.startup_s,
        },
        "tokens": _tokens(result, rates),
        **_mfu_blocks(result, rates),
        "datacenter": _datacenter(plan, rates, baseline),
        "waterfall": waterfall.waterfall(seconds),
        "schedule": schedule_block(plan),
        "microbatches": result.ledger.counts(),
        "merges": _merges(result),
        "syncs": _syncs(result),
        "network": _network(result),
        "churn": _churn(result, seconds.sum(axis=0)),
        "faults": result.faults,
    }
    if result.recovery:
        summary["recovery"] = result.recovery
    if result.orchestrator:
        summary["orchestrator"] = result.orchestrator
    if result.backend_block:
        summary[result.backend] = result.backend_block
    summary["cost"] = cost_block(result, summary["tokens"]["total"], baseline.tokens_per_s if baseline else None)
    summary["published"] = compare_published(scenario, summary)
    summary["contradictions"] = contradictions(scenario, summary)
    summary["warnings"] = result.warnings + warnings_of(result, summary, baseline is None or baseline.fits)
    summary["assumptions"] = assumptions(scenario)
    summary["engine"] = {
        "events": result.events,
        "events_per_s": result.events / result.wall_s if result.wall_s > 0.0 else 0.0,
    }
    return summary


def model_block(plan: Plan) -> Summary:
    """Parameters, boundary and FLOPs of the scenario's model."""
    model = plan.scenario.model
    per_token = arithmetic.flops_per_token(model)
    schedule = plan.scenario.pipeline.schedule
    executed = arithmetic.executed_flops_per_token(
        model, plan.split, schedule.recompute, last_recomputes=schedule.kind != "queue"
    )
    attention = arithmetic.attention_flops_per_token(model, plan.scenario.batch.sequence)
    return {
        "num_parameters": plan.num_parameters,
        "num_layers": model.layers,
        "boundary_bytes_uncompressed": plan.boundary_bytes_uncompressed,
        "boundary_bytes": plan.boundary_bytes,
        "compression_ratio": plan.boundary_bytes_uncompressed / plan.boundary_bytes,
        "flops_per_token": per_token,
        "flops_per_token_with_attention": per_token + attention,
        "flops_per_token_executed": executed,
        "flops_convention": FLOPS_CONVENTION,
    }


def layout_block(plan: Plan) -> Summary:
    """Stages, peers and memory."""
    memory = [stage.memory for stage in plan.stages]
    return {
        "num_stages": plan.num_stages,
        "num_replicas": plan.num_replicas,
        "num_peers": len(plan.peers),
        "gpu": gpus_in_words(plan),
        "gpus": plan.gpu_counts,
        "gpus_per_peer": plan.scenario.peers.gpus,
        "peak_flops": plan.peak_flops / plan.num_gpus,
        "layers_per_stage": plan.layers_per_stage,
        "layers_per_chunk": list(plan.split),
        "parameters_per_stage": [stage.parameters for stage in plan.stages],
        # Weights, gradients and moments; the peak adds activations in flight and one micro-batch's working set.
        "memory_bytes_per_stage": [m.states_bytes for m in memory],
        "peak_memory_bytes_per_stage": [m.total_bytes for m in memory],
        "memory_bytes": min(plan.gpu_of(peer).memory for peer in plan.peers),
        "fits": plan.fits,
        "sites": {site: sum(peer.site == site for peer in plan.peers) for site in plan.site_names},
    }


def _tokens(result: RunResult, rates: Rates) -> Summary:
    per_microbatch = result.plan.tokens_per_microbatch
    return {
        "total": result.ledger.applied * per_microbatch,
        "per_s": rates.scaled(float(per_microbatch)),
    }


def _mfu_blocks(result: RunResult, rates: Rates) -> Summary:
    peaks = {
        "peak_definition": PEAK_DEFINITION,
        "peak_window_s": rates.peak.window_s,
        "peak_start_s": rates.peak.start_s,
    }
    mfu = rates.scaled(metrics.mfu_per_rate(result))
    applied_flops = result.ledger.applied * result.plan.useful_flops_per_microbatch
    per_useful = metrics.executed_flops(result) / applied_flops if applied_flops else 0.0
    return {
        "mfu": {**mfu, **peaks},
        "mfu_with_attention": rates.scaled(metrics.mfu_per_rate(result, attention=True)),
        "hfu": {**{name: value * per_useful for name, value in mfu.items()}, **peaks},
    }


def _datacenter(plan: Plan, rates: Rates, baseline: Baseline | None) -> Summary:
    ours = rates.wall_clock * plan.tokens_per_microbatch
    mfu = ours * 6.0 * plan.num_parameters / plan.peak_flops
    published = [
        {"name": name, "mfu": entry.mfu, "source": entry.source, "relative_speed": mfu / entry.mfu}
        for name, entry in plan.scenario.datacenter.published.items()
    ]
    if baseline is None:
        return {"mfu": None, "tokens_per_s": None, "relative_speed": None, "definition": "", "published": published}
    return {
        "mfu": baseline.mfu,
        "tokens_per_s": baseline.tokens_per_s,
        "relative_speed": ours / baseline.tokens_per_s if baseline.tokens_per_s else None,
        "definition": baseline.definition,
        "published": published,
    }


def _merges(result: RunResult) -> Summary:
    merges = [mark for mark in result.marks if mark.kind in MERGE_MARKS]
    num_peers = len(result.plan.peers)
    count, counts = len(merges), result.merge_counts
    return {
        "count": count,
        "mean_s": sum(mark.end_s - mark.start_s for mark in merges) / count if count else 0.0,
        "bytes_per_peer": (result.bytes_merge_up + result.bytes_merge_down) / (count * num_peers) if count else 0.0,
        "bytes_up_per_peer": result.bytes_merge_up / (count * num_peers) if count else 0.0,
        "bytes_down_per_peer": result.bytes_merge_down / (count * num_peers) if count else 0.0,
        "missed": result.merges_missed,
        "covered": fmean(counts.covered) if counts.covered else None,
        "failures": counts.failures,
        "retries": counts.retries,
        "refused": counts.refused,
    }


def _syncs(result: RunResult) -> Summary:
    """Exchanges of gradients between replicas; one is one piece of one stage."""
    count, plan = result.num_syncs, result.plan
    per_peer = result.bytes_sync / (count * plan.num_replicas) if count else 0.0
    return {
        "count": count,
        "mean_s": result.syncing_s / count if count else 0.0,
        "bytes_per_peer_and_step": per_peer * plan.exchanges_per_step,
    }


def _network(result: RunResult) -> Summary:
    duration = max(result.duration_s, 1e-9)
    capacity = sum(peer.uplink_bps for peer in result.plan.peers) / 8.0 * duration
    return {
        "bytes_total": float(result.bytes_up.sum()),
        "bytes_boundary": result.bytes_boundary,
        "bytes_merge": result.bytes_merge_up + result.bytes_merge_down,
        "bytes_sync": result.bytes_sync,
        "bytes_storage_read": result.bytes_storage_read,
        "mean_uplink_utilisation": float(result.bytes_up.sum()) / capacity,
    }


def _churn(result: RunResult, by_cause: Any) -> Summary:
    stage_of = [peer.stage for peer in result.plan.peers]
    found = presence_in(result.marks, stage_of, min(result.startup_s, result.duration_s), result.duration_s)
    return {
        "moves": result.num_moves,
        "departures": sum(mark.kind == "down" for mark in result.marks),
        "departures_by_reason": found.by_reason,
        "availability": found.availability,
        "losses_per_peer_hour": found.losses_per_peer_hour,
        "bulk_losses": found.num_bulk,
        "mean_bulk_size": found.mean_bulk_size,
        "worst_stage": found.worst_stage,
        "min_peers_in_worst_stage": found.min_present,
        "empty_stage_s": found.empty_stage_s,
        "down_gpu_s": float(by_cause[CAUSES.index("down")]),
        "benched_gpu_s": float(by_cause[CAUSES.index("benched")]),
    }
