"""The still picture of the pipeline: who computes, who waits and why. The page's script shows the same window alive."""

from __future__ import annotations

from typing import Final

import numpy as np

from reports.figures.drawing import Plot, legend_below, look, new_figure, quiet
from reports.formatting import duration, percent
from reports.gantt import Window
from reports.palette import MUTED

_SPANS_PER_ROW: Final = 40
_HEIGHT: Final = {"work": 0.84, "idle": 0.34, "transfer": 0.2}


def draw(window: Window) -> Plot:
    """Draw the beginning of a window, about forty operations per peer."""
    from matplotlib.collections import PolyCollection
    from matplotlib.patches import Patch

    still = window.until(_still_end(window))
    with look():
        figure = new_figure(min(11.0, 0.125 * len(window.rows) + 1.3))
        axes = figure.add_subplot()
        handles, labels = [], []
        for code, style in enumerate(still.styles):
            rows = still.style == code
            if not rows.any():
                continue
            left, right = still.start_s[rows] - window.from_s, still.end_s[rows] - window.from_s
            middle = still.row[rows] + (0.42 if style.form == "transfer" else 0.0)
            low, high = middle - _HEIGHT[style.form] / 2, middle + _HEIGHT[style.form] / 2
            corners = np.stack([np.stack([left, right, right, left], 1), np.stack([low, low, high, high], 1)], axis=2)
            edge = "white" if style.form == "work" else "none"
            axes.add_collection(
                PolyCollection(list(corners), facecolors=style.colour, edgecolors=edge, linewidths=0.25)
            )
            handles.append(Patch(color=style.colour))
            labels.append(style.label)
        axes.set_xlim(0, still.until_s - window.from_s)
        axes.set_ylim(len(window.rows) - 0.3, -0.7)
        axes.set_yticks(range(len(window.rows)), window.rows)
        axes.tick_params(axis="y", labelsize=6.5 if len(window.rows) > 16 else 8, labelcolor=MUTED)
        axes.set_xlabel(f"seconds after {duration(window.from_s)} of the run")
        quiet(axes, grid="x")
        legend_below(axes, handles, labels, columns=5)
    columns = ("row", "peer", "what", "form", "start_s", "end_s", "microbatch")
    data = [
        (int(row), window.rows[row], window.styles[style].label, window.styles[style].form, start, end, int(microbatch))
        for row, style, start, end, microbatch in zip(
            window.row.tolist(), window.style.tolist(), window.start_s.tolist(), window.end_s.tolist(),
            window.microbatch.tolist(), strict=True,
        )
    ]  # fmt: skip
    return Plot("gantt", "What each peer does", reading(window), figure, columns, data, raster=True)


def reading(window: Window) -> str:
    """Return the sentence under the figure."""
    shares = window.shares()
    working = sum(share for style, share in shares.items() if style.form == "work")
    waiting = {style: share for style, share in shares.items() if style.form == "idle"}
    text = (
        "Each row is a peer, stage by stage; tall boxes are operations, low ones waiting, coloured by its reason: "
        f"in these {duration(window.until_s - window.from_s)} the peers are at work {percent(working, 0)} of the time"
    )
    if waiting:
        most = max(waiting, key=lambda style: waiting[style])
        text += f", and the largest idle share is “{most.label}” ({percent(waiting[most])})"
    return text + "."


def _still_end(window: Window) -> float:
    spans = np.bincount(window.row, minlength=len(window.rows))
    busiest = int(spans.max()) if len(spans) else 0
    if busiest <= _SPANS_PER_ROW:
        return window.until_s
    return window.from_s + (window.until_s - window.from_s) * _SPANS_PER_ROW / busiest
