"""What a run costs: rented GPU-hours, bytes leaving peers, bytes leaving the object store."""

from typing import Any

from orionbed.absences.liquid import liquid_peers, pay_per_hour
from orionbed.results import RunResult
from orionbed.streams import Streams

LIST_EGRESS_USD_PER_GB = 0.09
"""First-tier price of hyperscaler traffic to the internet (AWS list price, 2025)."""


def cost_block(result: RunResult, tokens: float, datacenter_tokens_per_s: float | None) -> dict[str, Any]:
    """Return the summary's `cost` block, in US dollars.

    Every peer is paid for the whole run, also while it is down unless `pay_absent` is false; liquid peers are paid what
    they are offered, while they are there. Egress is every byte a peer sends; the store's own egress is every byte read
    from it.
    """
    prices = result.plan.scenario.cost
    gpu_hours, gpu_usd = _gpus(result)
    egress_gb = float(result.bytes_up.sum()) / 1e9
    storage_gb = result.bytes_storage_read / 1e9
    egress_usd = egress_gb * prices.egress_per_gb + storage_gb * prices.storage_egress_per_gb
    millions = tokens / 1e6
    return {
        "gpu_hours": gpu_hours,
        "gpu_usd": gpu_usd,
        "egress_gb": egress_gb,
        "storage_gb": storage_gb,
        "egress_usd": egress_usd,
        "egress_usd_at_list_price": egress_gb * LIST_EGRESS_USD_PER_GB,
        "total_usd": gpu_usd + egress_usd,
        "usd_per_million_tokens": (gpu_usd + egress_usd) / millions if millions else None,
        "usd_per_million_tokens_gpu_only": gpu_usd / millions if millions else None,
        "datacenter_usd_per_million_tokens": _datacenter(result, datacenter_tokens_per_s),
        "currency_date": prices.prices_as_of,
    }


def _gpus(result: RunResult) -> tuple[float, float]:
    """Return the GPU-hours that are paid, and what they cost."""
    plan, prices = result.plan, result.plan.scenario.cost
    if prices.pay_absent and not liquid_peers(plan, Streams(result.seed)):
        gpu_hours = result.duration_s / 3600.0 * plan.num_gpus
        return gpu_hours, gpu_hours * plan.gpu_hour
    hours, usd = paid_by_peer(result)
    return sum(hours), sum(usd)


def paid_by_peer(result: RunResult) -> tuple[list[float], list[float]]:
    """Return for each peer the GPU-hours that are paid, and what they cost."""
    plan, prices = result.plan, result.plan.scenario.cost
    liquid = liquid_peers(plan, Streams(result.seed))
    paid_s = [result.duration_s] * len(plan.peers)
    for mark in result.marks:
        if mark.kind == "down" and (mark.detail == "liquid" or not prices.pay_absent):
            paid_s[mark.peer] -= mark.end_s - mark.start_s
    hours = [seconds / 3600.0 * plan.num_gpus / len(plan.peers) for seconds in paid_s]
    rates = [pay_per_hour(plan, peer) if peer.index in liquid else plan.price_of(peer) for peer in plan.peers]
    return hours, [rate * spent for rate, spent in zip(rates, hours, strict=True)]


def _datacenter(result: RunResult, tokens_per_s: float | None) -> float | None:
    price = result.plan.scenario.cost.datacenter_gpu_hour
    if price is None or not tokens_per_s:
        return None
    return price * result.plan.num_gpus / (tokens_per_s * 3600.0 / 1e6)
