"""Ways to merge: MFU by interval, bytes per peer, and what failures cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from reports.figures.drawing import Plot, legend_below, logarithmic, look, new_figure, quiet
from reports.palette import SERIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Row = dict[str, Any]


def draw(rows: Sequence[Row]) -> Plot:
    """Draw the merging lab's table: MFU by algorithm and interval, gigabytes on the wire, coverage under failures."""
    names = list(dict.fromkeys(row["algorithm"] for row in rows))
    calm = min(row["failure"] for row in rows)
    with look():
        figure = new_figure(0.9 + 0.32 * len(names))
        speed, size, left = figure.subplots(1, 3, sharey=True, width_ratios=(1.4, 1.0, 1.0))
        _bars(speed, rows, names, calm)
        _bytes(size, rows, names)
        _coverage(left, rows, names)
        speed.set_yticks(range(len(names)), names)
        speed.invert_yaxis()
        handles, labels = speed.get_legend_handles_labels()
        more, also = left.get_legend_handles_labels()
        legend_below(speed, [*handles, *more], [*labels, *also], columns=6)
    return Plot(
        name="merges",
        title="Ways to merge",
        reading="MFU with merges at each interval, what a peer sends per merge, and the share of a stage's weights "
        "that a merge averages when peers fall silent. What it does to the loss is not here.",
        figure=figure,
        columns=tuple(rows[0]),
        rows=[tuple(row.values()) for row in rows],
    )


def _bars(axes: Axes, rows: Sequence[Row], names: Sequence[str], calm: float) -> None:
    intervals = sorted({row["every_s"] for row in rows})
    height = 0.8 / len(intervals)
    for place, every_s in enumerate(intervals):
        found = {row["algorithm"]: row for row in rows if row["every_s"] == every_s and row["failure"] == calm}
        at = [names.index(name) + (place - (len(intervals) - 1) / 2) * height for name in found]
        values = [100.0 * row["mfu_with_merges"] for row in found.values()]
        axes.barh(at, values, 0.9 * height, color=SERIES[place % len(SERIES)], label=f"every {every_s / 60:g} min")
    axes.set_xlabel("MFU with merges, %")
    quiet(axes, grid="x")


def _bytes(axes: Axes, rows: Sequence[Row], names: Sequence[str]) -> None:
    first = {row["algorithm"]: row for row in reversed(rows)}
    up = [max(1e-3, first[name]["bytes_up"] / 1e9) for name in names]
    axes.plot(up, range(len(names)), linestyle="none", marker="o", markersize=5, color=SERIES[3], label="bytes up")
    from matplotlib.ticker import LogLocator

    logarithmic(axes)
    axes.set_xlim(0.5 * min(up), 2.0 * max(up))
    if max(up) > 100.0 * min(up):
        axes.xaxis.set_major_locator(LogLocator())
    axes.set_xlabel("GB up per peer and merge")
    quiet(axes, grid="x")


def _coverage(axes: Axes, rows: Sequence[Row], names: Sequence[str]) -> None:
    chances = sorted({row["failure"] for row in rows})
    for place, chance in enumerate(chances):
        points = [
            (100.0 * row["covered"], names.index(row["algorithm"]))
            for row in rows
            if row["failure"] == chance and row["covered"] is not None
        ]
        if points:
            axes.plot(
                [x for x, _ in points], [y for _, y in points], linestyle="none", markersize=5, alpha=0.8,
                marker="osD^v"[place % 5], color=SERIES[(4 + place) % len(SERIES)], label=f"silent with {chance:g}",
            )  # fmt: skip
    axes.set_xlim(-3, 103)
    axes.set_xlabel("averaged, % of the weights")
    quiet(axes, grid="x")
