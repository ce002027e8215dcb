"""How the GPU time of each stage divides over the causes of the waterfall."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from orionbed.tracing import CAUSE_LABELS
from reports.figures.drawing import Plot, legend_below, look, new_figure, quiet
from reports.formatting import percent
from reports.palette import INK, cause_colour, cause_label, cause_phrase
from reports.run_folder import Run

_OWN_COLUMNS = ("stage", "layers", "parameters", "memory_bytes", "peak_memory_bytes")
_ROOM_FOR_A_LABEL: Final = 0.045


def shares(run: Run) -> tuple[list[str], list[str], NDArray[np.float64]] | None:
    """Return the stages, the causes and shares of each stage's time that sum to 1, shape (causes, stages)."""
    table = run.table("stages")
    if table is None:
        return None
    causes = [name for name in CAUSE_LABELS if name in table]
    causes += [name for name in table.columns if name not in causes and name not in _OWN_COLUMNS]
    seconds = np.array([np.nan_to_num(table.numbers(cause)) for cause in causes])
    if not causes or seconds.sum() <= 0:
        return None
    return table.text("stage"), causes, seconds / np.maximum(seconds.sum(axis=0), 1e-300)


def draw(run: Run) -> Plot | None:
    """Draw one bar per stage, or return None when the run has no stages."""
    found = shares(run)
    if found is None:
        return None
    stages, causes, share = found
    with look():
        figure = new_figure(max(2.2, 0.21 * len(stages) + 1.3))
        axes = figure.add_subplot()
        y, left = np.arange(len(stages)), np.zeros(len(stages))
        handles, labels = [], []
        for cause, widths in zip(causes, share, strict=True):
            if widths.max() < 5e-4:
                continue
            handles.append(
                axes.barh(
                    y, widths, left=left, height=0.78, color=cause_colour(cause), edgecolor="white", linewidth=0.4
                )
            )
            labels.append(cause_label(cause))
            if cause == "useful":
                for row, width in enumerate(widths):
                    if width < _ROOM_FOR_A_LABEL:
                        continue
                    axes.annotate(
                        percent(float(width), 0), (float(width), row), xytext=(-4, 0), textcoords="offset points",
                        ha="right", va="center", color="white",
                    )  # fmt: skip
            left += widths
        axes.set_yticks(y, [f"stage {stage}" for stage in stages])
        axes.set_ylim(len(stages) - 0.45, -0.55)
        axes.set_xlim(0, 1)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value * 100:.0f} %")
        quiet(axes)
        for tick in axes.get_yticklabels():
            tick.set_color(INK)
        legend_below(axes, handles, labels)
    rows = [(stage, *(float(v) for v in share[:, i])) for i, stage in enumerate(stages)]
    return Plot("stages", "Time by stage", _reading(stages, causes, share), figure, ("stage", *causes), rows)


def _reading(stages: list[str], causes: list[str], share: NDArray[np.float64]) -> str:
    text = "Each bar is all the GPU time of one stage"
    if "useful" not in causes or len(stages) < 2:
        return text + "."
    useful = share[causes.index("useful")]
    best, worst = int(np.argmax(useful)), int(np.argmin(useful))
    losses = [i for i, cause in enumerate(causes) if cause != "useful"]
    if not losses or np.isclose(useful[best], useful[worst], atol=5e-4):
        return text + f"; all stages do about the same useful work ({percent(float(useful.mean()))})."
    gap = share[losses, worst] - share[losses, best]
    most = losses[int(np.argmax(gap))]
    return (
        f"{text}: stage {stages[best]} spends the most of it on useful work ({percent(float(useful[best]))}), stage "
        f"{stages[worst]} the least ({percent(float(useful[worst]))}), losing more to {cause_phrase(causes[most])}."
    )
