"""Where the GPU time goes: from the peak of the hardware down to useful FLOPs, one cause at a time."""

from __future__ import annotations

from dataclasses import dataclass

from reports.figures.drawing import Plot, look, new_figure, quiet
from reports.formatting import percent
from reports.palette import BLUE, INK, LINE, MUTED, cause_colour, cause_label, cause_phrase, is_own_work
from reports.run_folder import Run


@dataclass(frozen=True)
class Bar:
    """One step of the waterfall: the share `fraction` of the peak that lies from `left` upwards."""

    cause: str
    label: str
    left: float
    fraction: float
    gpu_s: float | None = None


def bars(run: Run) -> list[Bar]:
    """Return the steps in reading order: the losses from the peak downwards, useful work last, nothing left out."""
    entries = [(str(e["cause"]), float(e["fraction"]), e.get("label"), e.get("gpu_s")) for e in run.items("waterfall")]
    level = sum(fraction for _, fraction, _, _ in entries)
    found = []
    for cause, fraction, label, gpu_s in sorted(entries, key=lambda entry: entry[0] == "useful"):
        level -= fraction
        left = 0.0 if cause == "useful" else level
        found.append(Bar(cause, str(label or cause_label(cause)), left, fraction, gpu_s))
    return found


def largest_losses(run: Run) -> tuple[Bar | None, Bar | None]:
    """Return the largest loss of all, and the largest outside what the GPUs compute themselves."""
    losses = [bar for bar in bars(run) if bar.cause != "useful" and bar.fraction > 0]
    others = [bar for bar in losses if not is_own_work(bar.cause)]
    largest = max(losses, key=lambda bar: bar.fraction, default=None)
    return largest, max(others, key=lambda bar: bar.fraction, default=None)


def reading(run: Run) -> str:
    """Return the sentence under the figure."""
    useful = next((bar.fraction for bar in bars(run) if bar.cause == "useful"), 0.0)
    largest, outside = largest_losses(run)
    text = (
        "Read downwards: each bar takes one cause away from what the GPUs could do at their peak, "
        f"until {percent(useful)} useful work is left"
    )
    if largest:
        text += f"; the largest is {cause_phrase(largest.cause)} ({percent(largest.fraction)})"
    if outside and largest and outside.cause != largest.cause:
        text += (
            f", the largest outside the GPUs’ own work is {cause_phrase(outside.cause)} ({percent(outside.fraction)})"
        )
    return text + "."


def draw(run: Run) -> Plot | None:
    """Draw the waterfall, or return None when the run has none."""
    steps = bars(run)
    if not steps:
        return None
    shown = [bar for bar in steps if bar.fraction > 0]
    peak = sum(bar.fraction for bar in steps)
    rows = [Bar("peak", "peak of the hardware", 0.0, peak), *shown]
    with look():
        figure = new_figure(0.26 * len(rows) + 0.5)
        axes = figure.add_subplot()
        for y, bar in enumerate(rows):
            colour = "#dfe4e9" if bar.cause == "peak" else cause_colour(bar.cause)
            axes.barh(y, bar.fraction, left=bar.left, height=0.72, color=colour)
            end = bar.left + bar.fraction
            strong = bar.cause in ("peak", "useful")
            text = percent(bar.fraction) if strong else f"−{percent(bar.fraction)}"
            axes.annotate(
                text,
                (end, y),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                color=BLUE if bar.cause == "useful" else INK,
                fontweight="bold" if strong else "normal",
            )
            if y + 1 < len(rows):
                edge = bar.fraction if bar.cause == "peak" else bar.left
                axes.plot([edge, edge], [y + 0.36, y + 0.64], color=LINE, linewidth=0.8)
        axes.set_yticks(range(len(rows)), [bar.label for bar in rows])
        for tick, bar in zip(axes.get_yticklabels(), rows, strict=True):
            tick.set_color(INK if bar.cause in ("peak", "useful") else MUTED)
            tick.set_fontweight("bold" if bar.cause in ("peak", "useful") else "normal")
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlim(0, peak * 1.07)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value * 100:.0f} %" if value <= 1.0001 else "")
        quiet(axes, grid="x")
    columns = ("cause", "label", "fraction", "left", "gpu_s")
    data = [(bar.cause, bar.label, bar.fraction, bar.left, "" if bar.gpu_s is None else bar.gpu_s) for bar in steps]
    return Plot("waterfall", "Where the GPU time goes", reading(run), figure, columns, data)
