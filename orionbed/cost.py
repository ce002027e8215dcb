"""What a run costs: rented GPU-hours, bytes leaving peers, bytes leaving the object store."""

from typing import Any

from orionbed.results import RunResult

LIST_EGRESS_USD_PER_GB = 0.09
"""First-tier price of hyperscaler traffic to the internet (AWS list price, 2025)."""


def cost_block(result: RunResult, tokens: float, datacenter_tokens_per_s: float | None) -> dict[str, Any]:
    """Return the summary's `cost` block, in US dollars.

    Every peer is paid for the whole run, also while it is down. Egress is every byte a peer sends; the store's own
    egress is every byte read from it.
    """
    prices = result.plan.scenario.cost
    gpu_hours = result.duration_s / 3600.0 * result.plan.num_gpus
    gpu_usd = gpu_hours * prices.gpu_hour
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


def _datacenter(result: RunResult, tokens_per_s: float | None) -> float | None:
    price = result.plan.scenario.cost.datacenter_gpu_hour
    if price is None or not tokens_per_s:
        return None
    return price * result.plan.num_gpus / (tokens_per_s * 3600.0 / 1e6)
