"""The scores of a routing contest: a bar per router, a dot per seed."""

from __future__ import annotations

from collections.abc import Sequence

from orionbed.contest.scoring import Standing
from reports.figures.drawing import Plot, look, new_figure, quiet
from reports.formatting import percent
from reports.palette import BLUE, INK, LINE, MUTED, SKY


def draw(standings: Sequence[Standing], title: str) -> Plot:
    """Draw the median score of each router, the range over its seeds and every seed, the best router first."""
    ranked = sorted(standings, key=lambda standing: -standing.score)
    with look():
        figure = new_figure(0.42 * len(ranked) + 1.1)
        axes = figure.add_subplot()
        for y, standing in enumerate(ranked):
            low, high = standing.spread
            axes.barh(y, standing.score, height=0.56, color=SKY)
            axes.plot([low, high], [y, y], color=INK, linewidth=1)
            axes.plot(
                standing.scores, [y] * len(standing.scores), marker="o", markersize=4, color=BLUE, linestyle="none"
            )
            axes.annotate(
                f"{standing.score:.2f}", (max(high, standing.score, 0.0), y), xytext=(8, 0),
                textcoords="offset points", va="center", color=INK,
            )  # fmt: skip
        axes.axvline(0, color=MUTED, linewidth=1)
        axes.axvline(1, color=LINE, linewidth=1, linestyle=(0, (4, 2)))
        axes.set_yticks(range(len(ranked)), [standing.router for standing in ranked])
        axes.set_ylim(len(ranked) - 0.4, -0.6)
        axes.set_xlim(right=1.04)
        axes.set_xlabel("score: 0 is the random router, 1 what none can reach; bar: median, dots: seeds")
        axes.set_title(title, loc="left")
        quiet(axes, grid="x")
        for tick in axes.get_yticklabels():
            tick.set_color(INK)
    best = ranked[0]
    reading = (
        f"The best router is {best.router}: its median score is {best.score:.2f}, its speed {percent(best.of_ceiling)} "
        "of what no router can pass."
    )
    rows = [(s.router, run.seed, score) for s in ranked for run, score in zip(s.seeds, s.scores, strict=True)]
    return Plot("contest", title, reading, figure, ("router", "seed", "score"), rows)
