"""How much of a datacenter's speed is left at which uplink, with and without compressed boundaries."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np

from reports.figures.drawing import Plot, logarithmic, look, new_figure, quiet
from reports.formatting import percent, rate
from reports.palette import INK, LINE, MUTED, ORANGE, SERIES
from reports.run_folder import Run

UNCOMPRESSED: Final = "none"
_COLOURS: Final = {UNCOMPRESSED: ORANGE}


def boundary_label(boundary: str) -> str:
    """Return the words for a kind of stage boundary."""
    names = {UNCOMPRESSED: "uncompressed", "resbm": "ResBM", "quantize": "quantised", "topk": "top-k"}
    return f"{names.get(boundary, boundary)} boundaries"


def curves(run: Run) -> dict[str, list[tuple[float, float]]]:
    """Return (uplink in bit/s, share of datacenter speed) by kind of boundary, in rising order of the uplink."""
    table = run.table("curve")
    if table is None:
        return {}
    found: dict[str, list[tuple[float, float]]] = {}
    for boundary, uplink, share in zip(
        table.text("boundary"), table.numbers("uplink_bps"), table.numbers("relative_speed"), strict=True
    ):
        if uplink > 0 and np.isfinite(share):
            found.setdefault(boundary, []).append((float(uplink), float(share)))
    return {boundary: sorted(points) for boundary, points in sorted(found.items())}


def draw(run: Run) -> Plot | None:
    """Draw a curve per kind of boundary, or return None when the run has none."""
    found = curves(run)
    if not found:
        return None
    with look():
        figure = new_figure(3.3)
        axes = figure.add_subplot()
        spare = iter(SERIES)
        for boundary, points in found.items():
            colour = _COLOURS.get(boundary) or next(c for c in spare if c not in _COLOURS.values())
            x, y = np.array(points).T
            axes.plot(x / 1e6, y, color=colour, linewidth=2, marker="o", markersize=3.5)
            axes.annotate(
                boundary_label(boundary), (x[-1] / 1e6, y[-1]), xytext=(6, 0), textcoords="offset points",
                va="center", color=INK, annotation_clip=False,
            )  # fmt: skip
        _separate_labels(axes.texts)
        median = median_uplink(run)
        if median:
            axes.axvline(median / 1e6, color=LINE, linewidth=1, linestyle=(0, (4, 2)))
            axes.annotate(
                f"this run’s median, {rate(median)}", (median / 1e6, 0.02), xytext=(4, 0),
                xycoords=("data", "axes fraction"), textcoords="offset points", color=MUTED,
            )  # fmt: skip
        logarithmic(axes)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value * 100:.0f} %")
        axes.set_ylim(bottom=0)
        axes.set_xlabel("median uplink, Mbit/s (logarithmic)")
        axes.set_ylabel("share of datacenter speed")
        quiet(axes, grid="y")
    rows = [(boundary, x, y) for boundary, points in found.items() for x, y in points]
    columns = ("boundary", "uplink_bps", "relative_speed")
    return Plot("bandwidth", "How much bandwidth it needs", _reading(run), figure, columns, rows)


def median_uplink(run: Run) -> float | None:
    """Return the median uplink of the run's peers in bit/s, or None."""
    peers = run.table("peers")
    if peers is None:
        return None
    uplinks = peers.numbers("uplink_bps")
    return float(np.nanmedian(uplinks)) if np.isfinite(uplinks).any() else None


def _separate_labels(texts: Iterable[object]) -> None:
    """Curves that end close together get their labels one above the other."""
    from matplotlib.text import Annotation

    labels = sorted((t for t in texts if isinstance(t, Annotation)), key=lambda t: float(t.xy[1]))
    for i, label in enumerate(labels[1:], start=1):
        if float(label.xy[1]) - float(labels[i - 1].xy[1]) < 0.06:
            label.set_position((6, float(labels[i - 1].get_position()[1]) + 10))


def _reading(run: Run) -> str:
    found = curves(run)
    text = "Each curve says what share of a datacenter’s speed is left at a median uplink"
    ends = {boundary: points[-1][1] for boundary, points in found.items()}
    needed = {
        (str(entry.get("boundary")), float(entry["share"])): entry.get("uplink_bps")
        for entry in run.items("curve_needed")
        if isinstance(entry.get("share"), int | float)
    }
    for share in (0.9, 0.75, 0.5):
        at = {boundary: needed.get((boundary, share)) for boundary in found}
        plain = at.get(UNCOMPRESSED)
        packed = next(((b, v) for b, v in at.items() if b != UNCOMPRESSED and v), None)
        if packed and plain:
            needs = f"{boundary_label(packed[0])} need {rate(packed[1])}, uncompressed ones {rate(plain)}"
            return f"{text}: for {percent(share, 0)} {needs}."
        if packed:
            missing = "; uncompressed ones do not get there in this range" if UNCOMPRESSED in found else ""
            return f"{text}: for {percent(share, 0)} {boundary_label(packed[0])} need {rate(packed[1])}{missing}."
    best = max(ends, key=lambda boundary: ends[boundary])
    return f"{text}: the most reached here is {percent(ends[best])} ({boundary_label(best)})."
