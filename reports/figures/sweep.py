"""A sweep: each measure against what was varied, with the spread over the seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any, Final

from reports.figures.drawing import DASHES, Plot, look, new_figure, quiet
from reports.palette import INK, MUTED, SERIES, WORK_COLOURS
from reports.quantities import is_fraction, label, show, show_difference

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PALE: Final = WORK_COLOURS["F"]
_MARKERS: Final = "osD^vPX"
_LOGARITHMIC: Final = 10.0
"""Values that differ by more than this factor stand on a logarithmic axis."""
_FEW: Final = 8
_ROOM: Final = 36
"""Letters that values below an axis may have together to stand beside one another."""
_BAR: Final = 0.62
_PANEL_PT: Final = 150.0
_LINE_PT: Final = 9.5
"""About how high a panel is, and a line of small text."""


@dataclass(frozen=True)
class _Series:
    """The cases that share a value on the second axis: their places along the first, and their results."""

    name: str
    places: Sequence[int]
    cases: Sequence[Mapping[str, Any]]


def draw(result: Mapping[str, Any]) -> Plot:
    """Draw a panel per measure: lines along numbers, bars for single cases that have names, points for two axes.

    Where every seed draws the uncertain inputs, spreads of single cases say little: what each changes is drawn instead.
    """
    measures, along, across, series = result["measures"], *_arranged(result)
    bars = along["numbers"] is None and len(series) == 1
    columns = 1 if len(measures) == 1 else 2
    height_in = 0.8 + 0.3 * len(along["values"]) if bars else 2.9
    with look():
        figure = new_figure(height_in * ceil(len(measures) / columns))
        panels = list(figure.subplots(ceil(len(measures) / columns), columns, squeeze=False).flat)
        for axes, key in zip(panels, measures, strict=False):
            if bars and result["draws"] and len(result["seeds"]) > 1:
                _differences(axes, key, along, series[0])
            elif bars:
                _bars(axes, key, along, series[0])
            else:
                _lines(axes, key, along, series)
                axes.set_xlabel(along["name"] + (f"   (lines: {across})" if across else ""))
            axes.set_title(label(key), loc="left", fontsize=9)
        for axes in panels[len(measures) :]:
            axes.set_visible(False)
    return Plot("sweep", result["title"] or result["name"], reading(result), figure, *_data(result))


def reading(result: Mapping[str, Any]) -> str:
    """Return the sentences that say how to read a sweep's figure."""
    count = len(result["seeds"])
    seeds = f"{count} seeds, the same for every case" if count > 1 else "one seed, so nothing is known of chance"
    if count > 1 and result["draws"] and len(result["axes"]) == 1:
        return (
            f"Mean differences to the first case over {seeds}, each with its own draw of what is not known; whiskers "
            "are 95 % intervals of the pairs. Hollow: not distinguishable, or does not fit."
        )
    text = f"Means over {seeds}"
    text += "; bands and whiskers reach from the least to the greatest of them." if count > 1 else "."
    if any(case["misfit"] for case in result["cases"]):
        text += " Hollow: does not fit the memory of its GPUs."
    if any(case["aborted"] for case in result["cases"]):
        text += " Cases with runs that ended early are marked in the table."
    return text


def _arranged(result: Mapping[str, Any]) -> tuple[Mapping[str, Any], str, list[_Series]]:
    """The axis along which is drawn, the numeric one of two if there is one; what lies across it, and the series."""
    axes = result["axes"]
    number = next((index for index, axis in enumerate(axes) if axis["numbers"] is not None), 0)
    along = axes[number]
    if len(axes) == 1:
        return along, "", [_Series("", range(len(result["cases"])), result["cases"])]
    across = axes[1 - number]
    found = []
    for name in across["values"]:
        mine = [case for case in result["cases"] if case["labels"][1 - number] == name]
        places = [along["values"].index(case["labels"][number]) for case in mine]
        found.append(_Series(name, places, mine))
    return along, str(across["name"]), found


def _lines(axes: Axes, key: str, along: Mapping[str, Any], series: Sequence[_Series]) -> None:
    numeric = along["numbers"] is not None
    positions = along["numbers"] if numeric else range(len(along["values"]))
    for index, one in enumerate(series):
        _line(axes, key, one, [positions[place] for place in one.places], index, numeric=numeric)
    if numeric and min(positions) > 0.0 and max(positions) > _LOGARITHMIC * min(positions):
        axes.set_xscale("log")
    crowded = len(positions) > _FEW or sum(map(len, along["values"])) > _ROOM
    axes.set_xticks(list(positions), along["values"], rotation=45 if crowded else 0)
    axes.xaxis.minorticks_off()
    axes.margins(x=0.07, y=0.16)
    axes.set_ylim(bottom=max(0.0, axes.get_ylim()[0]) if _all_positive(key, series) else None)
    axes.yaxis.set_major_formatter(lambda value, _: show(key, value))
    _separate(axes, [text for text in axes.texts if text.get_horizontalalignment() == "left"])
    quiet(axes, grid="y")


def _separate(axes: Axes, texts: Sequence[Any]) -> None:
    """Names of lines that end close together stand one above the other."""
    bottom, top = axes.get_ylim()
    height = 0.0
    for text in sorted(texts, key=lambda text: float(text.xy[1])):
        at = (float(text.xy[1]) - bottom) / (top - bottom) * _PANEL_PT
        height = max(at, height)
        text.set_position((7, height - at))
        height += _LINE_PT


def _line(axes: Axes, key: str, one: _Series, x: Sequence[float], index: int, *, numeric: bool) -> None:
    """One series: a band and a dashed line of its own, its name at its end, and its values when it is alone."""
    points = [
        (place, case["results"][key], case["misfit"])
        for place, case in sorted(zip(x, one.cases, strict=True), key=lambda pair: pair[0])
        if case["results"][key]["mean"] is not None
    ]
    if not points:
        return
    colour, marker = SERIES[index % len(SERIES)], _MARKERS[index % len(_MARKERS)]
    places = [place + (0.0 if numeric else 0.12 * index) for place, _, _ in points]
    means, least, greatest = ([each[name] for _, each, _ in points] for name in ("mean", "least", "greatest"))
    if numeric:
        axes.fill_between(places, least, greatest, color=colour, alpha=0.18, linewidth=0)
        axes.plot(places, means, color=colour, linewidth=1.8, linestyle=DASHES[index % len(DASHES)])
    else:
        axes.vlines(places, least, greatest, color=colour, linewidth=1.2)
    for place, mean, (_, _, misfit) in zip(places, means, points, strict=True):
        axes.plot(
            [place], [mean], marker=marker, markersize=4.5, color=colour,
            markerfacecolor="white" if misfit else colour, linestyle="none", clip_on=False,
        )  # fmt: skip
    if one.name:
        _note(axes, one.name, places[-1], means[-1], (7, 0), colour=INK)
    elif len(points) <= _FEW:
        for place, mean in zip(places, means, strict=True):
            _note(axes, show(key, mean), place, mean, (0, 9), colour=MUTED, centre=True)


def _note(
    axes: Axes, text: str, x: float, y: float, offset: tuple[int, int], *, colour: str, centre: bool = False
) -> None:
    from matplotlib.patheffects import withStroke

    axes.annotate(
        text, (x, y), xytext=offset, textcoords="offset points", color=colour, fontsize=7.5,
        va="center", ha="center" if centre else "left", annotation_clip=False,
        path_effects=[withStroke(linewidth=2.5, foreground="white")],
    )  # fmt: skip


def _all_positive(key: str, series: Sequence[_Series]) -> bool:
    values = [case["results"][key]["least"] for one in series for case in one.cases]
    return all(value is None or value >= 0.0 for value in values)


def _bars(axes: Axes, key: str, along: Mapping[str, Any], one: _Series) -> None:
    """A bar per case, whiskers from the least to the greatest, the mean beside them."""
    for place, case in zip(one.places, one.cases, strict=True):
        result = case["results"][key]
        if result["mean"] is None:
            continue
        face = "white" if case["misfit"] else _PALE
        axes.barh(place, result["mean"], height=_BAR, color=face, edgecolor=SERIES[0], linewidth=1.0)
        axes.hlines(place, result["least"], result["greatest"], color=INK, linewidth=1.2)
        _note(axes, show(key, result["mean"]), max(result["greatest"], 0.0), place, (5, 0), colour=INK)
    axes.margins(x=0.14)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value * 100:g} %" if is_fraction(key) else show(key, value))
    _names(axes, along)


def _differences(axes: Axes, key: str, along: Mapping[str, Any], one: _Series) -> None:
    """A point per case for its difference to the first, whiskers for the 95 % interval; the first is the line at 0."""
    axes.axvline(0.0, color=INK, linewidth=1.0)
    _note(axes, show(key, one.cases[0]["results"][key]["mean"]), 0.0, one.places[0], (5, 0), colour=INK)
    for place, case in zip(one.places[1:], one.cases[1:], strict=True):
        found = case["results"][key]["difference"]
        if found is None or found["low"] is None:
            continue
        sure = found["low"] > 0.0 or found["high"] < 0.0
        face = SERIES[0] if sure and not case["misfit"] else "white"
        axes.hlines(place, found["low"], found["high"], color=SERIES[0], linewidth=1.6)
        axes.plot([found["mean"]], [place], marker="o", markersize=5.5, color=SERIES[0], markerfacecolor=face)
        _note(axes, show_difference(key, found["mean"]), max(found["high"], 0.0), place, (5, 0), colour=INK)
    points = is_fraction(key)
    axes.set_xlabel(f"difference to “{one.cases[0]['labels'][0]}”" + (", points" if points else ""))
    axes.margins(x=0.2)
    axes.xaxis.set_major_formatter(lambda x, _: f"{x * 100:+g}" if points else show_difference(key, x))
    _names(axes, along)


def _names(axes: Axes, along: Mapping[str, Any]) -> None:
    """Cases from top to bottom, with their names."""
    axes.set_yticks(range(len(along["values"])), along["values"])
    axes.set_ylim(len(along["values"]) - 0.4, -0.6)
    quiet(axes, grid="x")
    for tick in axes.get_yticklabels():
        tick.set_color(INK)


def _data(result: Mapping[str, Any]) -> tuple[Sequence[str], list[Sequence[Any]]]:
    """The columns and rows behind the figure."""
    columns = (*(axis["name"] for axis in result["axes"]), "measure", "mean", "least", "greatest")
    rows: list[Sequence[Any]] = [
        (*case["labels"], key, *(case["results"][key][name] for name in ("mean", "least", "greatest")))
        for case in result["cases"]
        for key in result["measures"]
    ]
    return columns, rows
