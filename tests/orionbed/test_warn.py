"""Warnings: each comes when it should, says how bad it is, and what to do."""

from types import SimpleNamespace
from typing import Any

import pytest

from orionbed.warn import warnings_of


def result(*, fits: bool = True, hours: float = 10.0, replicas: int = 1, **sections: Any) -> Any:
    stages = [
        SimpleNamespace(index=index, memory=SimpleNamespace(total_bytes=total))
        for index, total in enumerate((70e9, 90e9))
    ]
    gpu = SimpleNamespace(name="a100-80gb", memory=80e9, measured=())
    plan = SimpleNamespace(
        fits=fits,
        stages=stages,
        peers=[SimpleNamespace(stage=index // 10) for index in range(20)],
        gpu_of=lambda _: gpu,
        gpu_counts={gpu.name: 20},
        others=(),
        num_replicas=replicas,
        site_names=("virginia", "oregon"),
        gpu=gpu,
        scenario=SimpleNamespace(
            run=SimpleNamespace(peak_window=6 * 3600.0), **{"sync": "none", "merge": "none", **sections}
        ),
    )
    return SimpleNamespace(plan=plan, duration_s=hours * 3600.0, has_baseline=True)


def summary(**changes: Any) -> dict[str, Any]:
    blocks: dict[str, Any] = {
        "mfu": {"peak_window_s": 6 * 3600.0},
        "microbatches": {"created": 1000, "applied": 980, "dropped": 20, "partially_applied": 10},
        "waterfall": [{"cause": "useful", "fraction": 0.95}, {"cause": "window", "fraction": 0.05}],
        "merges": {"count": 10, "missed": 10, "covered": 0.9},
        "faults": [],
        "published": [],
        "aborted": None,
        "schedule": None,
        "cost": {"egress_usd": 0.0, "egress_usd_at_list_price": 10.0, "gpu_usd": 100.0},
    }
    for key, value in changes.items():
        blocks[key] = {**(blocks[key] or {}), **value} if isinstance(value, dict) else value
    return blocks


def found(result_: Any, summary_: dict[str, Any], *, baseline_fits: bool = True) -> dict[str, str]:
    entries = warnings_of(result_, summary_, baseline_fits)
    assert all(set(entry) == {"code", "message", "advice"} and all(entry.values()) for entry in entries)
    assert len({entry["code"] for entry in entries}) == len(entries)
    return {entry["code"]: entry["message"] for entry in entries}


def test_nothing_to_warn_of_at_the_very_limits() -> None:
    assert found(result(), summary()) == {}


def test_memory_names_the_fullest_stage() -> None:
    messages = found(result(fits=False), summary())
    assert list(messages) == ["memory"]
    assert messages["memory"] == "stage 1 needs 90.0 GB and does not fit the 80 GB of a100-80gb"


def test_a_datacenter_without_room() -> None:
    assert list(found(result(), summary(), baseline_fits=False)) == ["datacenter-memory"]


def test_a_run_too_short_for_its_peak() -> None:
    messages = found(result(hours=2.5), summary(mfu={"peak_window_s": 9000.0}))
    assert list(messages) == ["short-run"]
    assert "the run lasted 2.50 h, less than the 6.0 h" in messages["short-run"]


@pytest.mark.parametrize(
    ("code", "counts", "share"),
    [
        ("dropped", {"dropped": 21}, "2.1%"),
        ("partially-applied", {"partially_applied": 11}, "1.1%"),
        ("nothing-applied", {"applied": 0}, "no micro-batch"),
    ],
)
def test_microbatches(code: str, counts: dict[str, int], share: str) -> None:
    messages = found(result(), summary(microbatches=counts))
    assert list(messages) == [code]
    assert messages[code].startswith(share)


def test_a_run_that_made_nothing() -> None:
    nothing = dict.fromkeys(("created", "applied", "dropped", "partially_applied"), 0)
    assert list(found(result(), summary(microbatches=nothing))) == ["nothing-applied"]


def test_a_window_that_is_full() -> None:
    waterfall = [{"cause": "useful", "fraction": 0.9}, {"cause": "window", "fraction": 0.051}]
    assert found(result(), summary(waterfall=waterfall))["window"].startswith("5.1% of all GPU-seconds")


def test_merges_that_peers_missed() -> None:
    messages = found(result(), summary(merges={"missed": 50}))  # of 10 merges x 20 peers
    assert list(messages) == ["merges-missed"]
    assert list(found(result(), summary(merges={"covered": 0.57}))) == ["merge-coverage"]
    assert messages["merges-missed"].startswith("in 25% of all cases a peer was too late")
    assert found(result(), summary(merges={"count": 0, "missed": 0})) == {}


def test_traffic_that_costs_nothing() -> None:
    messages = found(result(), summary(cost={"egress_usd_at_list_price": 1234.5}))
    assert "it would cost $1,234 beside $100 for the GPUs" in messages["egress-free"]
    assert found(result(), summary(cost={"egress_usd_at_list_price": 1234.5, "egress_usd": 1.0})) == {}


def test_a_published_figure_that_nothing_stands_beside() -> None:
    rows = [{"quantity": "mfu.wallclock", "ours": None}, {"quantity": "mfu.wall_clock", "ours": 0.3}]
    warned = found(result(), summary(published=rows))
    assert list(warned) == ["published-unknown"]
    assert "'mfu.wallclock'" in warned["published-unknown"]


def orders(gain: float, *, fits: bool = True) -> dict[str, Any]:
    own = {"name": "1f1b", "own": True, "fits": True, "gain": 0.0, "step_s": 10.0}
    settings = {"kind": "opportunistic", "microbatches": 8, "memory_limit": None, "split_backward": True}
    other = {"name": "opportunistic", "own": False, "fits": fits, "gain": gain, "step_s": 10.0 * (1.0 - gain)}
    return {
        "name": "1f1b",
        "step_s_without_contention": 10.0,
        "advice": [own, other | {"settings": settings}],
        "best": "opportunistic",
        "gain": gain,
    }


def test_a_schedule_that_a_better_one_would_fit_beside() -> None:
    entries = warnings_of(result(), summary(schedule=orders(0.12)), baseline_fits=True)
    assert [entry["code"] for entry in entries] == ["schedule"]
    assert "12% shorter: opportunistic with backwards split fits the memory and takes 8.8 s" in entries[0]["message"]
    assert "{kind: opportunistic, microbatches: 8, split_backward: true}" in entries[0]["advice"]
    assert "1F1B pays 2 (p-1)(m/p+1) - 2 hop times per step, GPipe 2 (p-1)" in entries[0]["advice"]
    assert found(result(), summary(schedule=orders(0.05))) == {}


def test_replicas_that_never_agree() -> None:
    messages = found(result(replicas=3), summary(schedule=orders(0.0)))
    assert list(messages) == ["no-sync"]
    assert messages["no-sync"].startswith("the 3 replicas never exchange gradients")
    assert found(result(replicas=3, sync=SimpleNamespace()), summary(schedule=orders(0.0))) == {}
    assert found(result(replicas=3, merge=SimpleNamespace()), summary(schedule=orders(0.0))) == {}
    assert found(result(replicas=3), summary()) == {}
