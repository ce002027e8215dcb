"""What other orders would take on a plan: made for it, timed on it, and judged by its memory."""

from typing import Any

import pytest

from orionbed import advice
from orionbed.advice import best_of, compare_orders, schedule_block
from orionbed.hops import plan_hops
from orionbed.operations import times_of
from orionbed.plan import Plan, make_plan
from orionbed.scenario import load
from orionbed.schedule.catalogue import ENTRIES, Wanted
from orionbed.schedule.classic import gpipe
from orionbed.schedule.critical import hops_by_formula, hops_on_longest_path
from orionbed.schedule.text import to_csv
from orionbed.schedule.timing import Hops, equal_times, time_order
from orionbed.summary import summarise
from orionbed.warn import warnings_of
from sim.api import run


def plan_of(schedule: str = "{kind: 1f1b, microbatches: 8, recompute: none}", *sets: str) -> Plan:
    return make_plan(load("minimal", [f"pipeline.schedule={schedule}", "merge=none", *sets]))


def by_name(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(row["name"], []).append(row)
    return found


@pytest.fixture(name="rows", scope="module")
def _rows() -> list[dict[str, Any]]:
    return compare_orders(plan_of())


def test_every_schedule_of_the_catalogue_has_its_row(rows) -> None:
    found = by_name(rows)
    assert list(found) == list(ENTRIES)
    assert {name: len(entries) for name, entries in found.items() if len(entries) > 1} == {"opportunistic": 2}
    assert [row["name"] for row in rows if row["own"]] == ["1f1b"]
    assert all(row["reason"] is None for row in rows)


def test_rows_are_the_times_of_plans_made_with_those_settings(rows) -> None:
    for row in rows:
        settings = ", ".join(f"{k}: {'null' if v is None else str(v).lower()}" for k, v in row["settings"].items())
        plan = plan_of(f"{{{settings}}}")
        assert plan.order is not None
        hops = plan_hops(plan.scenario.network, plan.peers, plan.site_names, plan.boundary_bytes)
        timed = time_order(plan.order, times_of(plan.chunk_costs), hops)
        assert row["step_s"] == pytest.approx(timed.makespan_s, rel=1e-12)
        assert row["bubble"] == pytest.approx(timed.bubble(), rel=1e-12)
        assert row["peak_memory_bytes"] == max(stage.memory.total_bytes for stage in plan.stages)
        assert row["fits"] == plan.fits


def test_gains_are_against_the_own_order(rows) -> None:
    own = next(row for row in rows if row["own"])
    assert own["gain"] == 0.0
    for row in rows:
        assert row["step_s"] == pytest.approx(own["step_s"] * (1.0 - row["gain"]))
    best = best_of(rows)
    assert best is not None
    assert best["step_s"] == min(row["step_s"] for row in rows)


def test_what_does_not_fit_is_never_the_best() -> None:
    plan = plan_of("{kind: 1f1b, microbatches: 32, recompute: none}", "batch.sequences=40")
    assert plan.fits
    block = schedule_block(plan)
    assert block is not None
    shortest = min(block["advice"], key=lambda row: row["step_s"])
    assert not shortest["fits"]
    best = best_of(block["advice"])
    assert best is not None
    assert best["fits"]
    assert (block["best"], block["gain"]) == (best["name"], best["gain"])


@pytest.mark.parametrize("split", ["true", "false"])
def test_the_memory_limit_is_the_largest_that_fits(split: str) -> None:
    plan = plan_of("{kind: 1f1b, microbatches: 16, recompute: none}", "batch.sequences=40")
    rows = by_name(compare_orders(plan))["opportunistic"]
    row = next(row for row in rows if str(row["settings"]["split_backward"]).lower() == split)
    limit = row["settings"]["memory_limit"]
    assert row["fits"]
    assert 1 <= limit < 16
    larger = f"{{kind: opportunistic, microbatches: 16, recompute: none, memory_limit: {limit + 1}, "
    assert not plan_of(f"{larger}split_backward: {split}}}", "batch.sequences=40").fits


def test_an_order_that_cannot_be_made_says_why() -> None:
    rows = by_name(compare_orders(plan_of("{kind: gpipe, microbatches: 4}", "pipeline.split=[4, 4, 4, 4]")))
    (folded,) = rows["zb-v"]
    assert folded["step_s"] is folded["fits"] is folded["gain"] is None
    assert folded["reason"].startswith("pipeline.split: has 4 entries for 8 pieces")
    assert rows["zb-h1"][0]["reason"] is None


def test_a_large_pipeline_is_not_searched_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(advice, "SEARCH_LIMIT", 31)
    rows = by_name(compare_orders(plan_of()))
    for name in ("zb-1p", "zb-2p"):
        assert "not searched for" in rows[name][0]["reason"]
    assert {row["settings"]["memory_limit"] for row in rows["opportunistic"]} == {None}


def test_settings_of_the_own_order_are_kept() -> None:
    interleaved = compare_orders(plan_of("{kind: interleaved-1f1b, microbatches: 8, chunks: 4, recompute: selective}"))
    (own,) = by_name(interleaved)["interleaved-1f1b"]
    assert own["own"]
    assert own["settings"]["chunks"] == 4
    assert {row["settings"]["recompute"] for row in interleaved} == {"selective"}
    free = by_name(compare_orders(plan_of("{kind: opportunistic, microbatches: 8, memory_limit: 2}")))["opportunistic"]
    assert [row["own"] for row in free] == [True, False, False]


def test_an_order_from_a_file_is_compared_too(tmp_path) -> None:
    like = plan_of()
    assert like.order is not None
    (tmp_path / "order.csv").write_text(to_csv(like.order))
    block = schedule_block(plan_of(f"{{kind: csv, file: {tmp_path / 'order.csv'}, recompute: none}}"))
    assert block is not None
    assert (block["name"], block["num_microbatches"]) == ("csv", 8)
    assert next(row for row in block["advice"] if row["name"] == "1f1b")["gain"] == pytest.approx(0.0)


def test_a_queue_driven_plan_has_no_block() -> None:
    assert schedule_block(make_plan(load("minimal"))) is None


@pytest.mark.parametrize("hop_s", [0.01, 0.4, 3.0])
@pytest.mark.parametrize(("stages", "microbatches"), [(2, 2), (3, 6), (4, 8), (4, 16), (8, 8), (16, 32)])
@pytest.mark.parametrize("name", ["gpipe", "1f1b"])
def test_formulas_count_the_hops_of_equal_stages(name: str, stages: int, microbatches: int, hop_s: float) -> None:
    times = equal_times(stages, 1.0, 1.0, 0.7)
    order = ENTRIES[name].make(Wanted(stages, microbatches, times))
    hops = hops_by_formula(name, stages, microbatches)
    assert hops is not None
    step_s = (microbatches + stages - 1) * 2.7 + hops * hop_s
    assert time_order(order, times, Hops(hop_s)).makespan_s == pytest.approx(step_s, rel=1e-12)
    assert hops_on_longest_path(order, times, Hops(hop_s)) == hops


def test_formulas_are_silent_where_they_do_not_hold() -> None:
    assert hops_by_formula("1f1b", 4, 9) is None
    assert hops_by_formula("zb-h1", 4, 8) is None
    assert hops_by_formula("1f1b", 1, 8) == 0


def test_hops_between_single_pairs_count() -> None:
    times = equal_times(2, 1.0, 1.0, 1.0)
    hops = Hops(between={(0, 1): (0.0, 0.5), (1, 0): (0.1, 0.5)})
    assert hops_on_longest_path(gpipe(2, 4), times, hops) == 2


def test_the_warning_follows_the_block() -> None:
    plan = plan_of()
    block = schedule_block(plan)
    assert block is not None
    assert block["gain"] > 0.05
    short = plan_of("{kind: 1f1b, microbatches: 8, recompute: none}", "run.duration=1 min", "report.uplinks=[]")
    result = run(short)
    summary = summarise(result, None, git="", started_at="")
    assert summary["schedule"] == block
    codes = {entry["code"]: entry for entry in warnings_of(result, summary, baseline_fits=True)}
    assert f" {block['best']} " in codes["schedule"]["message"]
    assert "no-sync" in codes
