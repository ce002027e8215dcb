"""The tables of a report, as plain rows of printed text. A section without data is an empty list and left out."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from reports import formatting as fmt
from reports.figures.bandwidth import boundary_label
from reports.quantities import show
from reports.run_folder import Run
from reports.verdict import peers_of

KIND_ORDER: Final = ("fitted", "assumed", "derived", "code", "published")
"""Assumptions in the order in which a reader should doubt them."""

_SLOWEST: Final = 8


@dataclass(frozen=True)
class Line:
    """A row of a two- or three-column table: words, printed value, what it means."""

    label: str
    value: str
    note: str = ""


def facts(run: Run) -> list[str]:
    """Return the run in a line of small print: model, layout, boundary, length."""
    number = run.number
    parts = [
        f"{fmt.count(number('model.num_parameters'))} parameters" if number("model.num_parameters") else "",
        f"{fmt.number(number('layout.num_stages'))} stages × {fmt.number(number('layout.num_replicas'))} replicas"
        if number("layout.num_stages")
        else "",
        peers_of(run),
        f"{len(run.get('layout.sites'))} sites" if len(run.get("layout.sites") or ()) > 1 else "",
        f"boundary {fmt.data(number('model.boundary_bytes'))}, {fmt.number(number('model.compression_ratio'))}× smaller"
        if (number("model.compression_ratio") or 1) > 1
        else "",
        f"{fmt.duration(number('duration_s.total'))}" if number("duration_s.total") else "",
        f"seed {run.get('seed')}" if run.get("seed") is not None else "",
    ]
    return [part for part in parts if part]


def warnings(run: Run) -> list[dict[str, str]]:
    """Return the warnings, printed."""
    keys = ("code", "message", "advice")
    return [{key: str(entry.get(key) or "") for key in keys} for entry in run.items("warnings")]


def contradictions(run: Run) -> list[dict[str, str]]:
    """Return the public figures side by side, each turned into the others' units."""
    return [
        {
            "reading": str(entry.get("reading")),
            "tokens": show("tokens_per_s", entry.get("tokens_per_s")),
            "mfu": fmt.percent(entry.get("mfu")),
            "hours": fmt.number(entry.get("hours"), 1),
            "source": str(entry.get("source") or ""),
            "ours": "yes" if str(entry.get("reading", "")).startswith("this run") else "",
        }
        for entry in run.items("contradictions")
    ]


def baselines(run: Run) -> list[dict[str, str]]:
    """Return this run's speed relative to its own datacenter and to published ones."""
    rows = []
    if run.number("datacenter.relative_speed") is not None:
        rows.append(
            {
                "name": "the same layout, simulated",
                "mfu": fmt.percent(run.number("datacenter.mfu")),
                "share": fmt.percent(run.number("datacenter.relative_speed")),
                "source": str(run.get("datacenter.definition") or ""),
            }
        )
    for entry in run.items("datacenter.published"):
        rows.append(  # noqa: PERF401 - reads like the block above
            {
                "name": str(entry.get("name")),
                "mfu": fmt.percent(entry.get("mfu")),
                "share": fmt.percent(entry.get("relative_speed")),
                "source": str(entry.get("source") or ""),
            }
        )
    return rows


def bandwidth_needed(run: Run) -> list[tuple[str, list[str], list[list[str]]]]:
    """Return a caption, headings and rows per table: the uplink for a share of the datacenter, and of the own best."""
    entries = [e for e in run.items("curve_needed") if isinstance(e.get("share"), int | float)]
    boundaries = list(dict.fromkeys(str(entry.get("boundary")) for entry in entries))
    tables = []
    for key, caption in (
        ("uplink_bps", "Median uplink needed for a share of datacenter speed"),
        ("uplink_bps_of_best", "Median uplink needed for a share of what ample bandwidth gives"),
    ):
        at = {(entry["share"], str(entry.get("boundary"))): entry[key] for entry in entries if key in entry}
        rows = [
            [fmt.percent(share, 0), *(_needed(at, share, boundary) for boundary in boundaries)]
            for share in sorted({share for share, _ in at})
        ]
        if rows:
            tables.append((caption, ["share", *(boundary_label(boundary) for boundary in boundaries)], rows))
    return tables


def slowest_peers(run: Run) -> list[dict[str, str]]:
    """Return the peers with the least MFU."""
    peers = run.table("peers")
    if peers is None or not np.isfinite(peers.numbers("mfu")).any():
        return []
    order = np.argsort(np.nan_to_num(peers.numbers("mfu"), nan=np.inf), kind="stable")[:_SLOWEST]
    up, down, speed = (peers.numbers(name) for name in ("uplink_bps", "downlink_bps", "speed"))
    used, away, mfu = (peers.numbers(name) for name in ("utilisation_up", "down_s", "mfu"))
    return [
        {
            "peer": peers.text("peer")[i],
            "stage": peers.text("stage")[i],
            "site": peers.text("site")[i],
            "uplink": fmt.rate(float(up[i])),
            "downlink": fmt.rate(float(down[i])),
            "speed": fmt.percent(float(speed[i])),
            "used": fmt.percent(float(used[i])),
            "away": fmt.duration(float(away[i])),
            "mfu": fmt.percent(float(mfu[i])),
        }
        for i in order.tolist()
    ]


def ledger(run: Run) -> tuple[list[Line], str]:
    """Return what became of every micro-batch, and the sentence that says whether the account balances."""
    counts = run.get("microbatches")
    created = run.number("microbatches.created")
    if not isinstance(counts, dict) or not created:
        return [], ""
    meaning = {
        "created": "entered the pipeline",
        "applied": "used by an optimizer step on every stage",
        "dropped": "given up",
        "rejected": "refused",
        "in_flight": "still in the pipeline at the end",
        "stale_applied": "among the applied: weights had changed between its forward and its backward pass",
        "redone": "among the applied: tried again after a failed attempt",
        "duplicated": "arrived twice, used once",
        "partially_applied": "among the dropped: later stages had used its gradient",
    }
    lines = []
    for key, words in meaning.items():
        value = run.number(f"microbatches.{key}")
        if value is None:
            continue
        lines.append(Line(key.replace("_", " "), fmt.number(value), f"{fmt.percent(value / created)}: {words}"))
        if key == "dropped" and isinstance(counts.get("dropped_by_reason"), dict):
            lines += [
                Line(f"· {reason}", fmt.number(value), fmt.percent(value / created))
                for reason, value in sorted(counts["dropped_by_reason"].items())
            ]
    staleness = run.number("microbatches.mean_staleness")
    if staleness is not None:
        lines.append(Line("mean staleness", fmt.number(staleness), "optimizer steps between forward and backward pass"))
    parts = {key: run.number(f"microbatches.{key}") or 0.0 for key in ("applied", "dropped", "rejected", "in_flight")}
    sums = " + ".join(fmt.number(value) for value in parts.values())
    balance = f"applied + dropped + rejected + in flight = {sums} = {fmt.number(sum(parts.values()))}"
    if sum(parts.values()) == created:
        return lines, f"The account balances: {balance}, as many as were created."
    return lines, f"THE ACCOUNT DOES NOT BALANCE: {balance}, but {fmt.number(created)} were created."


def cost(run: Run) -> tuple[list[Line], str]:
    """Return the cost table and the sentence that compares with a datacenter."""
    hours = run.number("cost.gpu_hours")
    lines = [
        line(run, "GPUs", "cost.gpu_usd", f"{fmt.number(hours, 0)} GPU-hours" if hours else ""),
        line(run, "traffic", "cost.egress_usd", _priced_traffic(run)),
        line(run, "whole run", "cost.total_usd"),
        line(run, "per million tokens", "cost.usd_per_million_tokens"),
        line(run, "per million tokens, GPUs only", "cost.usd_per_million_tokens_gpu_only"),
        line(run, "per million tokens in a datacenter", "cost.datacenter_usd_per_million_tokens"),
    ]
    lines = [line for line in lines if line.value != fmt.ABSENT]
    ours, theirs = (
        run.number(f"cost.{key}") for key in ("usd_per_million_tokens", "datacenter_usd_per_million_tokens")
    )
    date = run.get("cost.currency_date")
    dated = f" Prices as of {date}." if date else ""
    if not ours or not theirs:
        return lines, dated.strip()
    words = (
        f"{fmt.percent(1 - ours / theirs, 0)} less" if ours < theirs else f"{fmt.percent(ours / theirs - 1, 0)} more"
    )
    prices = f"{fmt.money(ours)} per million tokens against {fmt.money(theirs)}"
    share = run.number("datacenter.relative_speed")
    slower = f", at {fmt.percent(share, 0)} of its speed" if share is not None else ""
    return lines, f"A token costs {words} here than in a datacenter ({prices}){slower}.{dated}"


def assumptions(run: Run) -> list[dict[str, str]]:
    """Return every number of the scenario with where it comes from, the least certain first."""
    order = {kind: place for place, kind in enumerate(KIND_ORDER)}
    rows = [
        {
            "key": str(entry.get("key")),
            "value": show("", entry.get("value")),
            "kind": str(entry.get("kind", "")),
            "source": str(entry.get("source") or ""),
        }
        for entry in run.items("assumptions")
    ]
    return sorted(rows, key=lambda row: order.get(row["kind"], len(order)))


def command(run: Run) -> str:
    """Return the line that makes the run again, or nothing when the manifest has none."""
    line = run.manifest.get("command")
    return shlex.join(map(str, line)) if isinstance(line, list) else str(line or "")


def reproduce(run: Run) -> list[Line]:
    """Return seed, versions and the rest of the manifest, flat."""
    head = [
        Line(key, str(run.summary[key])) for key in ("backend", "seed", "git", "started_at") if run.summary.get(key)
    ]
    taken = {line.label for line in head} | {"command", "wall_s"}
    wall, events = run.number("wall_s"), run.number("engine.events")
    if wall is not None:
        note = (
            f"{fmt.count(events)} events, {fmt.per_second(run.number('engine.events_per_s'), 'event')}"
            if events
            else ""
        )
        head.append(Line("computed in", fmt.duration(wall), note))
    rest = [Line(key, value) for key, value in _flat(run.manifest) if key.split(".")[0] not in taken]
    return [line for line in head + rest if line.value not in ("", "None")]


def _needed(at: dict[tuple[float, str], Any], share: float, boundary: str) -> str:
    if (share, boundary) not in at:
        return fmt.ABSENT
    value = at[share, boundary]
    return "not reached" if value is None else fmt.rate(float(value))


def line(run: Run, label: str, key: str, note: str = "") -> Line:
    """Return a number of the summary as a row."""
    value = run.number(key)
    text = fmt.duration(value) if key.endswith("_gpu_s") else show(key, value)
    return Line(label, text, note)


def _priced_traffic(run: Run) -> str:
    sent, listed = run.number("cost.egress_gb"), run.number("cost.egress_usd_at_list_price")
    text = fmt.data(sent * 1e9) + " sent" if sent is not None else ""
    return f"{text}; {fmt.money(listed)} at the list price of large clouds" if listed is not None else text


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _flat(item, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(value, list):
        yield prefix, ", ".join(map(str, value))
    else:
        yield prefix, str(value)
