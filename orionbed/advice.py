"""What other orders would take on a plan's own times and hops: for its report, its warnings and its summary."""

from collections.abc import Iterator
from typing import Any

from orionbed.operations import times_of
from orionbed.plan import Plan, make_plan
from orionbed.scenario import Scenario, ScenarioError, apply
from orionbed.schedule.catalogue import ENTRIES
from orionbed.schedule.critical import hops_by_formula
from orionbed.schedule.order import ScheduleError
from orionbed.schedule.timing import Hops, time_order

SEARCHED = frozenset({"zb-1p", "zb-2p"})
SEARCH_LIMIT = 20_000
"""Stages times micro-batches above which nothing is searched for."""

Row = dict[str, Any]
Settings = dict[str, Any]


def schedule_block(plan: Plan) -> Row | None:
    """Return the summary's `schedule`: the plan's own order and what others would take; None without a fixed batch.

    Seconds are those of the first replica, at the drawn rates, without contention, optimizer step and sync.
    """
    if plan.order is None:
        return None
    rows = compare_orders(plan)
    own = next(row for row in rows if row["own"])
    best = best_of(rows)
    hops = plan.hops()
    return {
        "name": own["name"],
        "num_microbatches": plan.order.num_microbatches,
        "step_s_without_contention": own["step_s"],
        "hop_s": hops.delay_s + hops.transfer_s,
        "advice": rows,
        "best": best["name"] if best else None,
        "gain": best["gain"] if best else 0.0,
    }


def best_of(rows: list[Row]) -> Row | None:
    """Return the row of the shortest step among those that fit memory; None if no other is shorter than the own."""
    shorter = [row for row in rows if not row["own"] and row["fits"] and row["gain"] > 1e-9]
    return min(shorter, key=lambda row: row["step_s"], default=None)


def title_of(row: Row) -> str:
    """Return an order's name with the settings that tell it from others of that name."""
    settings = row["settings"]
    parts = [str(row["name"])]
    if "chunks" in settings:
        parts.append(f"{settings['chunks']} chunks per stage")
    if settings.get("split_backward"):
        parts.append("backwards split")
    if settings.get("memory_limit") is not None:
        parts.append(f"at most {settings['memory_limit']} held")
    return " with ".join([parts[0], ", ".join(parts[1:])]) if len(parts) > 1 else parts[0]


def compare_orders(plan: Plan) -> list[Row]:
    """Return one row per order: the plan's own, and every other one in the plan's place, in the catalogue's order.

    `gain` is the share by which the step would be shorter. An order that cannot be made has a `reason` and no numbers.
    """
    assert plan.order is not None
    scenario = plan.scenario
    own_settings = scenario.pipeline.schedule.model_dump(mode="json")
    hops = plan.hops()  # no order changes them
    own = _timed_row(plan, own_settings, hops) | {"own": True}
    rows = [own]
    for name in ENTRIES:
        for settings, candidate in _candidates(plan, name):
            if settings == own_settings:
                continue
            if isinstance(candidate, str):
                rows.append(_skipped_row(settings, candidate))
            else:
                rows.append(_timed_row(candidate, settings, hops))
    for row in rows:
        row["gain"] = None if row["step_s"] is None else 1.0 - row["step_s"] / own["step_s"]
    names = list(ENTRIES)
    return sorted(rows, key=lambda row: names.index(row["name"]) if row["name"] in ENTRIES else -1)


def _candidates(plan: Plan, name: str) -> Iterator[tuple[Settings, Plan | str]]:
    """Yield settings of a schedule with the plan that they lead to, or with the reason why they do not."""
    assert plan.order is not None
    own = plan.scenario.pipeline.schedule
    settings: Settings = {"kind": name, "microbatches": plan.order.num_microbatches, "recompute": own.recompute}
    too_large = plan.num_stages * plan.order.num_microbatches > SEARCH_LIMIT
    if name in SEARCHED and too_large:
        yield settings, f"not searched for: more than {SEARCH_LIMIT:,} micro-batches times stages"
        return
    if name == "opportunistic":
        for splits in (False, True):
            whole = {**settings, "memory_limit": None, "split_backward": splits}
            yield (whole, _planned(plan.scenario, whole)) if too_large else _as_large_as_fits(plan, whole)
        return
    if name == "interleaved-1f1b":
        settings["chunks"] = own.chunks if own.kind == "interleaved-1f1b" else 2
    yield settings, _planned(plan.scenario, settings)


def _planned(scenario: Scenario, settings: Settings) -> Plan | str:
    """Return the plan with another schedule, or the reason why there is none."""
    try:
        return make_plan(apply(scenario, {"pipeline.schedule": settings}))
    except ScenarioError as error:
        problem = error.problems[0]
        return f"{problem.key}: {problem.message}"
    except ScheduleError as error:
        return str(error)


def _as_large_as_fits(plan: Plan, settings: Settings) -> tuple[Settings, Plan | str]:
    """Return the settings with the largest memory limit that fits the GPU; with the smallest if none does."""
    found = _planned(plan.scenario, settings)
    if isinstance(found, str) or found.fits:
        return settings, found
    low, high = 1, settings["microbatches"]
    best = {**settings, "memory_limit": low}
    best_plan = _planned(plan.scenario, best)
    while high - low > 1:
        middle = (low + high) // 2
        limited = {**settings, "memory_limit": middle}
        candidate = _planned(plan.scenario, limited)
        if isinstance(candidate, str) or not candidate.fits:
            high = middle
        else:
            low, best, best_plan = middle, limited, candidate
    return best, best_plan


def _timed_row(plan: Plan, settings: Settings, hops: Hops) -> Row:
    assert plan.order is not None
    name = settings["kind"]
    timed = time_order(plan.order, times_of(plan.slowest_costs), hops)
    counted = None if hops.synchronous else hops_by_formula(name, plan.num_stages, plan.order.num_microbatches)
    return {
        "name": name,
        "own": False,
        "settings": settings,
        "step_s": timed.makespan_s,
        "bubble": timed.bubble(),
        "peak_memory_bytes": max(stage.memory.total_bytes for stage in plan.stages),
        "fits": plan.fits,
        "hops": counted,
        "reason": None,
    }


def _skipped_row(settings: Settings, reason: str) -> Row:
    unknown = dict.fromkeys(("step_s", "bubble", "peak_memory_bytes", "fits", "hops"))
    return {"name": settings["kind"], "own": False, "settings": settings, **unknown, "reason": reason}
