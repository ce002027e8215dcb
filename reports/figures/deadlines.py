"""Deadlines on the same arrivals: what each rule waits against whom it cuts off."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reports.figures.drawing import WIDTH_IN, Plot, legend_below, logarithmic, look, new_figure, quiet
from reports.palette import INK, SERIES

TWO_DECADES_S = 5000.0
_MARKERS = {"all": "*", "fixed": "o", "mad": "s", "quorum-grace": "^", "relaxing-quorum": "D"}


def draw(rows: Sequence[dict[str, Any]]) -> Plot:
    """Draw the deadline lab's rows, a panel for each set of arrivals; a line joins rules that no other one beats."""
    from matplotlib.ticker import LogLocator

    names = list(dict.fromkeys(row["arrivals"] for row in rows))
    with look():
        figure = new_figure(0.36 * WIDTH_IN)
        panels = figure.subplots(1, len(names), squeeze=False)[0]
        for axes, name in zip(panels, names, strict=True):
            for place, (family, marker) in enumerate(_MARKERS.items()):
                points = [row for row in rows if row["arrivals"] == name and row["family"] == family]
                axes.plot(
                    [row["wait_s"] for row in points], [100.0 * row["cut_off"] for row in points], linestyle="none",
                    marker=marker, markersize=5.5, alpha=0.8, color=SERIES[place % len(SERIES)], label=family,
                )  # fmt: skip
            best = sorted(
                (row["wait_s"], 100.0 * row["cut_off"]) for row in rows if row["arrivals"] == name and row["best"]
            )
            axes.plot([x for x, _ in best], [y for _, y in best], color=INK, linewidth=0.7, alpha=0.6)
            logarithmic(axes)
            if max(row["wait_s"] for row in rows if row["arrivals"] == name) > TWO_DECADES_S:
                axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
            axes.set_xlabel("mean wait, s")
            axes.set_title(name, loc="left", fontsize=9.5)
            quiet(axes, grid="y")
        panels[0].set_ylabel("cut off, % of the peers")
        handles, labels = panels[0].get_legend_handles_labels()
        legend_below(panels[0], handles, labels, columns=5)
    return Plot(
        name="deadlines",
        title="Deadlines",
        reading="Each point is a rule: to the left it waits less, below it cuts off fewer peers. The line joins the "
        "rules that no other one beats in both.",
        figure=figure,
        columns=tuple(rows[0]),
        rows=[tuple(row.values()) for row in rows],
    )
