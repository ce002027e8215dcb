"""Loss curves of the cases of a sweep that trained, with the spread over the seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from typing import TYPE_CHECKING, Any, Final

from reports.figures.drawing import DASHES, Plot, look, new_figure, quiet
from reports.palette import INK, SERIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_LINES: Final = 7
_COLUMNS: Final = 2
_FIRST: Final = 0.1
"""What comes before this share of the tokens falls so steeply that it would flatten all that matters."""


def draw(result: Mapping[str, Any]) -> Plot | None:
    """Draw mean losses against tokens, a line per case and a band from the least to the greatest seed.

    None where nothing was learned. Two axes, or more cases than can be told apart, make several panels.
    """
    if not any(curve for curves in result.get("curves", ()) for curve in curves):
        return None
    panels = _panels(result)
    height_in = 2.9 * ceil(len(panels) / _COLUMNS) if len(panels) > 1 else 3.6
    with look():
        figure = new_figure(height_in)
        columns = min(_COLUMNS, len(panels))
        grid = figure.subplots(ceil(len(panels) / columns), columns, squeeze=False, sharey=True)
        for axes, (title, cases) in zip(grid.flat, panels, strict=False):
            for index, (name, curves) in enumerate(cases):
                _line(axes, name, curves, index)
            axes.set_title(title, loc="left", fontsize=9)
            axes.set_xlabel("million tokens learned from")
            axes.set_ylabel("loss, nats a token")
            if axes.lines:
                axes.legend(loc="upper right")
            quiet(axes, grid="y")
        for axes in grid.flat[len(panels) :]:
            axes.set_visible(False)
    return Plot("curves", "Loss while training", _reading(result), figure, *_data(result))


_Panel = tuple[str, list[tuple[str, Sequence[Any]]]]


def _panels(result: Mapping[str, Any]) -> list[_Panel]:
    """Return the panels: title, and the name and curves of each case in it; the first case stands in all of them."""
    curves = result["curves"]
    labels = [case["labels"] for case in result["cases"]]
    if len(result["axes"]) == 2:
        first = result["axes"][0]
        return [
            (
                f"{first['name']} {value}",
                [(label[1], each) for label, each in zip(labels, curves, strict=True) if label[0] == value],
            )
            for value in first["values"]
        ]
    named = [(label[0], each) for label, each in zip(labels, curves, strict=True)]
    if len(named) <= _MOST_LINES:
        return [("", named)]
    reference, others = named[0], named[1:]
    per_panel = ceil(len(others) / ceil(len(others) / (_MOST_LINES - 1)))
    return [("", [reference, *others[at : at + per_panel]]) for at in range(0, len(others), per_panel)]


def _line(axes: Axes, name: str, curves: Sequence[Any], index: int) -> None:
    import numpy as np

    length = min(len(curve) for curve in curves)
    if not length:
        return  # a run that was aborted before it had learned anything
    tokens = np.array([point[0] for point in curves[0][:length]]) / 1e6
    # None, of a training that has diverged, becomes NaN, which is not drawn.
    losses = np.array([[point[1] for point in curve[:length]] for curve in curves], dtype=np.float64)
    shown = tokens >= _FIRST * tokens[-1]
    colour = INK if index == 0 else SERIES[(index - 1) % len(SERIES)]
    least, greatest = losses.min(axis=0), losses.max(axis=0)
    axes.fill_between(tokens[shown], least[shown], greatest[shown], color=colour, alpha=0.16, linewidth=0)
    dashes = DASHES[index % len(DASHES)]
    axes.plot(tokens[shown], losses.mean(axis=0)[shown], color=colour, linewidth=1.6, linestyle=dashes, label=name)


def _reading(result: Mapping[str, Any]) -> str:
    count = len(result["seeds"])
    seeds = f"{count} seeds; bands reach from the least to the greatest" if count > 1 else "one seed"
    return f"Training losses, each point the mean since the one before, without the first tenth; means over {seeds}."


def _data(result: Mapping[str, Any]) -> tuple[Sequence[str], list[Sequence[Any]]]:
    columns = (*(axis["name"] for axis in result["axes"]), "seed", "tokens", "loss")
    rows: list[Sequence[Any]] = [
        (*case["labels"], seed, *point)
        for case, curves in zip(result["cases"], result["curves"], strict=True)
        for seed, curve in zip(result["seeds"], curves, strict=True)
        for point in curve
    ]
    return columns, rows
