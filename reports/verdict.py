"""The one sentence a reader takes away, and the eight numbers under it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from reports import formatting as fmt
from reports.figures import bands
from reports.figures.waterfall import largest_losses
from reports.palette import cause_phrase
from reports.quantities import AVERAGES, label, show
from reports.run_folder import Run

KINDS: Final = {
    "predicted": "the model had to get it right by itself",
    "fitted": "an assumption was chosen to meet it",
    "input": "it went into the scenario",
}
"""What each kind of comparison with a published number is worth."""

_AVERAGES: Final = ("wall_clock", "with_merges", "in_phase")
"""Which average stands for a quantity: the one that leaves nothing out, as the waterfall and the cost do."""


@dataclass(frozen=True)
class Published:
    """A published number beside ours."""

    text: str
    error: str
    kind: str
    source: str


@dataclass(frozen=True)
class Tile:
    """One of the eight numbers: words, value, what belongs to it, published figures beside it, the draws' band."""

    label: str
    value: str
    notes: Sequence[str] = ()
    published: Sequence[Published] = field(default_factory=list)
    band: str = ""


def first_present(run: Run, group: str) -> str:
    """Return the key of the most complete average of a group that the summary has; the wall clock's when none has."""
    keys = [f"{group}.{average}" for average in _AVERAGES]
    return next((key for key in keys if run.number(key) is not None), keys[0])


def gpu_name(run: Run) -> str:
    """Return the GPU as it is written on its data sheet; `mixed` where there are several."""
    if len(run.get("layout.gpus") or ()) > 1:
        return "mixed"
    per_peer = int(run.number("layout.gpus_per_peer") or 1)
    name = str(run.get("layout.gpu") or "GPU").upper()
    return name if per_peer == 1 else f"{per_peer}x{name}"


def device_name(run: Run) -> str:
    """Return what a run on hardware ran on, as the device calls itself; `CPU` or `GPU` where it did not say."""
    several = run.get("real.devices")
    told = [run.get("real.device.name"), *(several if isinstance(several, list) else [])]
    names = dict.fromkeys(re.sub(r"\((?:R|TM)\)|\bCPU\b", "", str(name)) for name in told if name)
    tidy = dict.fromkeys(" ".join(name.split()) for name in names)
    return " and ".join(tidy) or str(run.get("real.device_kind") or "device").upper().replace("CUDA", "GPU")


def peers_of(run: Run) -> str:
    """Return how many peers of what kind the run had, in small print; nothing when it does not say."""
    count = run.number("layout.num_peers")
    if not count:
        return ""
    kinds = run.get("layout.gpus") or {}
    if len(kinds) > 1:
        return ", ".join(f"{fmt.number(float(number))} × {str(name).upper()}" for name, number in kinds.items())
    if run.block != "real":
        return f"{fmt.number(count)} × {gpu_name(run)}"
    if run.get("real.device_kind") == "cuda":
        return f"{fmt.number(count)} × {device_name(run)}"
    return f"{fmt.number(count)} processes on {device_name(run)}"


def sentence(run: Run) -> str:
    """Return the verdict, computed from the numbers; parts whose numbers are missing are left out."""
    where, mfu = _where(run), run.number(first_present(run, "mfu"))
    if run.is_void:
        where = f"VOID, no result: {where[0].lower()}{where[1:]}"
    text = f"{where} this model trains at {fmt.percent(mfu)} MFU"
    share = run.number("datacenter.relative_speed")
    if share is not None:
        text += f", {fmt.percent(share, 0)} of the speed of the same layout in a datacenter"
    largest, outside = largest_losses(run)
    if largest:
        text += f"; the largest loss is {cause_phrase(largest.cause)} ({fmt.percent(largest.fraction)} of the peak)"
    if largest and outside and largest.cause != outside.cause:
        text += (
            f", and outside the GPUs’ own work it is {cause_phrase(outside.cause)} ({fmt.percent(outside.fraction)})"
        )
    return text + "."


def tiles(run: Run) -> list[Tile]:
    """Return the eight numbers; one that the run does not have shows a dash."""
    window = run.number("mfu.peak_window_s")
    hours = [
        f"{fmt.duration(run.number(f'duration_s.{key}'))} {words}"
        for key, words in (("training", "training"), ("merging", "merging"), ("startup", "starting up"))
        if run.number(f"duration_s.{key}")
    ]
    baseline = run.number("datacenter.mfu")
    egress, gpus = run.number("cost.egress_usd"), run.number("cost.gpu_usd")
    return [
        _averaged(run, "average MFU", "mfu"),
        _single(
            run, f"peak MFU, best {fmt.duration(window)}" if window else "peak MFU", "mfu.peak_sustained",
            _at(run.number("mfu.peak_start_s")), more=("mfu.peak_with_merges",),
        ),
        _averaged(run, "tokens per second", "tokens.per_s", _tokens(run)),
        _single(
            run, "share of datacenter speed", "datacenter.relative_speed",
            [f"datacenter: {fmt.percent(baseline)} MFU"] if baseline is not None else [],
        ),
        _single(run, "run time", "duration_s.total", hours),
        _averaged(run, "HFU, counting recompute", "hfu"),
        _single(
            run, "per million tokens", "cost.usd_per_million_tokens",
            [f"{fmt.money(gpus)} GPUs + {fmt.money(egress)} traffic"] if gpus is not None else [],
            more=("cost.usd_per_million_tokens_gpu_only", "cost.total_usd"),
        ),
        _single(
            run, "micro-batches applied", "microbatches.applied_share",
            [f"{fmt.number(run.number('microbatches.applied'))} of {fmt.number(run.number('microbatches.created'))}"],
            more=("microbatches.applied", "microbatches.created"),
        ),
    ]  # fmt: skip


def published_rows(run: Run) -> list[dict[str, str]]:
    """Return the table of published numbers beside ours, printed."""
    rows = []
    for entry in run.items("published"):
        key = str(entry.get("quantity"))
        rows.append(
            {
                "quantity": label(key),
                "key": key,
                "published": show(key, entry.get("published")),
                "ours": show(key, entry.get("ours")),
                "error": _error(entry),
                "kind": str(entry.get("kind", "")),
                "meaning": KINDS.get(str(entry.get("kind", "")), ""),
                "source": str(entry.get("source") or ""),
                "note": "" if entry.get("note") == label(key) else str(entry.get("note") or ""),
            }
        )
    return rows


def _where(run: Run) -> str:
    peers = run.number("layout.num_peers")
    if not peers:
        return "In this run"
    if run.block != "real":
        return f"On {fmt.number(peers)} {gpu_name(run)} peers joined by the internet"
    machines = run.number("real.num_nodes") or 1
    apart = f", on {fmt.number(machines)} machines," if machines > 1 else ""
    if run.get("real.device_kind") == "cuda":
        return f"Measured on {peers_of(run)}{apart}"
    return f"Measured with {peers_of(run)}{apart}"


def _averaged(run: Run, words: str, group: str, notes: Sequence[str] = ()) -> Tile:
    """A quantity with three averages: the most complete is the number, the others are notes."""
    key = first_present(run, group)
    others = [f"{group}.{average}" for average in reversed(_AVERAGES) if f"{group}.{average}" != key]
    also = [
        f"{show(other, run.number(other))} {AVERAGES[other.rpartition('.')[2]]}"
        for other in others
        if run.number(other) is not None
    ]
    average = AVERAGES[key.rpartition(".")[2]]
    return _single(run, f"{words}, {average}", key, [*also, *notes], more=others)


def _single(run: Run, words: str, key: str, notes: Sequence[str] = (), more: Sequence[str] = ()) -> Tile:
    band = bands.for_quantity(run, key)
    text = (
        f"{show(key, band[0])} to {show(key, band[2])} in 90\u00a0% of draws, median {show(key, band[1])}"
        if band
        else ""
    )
    published = [
        _published(entry, plain=entry.get("quantity") == key)
        for quantity in (key, *more)
        for entry in run.items("published")
        if entry.get("quantity") == quantity
    ]
    return Tile(words, show(key, run.number(key)), list(notes), published, text)


def _published(entry: dict[str, Any], *, plain: bool) -> Published:
    key = str(entry.get("quantity"))
    text = f"published {show(key, entry.get('published'))}"
    if not plain:
        text += f" ({AVERAGES.get(key.rpartition('.')[2], label(key))}; here {show(key, entry.get('ours'))})"
    return Published(text, _error(entry), str(entry.get("kind", "")), str(entry.get("source") or ""))


def _error(entry: dict[str, Any]) -> str:
    error = entry.get("error")
    return fmt.signed_percent(error) if isinstance(error, int | float) else fmt.ABSENT


def _at(start_s: float | None) -> list[str]:
    return [] if start_s is None else [f"starts after {fmt.duration(start_s)}"]


def _tokens(run: Run) -> list[str]:
    total = run.number("tokens.total")
    return [] if total is None else [f"{fmt.count(total)} tokens in all"]
