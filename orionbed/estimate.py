"""What can be said of a plan without running it: limits, memory and the cheapest it can get."""

from typing import Any

from orionbed.plan import Plan, StagePlan

TO_FIT = "use more stages, fewer bytes per parameter, full recompute, a smaller window or a smaller micro-batch"


def estimate(plan: Plan) -> dict[str, Any]:
    """Return limits of a plan: no schedule can beat the fullest stage, no run is cheaper than at that speed."""
    worst, room = fullest(plan)
    # Micro-batches per second of all peers of a stage together, each at its own speed.
    limits = [
        sum(plan.speed_of(peer) for peer in plan.peers if peer.stage == stage.index) / stage.microbatch_s
        for stage in plan.stages
    ]
    per_s = min(limits)
    slowest = plan.stages[limits.index(per_s)]
    tokens_per_s = per_s * plan.tokens_per_microbatch
    max_mfu = per_s * plan.useful_flops_per_microbatch / plan.peak_flops
    memory = worst.memory
    return {
        "scenario": plan.scenario.name,
        "fits": plan.fits,
        "num_stages": plan.num_stages,
        "num_replicas": plan.num_replicas,
        "num_peers": len(plan.peers),
        "gpu": gpus_in_words(plan),
        "schedule": plan.scenario.pipeline.schedule.kind,
        "num_parameters": plan.num_parameters,
        "layers_per_stage": plan.layers_per_stage,
        "boundary_bytes": plan.boundary_bytes,
        "boundary_bytes_uncompressed": plan.boundary_bytes_uncompressed,
        "compression_ratio": plan.boundary_bytes_uncompressed / plan.boundary_bytes,
        "memory_bytes": room,
        "memory_bytes_per_stage": [stage.memory.states_bytes for stage in plan.stages],
        "peak_memory_bytes_per_stage": [stage.memory.total_bytes for stage in plan.stages],
        "memory_line": (
            f"fullest stage {worst.index}: {memory.total_bytes / 1e9:.1f} of {room / 1e9:.0f} GB "
            f"({memory.states_bytes / 1e9:.1f} weights, gradients and moments, {memory.in_flight_bytes / 1e9:.1f} in "
            f"flight, {memory.working_bytes / 1e9:.1f} working)" + ("" if plan.fits else f": does not fit; {TO_FIT}")
        ),
        "compute_line": (
            f"slowest stage {slowest.index}: {_seconds(slowest.microbatch_s)} per micro-batch of "
            f"{plan.tokens_per_microbatch} tokens"
        ),
        "max_tokens_per_s": tokens_per_s,
        "max_mfu": max_mfu,
        **_cost(plan, tokens_per_s),
    }


def fullest(plan: Plan) -> tuple[StagePlan, float]:
    """Return the stage with the least memory to spare, and the bytes of the smallest GPU that it is on."""
    room = [min(plan.gpu_of(peer).memory for peer in plan.peers if peer.stage == s.index) for s in plan.stages]
    if len(set(room)) == 1:
        return max(plan.stages, key=lambda stage: stage.memory.total_bytes), room[0]
    worst = max(plan.stages, key=lambda stage: stage.memory.total_bytes - room[stage.index])
    return worst, room[worst.index]


def gpus_in_words(plan: Plan) -> str:
    """Return the name of the peers' GPU, or where there are several kinds how many peers have each."""
    counts = plan.gpu_counts
    return next(iter(counts)) if len(counts) == 1 else ", ".join(f"{n} {name}" for name, n in counts.items())


def _cost(plan: Plan, tokens_per_s: float) -> dict[str, Any]:
    """Hours and GPU dollars of the run; it ends at its tokens or its duration, whichever comes first."""
    run, num_gpus = plan.scenario.run, plan.num_gpus
    by_tokens = None if run.tokens is None else run.tokens / tokens_per_s / 3600.0
    by_duration = None if run.duration is None else run.duration / 3600.0
    hours = min(limit for limit in (by_tokens, by_duration) if limit is not None)
    usd = hours * plan.gpu_hour * num_gpus
    if run.tokens is not None and hours == by_tokens:
        line = f"{run.tokens / 1e9:g} B tokens take at least {_hours(hours)} and {_usd(usd)} of GPU time"
    else:
        line = f"{_hours(hours)} on {num_gpus} GPUs cost {_usd(usd)}"
    return {"min_hours": hours, "min_gpu_usd": usd, "estimate_line": line}


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1.0 else f"{seconds * 1e3:.3g} ms"


def _hours(hours: float) -> str:
    return f"{hours:.1f} h" if hours >= 1.0 else f"{hours * 60.0:.1f} min"


def _usd(usd: float) -> str:
    return f"${usd:,.0f}" if usd >= 100.0 else f"${usd:,.2f}"
