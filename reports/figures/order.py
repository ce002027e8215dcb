"""The picture of one step of a pipeline schedule: a row per stage, a box per operation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from orionbed.schedule.timing import Timed
from reports.figures.drawing import WIDTH_IN, Plot, legend_below, look, new_figure, quiet
from reports.formatting import duration, percent
from reports.palette import INK, MUTED, ORDER_COLOURS, ORDER_INKS, WORK_LABELS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_HEIGHT: Final = 0.86
_STRIPE: Final = 0.17
_DIGIT_IN: Final = 0.055
"""Width of a digit of the boxes' numbers."""


class _Box(NamedTuple):
    """One operation: its row, what it does, for which micro-batch, which of its stage's pieces, and when."""

    stage: int
    kind: str
    chunk: int
    microbatch: int
    piece: int
    start_s: float
    end_s: float


def draw(timed: Timed, title: str) -> Plot:
    """Draw an order as timed. Numbers are micro-batches; a stripe marks later pieces of the model."""
    boxes = _boxes(timed)
    unit_s, unit = (1.0, "s") if timed.makespan_s >= 1.0 else (1e-3, "ms")
    num_stages = timed.order.num_stages
    with look():
        figure = new_figure(min(11.0, (0.34 if num_stages <= 16 else 0.18) * num_stages + 1.25))
        axes = figure.add_subplot()
        _fill(axes, boxes, unit_s)
        _number(axes, boxes, unit_s, timed.makespan_s)
        axes.set_xlim(0, timed.makespan_s / unit_s)
        axes.set_ylim(num_stages - 0.4, -0.6)
        names = [f"stage {stage}" for stage in range(num_stages)]
        axes.set_yticks(range(num_stages), names)
        axes.tick_params(axis="y", labelsize=6.5 if num_stages > 16 else 8, labelcolor=MUTED)
        axes.set_xlabel(unit)
        axes.set_title(title, loc="left")
        quiet(axes, grid="x")
        _explain(axes, boxes)
    columns = tuple(_Box._fields)
    return Plot("order", title, reading(timed), figure, columns, [tuple(box) for box in boxes], raster=True)


def reading(timed: Timed) -> str:
    """Return the sentence under the figure."""
    order = timed.order
    return (
        f"Each row is a stage, each box an operation on the micro-batch whose number it bears: a step of "
        f"{order.num_microbatches} micro-batches takes {duration(timed.makespan_s)}, of which the busiest stage idles "
        f"{percent(timed.bubble())}."
    )


def _boxes(timed: Timed) -> list[_Box]:
    order = timed.order
    pieces = [order.stage_of[:chunk].count(stage) for chunk, stage in enumerate(order.stage_of)]
    return [
        _Box(stage, action.kind, action.chunk, action.microbatch, pieces[action.chunk], start_s, start_s + length_s)
        for stage, (actions, starts) in enumerate(zip(order.lists, timed.starts_s, strict=True))
        for action, start_s in zip(actions, starts, strict=True)
        for length_s in [timed.times.of(action)]
    ]


def _fill(axes: Axes, boxes: list[_Box], unit_s: float) -> None:
    from matplotlib.collections import PolyCollection

    shortest_s = min(box.end_s - box.start_s for box in boxes if box.end_s > box.start_s)
    gap = 0.5 if shortest_s > max(box.end_s for box in boxes) / 250.0 else 0.15
    for kind, colour in ORDER_COLOURS.items():
        mine = [box for box in boxes if box.kind == kind]
        corners = [_corners(box, unit_s, box.stage - _HEIGHT / 2, box.stage + _HEIGHT / 2) for box in mine]
        axes.add_collection(PolyCollection(corners, facecolors=colour, edgecolors="white", linewidths=gap))
    later = [box for box in boxes if box.piece]
    stripes = [
        _corners(box, unit_s, box.stage + _HEIGHT / 2 - _STRIPE, box.stage + _HEIGHT / 2 - 0.03) for box in later
    ]
    axes.add_collection(PolyCollection(stripes, facecolors=INK, edgecolors="none", alpha=0.75))


def _corners(box: _Box, unit_s: float, low: float, high: float) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    left, right = box.start_s / unit_s, box.end_s / unit_s
    return np.array([(left, low), (right, low), (right, high), (left, high)])


def _number(axes: Axes, boxes: list[_Box], unit_s: float, makespan_s: float) -> None:
    """Write the number of the micro-batch where there is room for it."""
    for box in boxes:
        room_in = (box.end_s - box.start_s) / makespan_s * WIDTH_IN * 0.9
        if room_in < _DIGIT_IN * (len(str(box.microbatch)) + 0.6):
            continue
        axes.text(
            (box.start_s + box.end_s) / 2.0 / unit_s,
            box.stage - (0.06 if box.piece else 0.0),
            str(box.microbatch),
            ha="center",
            va="center",
            fontsize=6.0,
            color=ORDER_INKS[box.kind],
        )


def _explain(axes: Axes, boxes: list[_Box]) -> None:
    from matplotlib.patches import Patch

    kinds = {box.kind for box in boxes}
    handles = [Patch(color=colour) for kind, colour in ORDER_COLOURS.items() if kind in kinds]
    labels = [WORK_LABELS[kind] for kind in ORDER_COLOURS if kind in kinds]
    if any(box.piece for box in boxes):
        handles.append(Patch(color=INK, alpha=0.75))
        labels.append("stripe: a later piece of the model")
    legend_below(axes, handles, labels, columns=5)
