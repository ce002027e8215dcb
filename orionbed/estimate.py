"""What can be said of a plan without running it: limits, memory and the cheapest it can get."""

from typing import Any

from orionbed.plan import Plan


def estimate(plan: Plan) -> dict[str, Any]:
    """Return limits of a plan: no schedule can beat the fullest stage, no run is cheaper than at that speed."""
    worst = max(plan.stages, key=lambda stage: stage.memory.total_bytes)
    slowest = max(plan.stages, key=lambda stage: stage.microbatch_s)
    per_s = plan.num_replicas / slowest.microbatch_s
    tokens_per_s = per_s * plan.tokens_per_microbatch
    max_mfu = per_s * plan.useful_flops_per_microbatch / (plan.gpu.peak * len(plan.peers))
    memory = worst.memory
    return {
        "scenario": plan.scenario.name,
        "fits": plan.fits,
        "num_stages": plan.num_stages,
        "num_replicas": plan.num_replicas,
        "num_peers": len(plan.peers),
        "gpu": plan.gpu.name,
        "schedule": plan.scenario.pipeline.schedule.kind,
        "num_parameters": plan.num_parameters,
        "layers_per_stage": list(plan.split),
        "boundary_bytes": plan.boundary_bytes,
        "boundary_bytes_uncompressed": plan.boundary_bytes_uncompressed,
        "compression_ratio": plan.boundary_bytes_uncompressed / plan.boundary_bytes,
        "memory_bytes": plan.gpu.memory,
        "memory_bytes_per_stage": [stage.memory.total_bytes for stage in plan.stages],
        "states_bytes_per_stage": [stage.memory.states_bytes for stage in plan.stages],
        "memory_line": (
            f"fullest stage {worst.index}: {memory.total_bytes / 1e9:.1f} of {plan.gpu.memory / 1e9:.0f} GB "
            f"({memory.states_bytes / 1e9:.1f} weights, gradients and moments, {memory.in_flight_bytes / 1e9:.1f} in "
            f"flight, {memory.working_bytes / 1e9:.1f} working)" + ("" if plan.fits else ": does not fit")
        ),
        "compute_line": (
            f"slowest stage {slowest.index}: {slowest.microbatch_s:.2f} s per micro-batch of "
            f"{plan.tokens_per_microbatch} tokens"
        ),
        "max_tokens_per_s": tokens_per_s,
        "max_mfu": max_mfu,
        **_cost(plan, tokens_per_s),
    }


def _cost(plan: Plan, tokens_per_s: float) -> dict[str, Any]:
    run, price = plan.scenario.run, plan.scenario.cost.gpu_hour
    per_hour = price * len(plan.peers)
    if run.tokens is None:
        hours = (run.duration or 0.0) / 3600.0
        line = f"{hours:.1f} h on {len(plan.peers)} GPUs cost ${hours * per_hour:,.0f}"
    else:
        hours = run.tokens / tokens_per_s / 3600.0
        line = f"{run.tokens / 1e9:g} B tokens take at least {hours:.1f} h and ${hours * per_hour:,.0f} of GPU time"
    return {"min_hours": hours, "min_gpu_usd": hours * per_hour, "estimate_line": line}
