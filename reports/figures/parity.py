"""Ours against published figures: a point per case, a small panel of errors per source."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from reports.figures.drawing import WIDTH_IN, Plot, legend_below, look, new_figure, quiet
from reports.palette import INK, MUTED, SERIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MARKERS = "osD^vPX*hp<>"


def draw(outcomes: Sequence[Any]) -> Plot:
    """Draw the outcomes of `orionbed validate`; rows that something was set on are left out."""
    with look():
        figure = new_figure(0.52 * WIDTH_IN)
        parity, errors = figure.subplots(1, 2, width_ratios=(1.0, 1.1))
        _parity(parity, outcomes)
        _errors(errors, outcomes)
        handles, labels = parity.get_legend_handles_labels()
        legend_below(parity, handles, labels, columns=5)
    rows = [
        (outcome.source.name, case.label, case.published, case.predicted, case.error)
        for outcome in outcomes
        for case in outcome.cases
        if not case.calibration
    ]
    return Plot(
        name="parity",
        title="Simulated against published",
        reading="On the left every published figure against ours, on the line where they agree; on the right the "
        "errors of each source, with what is asked of it shaded.",
        figure=figure,
        columns=("source", "case", "published", "predicted", "error"),
        rows=rows,
    )


def _parity(axes: Axes, outcomes: Sequence[Any]) -> None:
    from matplotlib.ticker import NullLocator

    everything = []
    for number, outcome in enumerate(outcomes):
        published = [case.published for case in outcome.cases if not case.calibration]
        predicted = [case.predicted for case in outcome.cases if not case.calibration]
        everything += published + predicted
        axes.plot(
            published, predicted, linestyle="none", markersize=4.5, markeredgewidth=0.0, alpha=0.8,
            marker=_MARKERS[number % len(_MARKERS)], color=SERIES[number % len(SERIES)], label=outcome.source.name,
        )  # fmt: skip
    everything = [value for value in everything if value > 0.0]
    ends = [0.7 * min(everything), 1.4 * max(everything)]
    axes.plot(ends, ends, color=INK, linewidth=0.8)
    axes.set(xscale="log", yscale="log", xlim=ends, ylim=ends, xlabel="published, each in its unit", ylabel="simulated")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.set_minor_locator(NullLocator())
    quiet(axes)


def _errors(axes: Axes, outcomes: Sequence[Any]) -> None:
    for row, outcome in enumerate(reversed(outcomes)):
        errors = [100.0 * case.error for case in outcome.cases if not case.calibration]
        number = len(outcomes) - 1 - row
        if outcome.source.rule != "shown":
            tolerance = 100.0 * outcome.source.tolerance
            axes.barh(row, 2 * tolerance, left=-tolerance, height=0.7, color=MUTED, alpha=0.12, linewidth=0.0)
        axes.plot(
            errors, [row] * len(errors), linestyle="none", markersize=4.5, markeredgewidth=0.0, alpha=0.6,
            marker=_MARKERS[number % len(_MARKERS)], color=SERIES[number % len(SERIES)],
        )  # fmt: skip
    axes.axvline(0.0, color=INK, linewidth=0.8)
    axes.set_yticks(range(len(outcomes)), [outcome.source.name for outcome in reversed(outcomes)])
    axes.set_xlabel("error, %")
    widest = max(abs(case.error) for outcome in outcomes for case in outcome.cases if not case.calibration)
    widest = max(100.0 * widest, *(100.0 * o.source.tolerance for o in outcomes))
    axes.set_xlim(-1.08 * widest, 1.08 * widest)
    quiet(axes)
