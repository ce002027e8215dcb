"""The report's section on the schedule: what other orders would have taken on the run's own plan."""

from __future__ import annotations

from typing import Any

from orionbed.advice import best_of, title_of
from reports import formatting as fmt
from reports.run_folder import Run


def table(run: Run) -> dict[str, Any] | None:
    """Return the table of orders, the shortest step first, with what could not be made, and a sentence on hops."""
    entries = run.items("schedule.advice")
    own = next((entry for entry in entries if entry.get("own")), None)
    if own is None:
        return None
    timed = sorted((e for e in entries if e.get("step_s") is not None), key=lambda e: float(e["step_s"]))
    rows = [
        {
            "name": title_of(entry),
            "step": fmt.duration(entry["step_s"]),
            "bubble": fmt.percent(entry.get("bubble")),
            "memory": fmt.data(entry.get("peak_memory_bytes")),
            "fits": "yes" if entry.get("fits") else "no",
            "gain": "" if entry.get("own") else fmt.signed_percent(entry.get("gain")),
            "own": "yes" if entry.get("own") else "",
        }
        for entry in timed
    ]
    skipped = [f"{title_of(e)}: {e['reason']}" for e in entries if e.get("reason")]
    return {
        "rows": rows,
        "skipped": skipped,
        "sentence": _best_sentence(run, entries),
        "hops": _hops_sentence(run, entries),
    }


def _best_sentence(run: Run, entries: list[dict[str, Any]]) -> str:
    step_s, best = run.number("schedule.step_s_without_contention"), best_of(entries)
    times = "this plan’s times and hops"
    if run.get("real.profile.is_of_device") is False:
        times = f"times of {run.get('real.profile.name')}, which is not the device that ran"
    text = f"A step of {run.get('schedule.name')} takes {fmt.duration(step_s)} on {times}"
    if best is None:
        return f"{text}, and no other order that fits the memory is shorter."
    return f"{text}; {title_of(best)} would take {fmt.percent(best['gain'])} less and fits the memory."


def _hops_sentence(run: Run, entries: list[dict[str, Any]]) -> str:
    counted = [f"{e['name']} pays {fmt.number(e['hops'])} hop times" for e in entries if e.get("hops") is not None]
    if not counted:
        return ""
    hop = fmt.duration(run.number("schedule.hop_s"))
    return f"A hop takes {hop} (median of neighbours); in a step {' and '.join(counted)}."
