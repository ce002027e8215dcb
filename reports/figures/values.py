"""What each peer adds to a run: a dot and its interval, on the right of nothing or on the left."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from reports.figures.drawing import Plot, look, new_figure, quiet
from reports.palette import BLUE, INK, MUTED, VERMILLION
from reports.quantities import show_difference

_STYLES: Final = {"higher": (BLUE, "o", BLUE), "lower": (VERMILLION, "X", VERMILLION)}
_UNCLEAR: Final = (MUTED, "o", "white")


def draw(result: Mapping[str, Any]) -> Plot:
    """Draw the values in their order: filled where the run is faster, a cross where slower, hollow where not clear."""
    found = result["values"]
    rows = []
    with look():
        figure = new_figure(0.9 + 0.24 * len(found))
        axes = figure.add_subplot()
        for place, one in enumerate(found):
            change = one["tokens_per_s"]["difference"]
            colour, marker, face = _STYLES.get(change["verdict"], _UNCLEAR)
            if change["low"] is not None:
                axes.hlines(place, change["low"], change["high"], color=colour, linewidth=1.4)
            axes.plot(
                [change["mean"]], [place], marker=marker, color=colour, markerfacecolor=face, markersize=5.5,
                linestyle="none",
            )  # fmt: skip
            rows.append((one["name"], change["mean"], change["low"], change["high"], one["verdict"]))
        axes.axvline(0.0, color=INK, linewidth=0.8)
        axes.set_yticks(range(len(found)), [one["name"] for one in found])
        axes.set_ylim(len(found) - 0.4, -0.6)
        axes.xaxis.set_major_formatter(lambda value, _: show_difference("tokens_per_s", value) if value else "0")
        axes.set_xlabel("tokens/s with it minus without it; dot: mean, line: 95 % interval")
        quiet(axes, grid="x")
        for tick in axes.get_yticklabels():
            tick.set_color(INK)
    columns = (result["by"], "tokens_per_s", "low", "high", "verdict")
    return Plot("values", f"What each {result['by']} adds", _READING, figure, columns, rows)


_READING: Final = (
    "Filled dots make the run faster, crosses make it slower; what is hollow cannot be told from chance with so many "
    "seeds."
)
