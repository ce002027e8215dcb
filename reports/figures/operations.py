"""Predicted against measured time of each operation of a run on hardware."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from reports.figures.drawing import Plot, legend_below, look, new_figure, quiet
from reports.formatting import percent, signed_percent
from reports.palette import BLUE, INK, MUTED, ORANGE, SKY
from reports.predicted import Operation, heaviest, operations
from reports.run_folder import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLUMNS: Final = ("place", "kind", "count", "median_s", "p5_s", "p95_s", "predicted_s", "difference")
_WIDEST_SPREAD: Final = 1.6
"""A spread ends at this multiple of the longest time: one slow operation must not squeeze all others."""


def draw(run: Run) -> Plot | None:
    """Draw measured medians with their spread, beside what was predicted; None when no operation was measured."""
    found = operations(run)
    if not found:
        return None
    shown = heaviest(found)
    is_predicted = any(one.predicted_s for one in shown)
    limit_s = _WIDEST_SPREAD * max(max(one.median_s, one.predicted_s or 0.0) for one in shown)
    scale, unit = (1e3, "ms") if limit_s < 10 else (1.0, "s")
    with look():
        figure = new_figure(max(2.0, 0.25 * len(shown) + 1.1))
        axes = figure.add_subplot()
        _bars(axes, shown, limit_s, scale)
        axes.set_yticks(range(len(shown)), _labels(shown))
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.set_xlim(0, 1.05 * axes.get_xlim()[1])
        axes.set_xlabel(f"{unit} of one operation")
        quiet(axes, grid="x")
        for tick in axes.get_yticklabels():
            tick.set_color(INK)
        handles, labels = axes.get_legend_handles_labels()
        legend_below(axes, handles, labels)
    rows = [
        (one.place, one.kind, one.count, one.median_s, one.p5_s, one.p95_s, one.predicted_s, one.difference)
        for one in found
    ]
    title = "Predicted and measured time of operations" if is_predicted else "Measured time of operations"
    return Plot("operations", title, _reading(shown, is_cut=_is_cut(shown, limit_s)), figure, _COLUMNS, rows)


def _bars(axes: Axes, shown: Sequence[Operation], limit_s: float, scale: float) -> None:
    spreads = [(row, one.p5_s or one.median_s, one.p95_s) for row, one in enumerate(shown) if one.p95_s is not None]
    if spreads:
        rows, low, high = (list(values) for values in zip(*spreads, strict=True))
        axes.hlines(
            rows, [s * scale for s in low], [min(s, limit_s) * scale for s in high], color=SKY, linewidth=5.0,
            alpha=0.55, label="5 % to 95 %",
        )  # fmt: skip
        cut = [row for row, _, high_s in spreads if high_s > limit_s]
        axes.plot([limit_s * scale] * len(cut), cut, linestyle="none", marker=">", markersize=5.0, color=SKY)
    both = [(row, one) for row, one in enumerate(shown) if one.predicted_s]
    for row, one in both:
        axes.hlines(row, one.median_s * scale, (one.predicted_s or 0.0) * scale, color=MUTED, linewidth=1.2)
    axes.plot(
        [one.median_s * scale for one in shown], range(len(shown)), linestyle="none", marker="o", markersize=6.0,
        zorder=4, color=BLUE, markeredgecolor="white", markeredgewidth=0.6, label="measured, median",
    )  # fmt: skip
    if both:
        axes.plot(
            [(one.predicted_s or 0.0) * scale for _, one in both], [row for row, _ in both], linestyle="none",
            marker="D", markersize=6.5, zorder=3, markerfacecolor="white", markeredgecolor=ORANGE, markeredgewidth=1.6,
            label="predicted",
        )  # fmt: skip
    for row, one in both:
        end_s = max(one.median_s, one.predicted_s or 0.0, min(one.p95_s or 0.0, limit_s))
        axes.annotate(
            signed_percent(one.difference, 0), (end_s * scale, row), xytext=(9, 0), textcoords="offset points",
            va="center", color=INK,
        )  # fmt: skip


def _labels(shown: Sequence[Operation]) -> list[str]:
    return [f"{one.label}, {one.place}" for one in shown]


def _is_cut(shown: Sequence[Operation], limit_s: float) -> bool:
    return any((one.p95_s or 0.0) > limit_s for one in shown)


def _reading(shown: Sequence[Operation], *, is_cut: bool) -> str:
    text = "Each row is one kind of operation: the dot is the median of those measured, the band most of them"
    both = [one for one in shown if one.difference is not None]
    if both:
        near = sum(abs(one.difference or 0.0) <= 0.1 for one in both)
        text += (
            f", the diamond what the profile predicts; {near} of {len(both)} medians lie within {percent(0.1, 0)} of it"
        )
    return f"{text}. Bands that end in an arrow go on beyond the figure." if is_cut else f"{text}."
