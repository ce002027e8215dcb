"""Cost: two hours of four peers, with round prices."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from orionbed.cost import cost_block


def result(**prices: Any) -> Any:
    cost = {
        "gpu_hour": 1.25,
        "egress_per_gb": 0.09,
        "storage_egress_per_gb": 0.02,
        "datacenter_gpu_hour": 2.0,
        "prices_as_of": "2026-06",
        "pay_absent": True,
        **prices,
    }
    scenario = SimpleNamespace(cost=SimpleNamespace(**cost), churn="none")
    plan = SimpleNamespace(scenario=scenario, num_gpus=4, gpu_hour=cost["gpu_hour"])
    return SimpleNamespace(
        plan=plan, seed=0, duration_s=7200.0, bytes_up=np.array([25e9, 25e9, 40e9, 10e9]), bytes_storage_read=50e9
    )


def test_every_line_of_the_bill() -> None:
    bill = cost_block(result(), 4e6, 1000.0)
    assert bill == pytest.approx(
        {
            "gpu_hours": 8.0,  # 4 peers x 2 h
            "gpu_usd": 10.0,
            "egress_gb": 100.0,  # decimal gigabytes
            "storage_gb": 50.0,
            "egress_usd": 10.0,  # 100 x $0.09 + 50 x $0.02
            "egress_usd_at_list_price": 9.0,
            "total_usd": 20.0,
            "usd_per_million_tokens": 5.0,
            "usd_per_million_tokens_gpu_only": 2.5,
            "datacenter_usd_per_million_tokens": 8.0 / 3.6,  # 4 x $2/h at 3.6 million tokens per hour
            "currency_date": "2026-06",
        }
    )


def test_the_list_price_counts_what_peers_send_even_when_it_is_free() -> None:
    bill = cost_block(result(egress_per_gb=0.0, storage_egress_per_gb=0.0), 4e6, None)
    assert bill["egress_usd"] == 0.0
    assert bill["egress_usd_at_list_price"] == pytest.approx(9.0)
    assert bill["total_usd"] == 10.0


def test_no_tokens_no_price_per_token() -> None:
    bill = cost_block(result(), 0.0, 1000.0)
    assert bill["usd_per_million_tokens"] is None
    assert bill["usd_per_million_tokens_gpu_only"] is None
    assert bill["total_usd"] == pytest.approx(20.0)


@pytest.mark.parametrize(("price", "tokens_per_s"), [(None, 1000.0), (2.0, None), (2.0, 0.0)])
def test_no_datacenter_to_compare_with(price: float | None, tokens_per_s: float | None) -> None:
    bill = cost_block(result(datacenter_gpu_hour=price), 4e6, tokens_per_s)
    assert bill["datacenter_usd_per_million_tokens"] is None
