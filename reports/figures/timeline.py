"""MFU and tokens per second over the run, with merges, absent peers and the best window marked."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from reports.figures.drawing import Plot, look, new_figure, quiet
from reports.formatting import duration, percent
from reports.palette import BLUE, CAUSE_COLOURS, GREEN, INK, MUTED, SKY
from reports.run_folder import Run, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = NDArray[np.float64]
_MAX_POINTS: Final = 1500
_LEAST_MINUTES: Final = 5
_HOUR_S: Final = 3600.0
_MERGING: Final = {"merge", "uploading", "merging"}


def rolling_mean(values: Floats, width: int) -> Floats:
    """Return the mean over `width` neighbours, centred, over fewer at the ends; NaN is skipped."""
    width = max(1, min(width, len(values)))
    present = np.isfinite(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(present, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(present)])
    index = np.arange(len(values))
    low, high = np.maximum(index - width // 2, 0), np.minimum(index - width // 2 + width, len(values))
    with np.errstate(invalid="ignore", divide="ignore"):
        mean: Floats = (sums[high] - sums[low]) / (counts[high] - counts[low])
    return mean


def draw(run: Run) -> Plot | None:
    """Draw the run's minutes, or return None when there are so few that a curve through them would say nothing."""
    timeline = run.table("timeline")
    if timeline is None or len(timeline) < _LEAST_MINUTES:
        return None
    time, mfu = timeline.numbers("t_s"), timeline.numbers("mfu")
    tokens, peers = timeline.numbers("tokens"), timeline.numbers("peers_up")
    step = float(np.median(np.diff(time)))
    smooth_s = _smoothing(time[-1] - time[0])
    smooth = rolling_mean(mfu, round(smooth_s / step))
    unit_s, unit = _unit(float(time[-1]))
    with look():
        from matplotlib.lines import Line2D
        from matplotlib.patches import Patch

        figure = new_figure(3.5)
        axes, strip = figure.subplots(2, 1, sharex=True, height_ratios=(5, 1))
        # A gap in the light line where nothing is meant to be trained: it would only draw the merges again.
        training = np.array([phase not in _MERGING for phase in timeline.text("phase")])
        t, points = _thinned(time / unit_s, np.where(training, mfu, np.nan))
        axes.plot(t, points, color=SKY, linewidth=0.7, alpha=0.8)
        t, means = _thinned(time / unit_s, whole(smooth, round(smooth_s / step)))
        axes.plot(t, means, color=BLUE, linewidth=1.8)
        handles: list[Any] = [Line2D([], [], color=SKY), Line2D([], [], color=BLUE, linewidth=1.8)]
        labels = [f"each {duration(step)} of training", f"mean over {duration(smooth_s)}, merges included"]
        merges = _spans(run.table("marks"), ("merge",))
        for start, end in merges:
            axes.axvspan(start / unit_s, end / unit_s, color=GREEN, alpha=0.22, linewidth=0)
        if merges:
            handles.append(Patch(color=GREEN, alpha=0.22))
            labels.append("merge")
        uploads = _spans(run.table("marks"), ("WEIGHTS_UPLOADING",), of="detail")
        for start, end in uploads:
            axes.axvspan(start / unit_s, end / unit_s, color=GREEN, alpha=0.22, linewidth=0)
        if uploads:
            handles.append(Patch(color=GREEN, alpha=0.4))
            labels.append("its uploads")
        _mark_peak(run, axes, unit_s)
        _top = max((float(np.nanmax(v)) for v in (points, means) if np.isfinite(v).any()), default=1.0)
        axes.set_ylim(0, max(_top * 1.12, 0.01))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value * 100:.0f} %")
        axes.set_ylabel("MFU")
        quiet(axes, grid="y")
        _tokens_axis(axes, mfu, tokens, step)
        _peers_strip(run, strip, time / unit_s, peers)
        strip.set_xlabel(f"{unit}s since the start")
        axes.legend(handles, labels, loc="upper center", bbox_to_anchor=(0.5, 1.15), ncols=max(3, len(handles)))
    columns = ("t_s", "tokens_per_s", "mfu", f"mfu_mean_{smooth_s:.0f}s", "peers_up", "phase")
    rows = list(
        zip(time, tokens / step, mfu, np.round(smooth, 6), peers.astype(object), timeline.text("phase"), strict=True)
    )
    return Plot("timeline", "The run over time", _reading(run, smooth_s, smooth, time), figure, columns, rows)


def _unit(length_s: float) -> tuple[float, str]:
    """Return the seconds and the name of the unit that a run of this length is drawn in."""
    return (_HOUR_S, "hour") if length_s >= _HOUR_S else (60.0, "minute")


def _smoothing(length_s: float) -> float:
    """Return the width of the mean: an hour, in short runs a tenth of the run in whole minutes."""
    return _HOUR_S if length_s >= 6 * _HOUR_S else max(60.0, round(length_s / 600) * 60.0)


def _thinned(time: Floats, values: Floats, whole_of: Callable[..., Any] = np.mean) -> tuple[Floats, Floats]:
    """Return at most `_MAX_POINTS` points, each the mean (or another whole) of equally many neighbours."""
    group = -(-len(values) // _MAX_POINTS)
    if group == 1:
        return time, values
    end = len(values) // group * group
    times, parts = time[:end].reshape(-1, group), values[:end].reshape(-1, group)
    return times.mean(axis=1), whole_of(parts, axis=1)


def whole(smooth: Floats, width: int) -> Floats:
    """Return the mean without its ends, where it is one over less than its width."""
    half = width // 2
    if len(smooth) <= 4 * half:
        return smooth
    trimmed = np.full_like(smooth, np.nan)
    trimmed[half : len(smooth) - half] = smooth[half : len(smooth) - half]
    return trimmed


def _spans(marks: Table | None, kinds: Iterable[str], of: str = "kind") -> list[tuple[float, float]]:
    if marks is None:
        return []
    columns = zip(marks.text(of), marks.numbers("t_s"), marks.numbers("end_s"), strict=True)
    return [(float(start), float(end)) for kind, start, end in columns if kind in kinds and end >= start]


def _mark_peak(run: Run, axes: Axes, unit_s: float) -> None:
    start, length, peak = (run.number(f"mfu.{key}") for key in ("peak_start_s", "peak_window_s", "peak_sustained"))
    if start is None or length is None or peak is None:
        return
    left, right = start / unit_s, (start + length) / unit_s
    axes.axvspan(left, right, color=BLUE, alpha=0.07, linewidth=0)
    axes.hlines(peak, left, right, color=INK, linewidth=0.9, linestyle=(0, (4, 2)))
    text = f"best {duration(length)}: {percent(peak)}"
    axes.annotate(
        text, ((left + right) / 2, 0.03), xycoords=("data", "axes fraction"), ha="center", va="bottom", color=INK
    )


def _tokens_axis(axes: Axes, mfu: Floats, tokens: Floats, step: float) -> None:
    """Tokens/s is MFU times a constant: one curve, two scales."""
    total = float(np.nansum(mfu))
    if total <= 0:
        return
    factor = float(np.nansum(tokens)) / step / total
    scale = axes.secondary_yaxis(
        "right", functions=(lambda v: np.asarray(v) * factor, lambda v: np.asarray(v) / factor)
    )
    scale.set_ylabel("tokens/s")
    scale.spines["right"].set_visible(False)
    scale.tick_params(length=0)
    scale.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")


def _peers_strip(run: Run, axes: Axes, time: Floats, peers: Floats) -> None:
    total = run.number("layout.num_peers") or (float(np.nanmax(peers)) if np.isfinite(peers).any() else 1.0)
    absent = np.clip(total - peers, 0, None)
    t, most_absent = _thinned(time, absent, np.max)
    axes.fill_between(t, 0, most_absent, step="mid", color=CAUSE_COLOURS["down"], linewidth=0)
    most = float(np.nanmax(absent)) if np.isfinite(absent).any() else 0.0
    axes.set_ylim(0, max(most, 1.0) * 1.1)
    axes.set_yticks([0, max(1, round(most))])
    axes.set_ylabel("peers\nabsent", rotation=0, ha="right", va="center")
    axes.set_xlim(time[0], time[-1])
    if most == 0:
        axes.annotate("none", (0.5, 0.5), xycoords="axes fraction", ha="center", va="center", color=MUTED)
    quiet(axes)


def _reading(run: Run, smooth_s: float, smooth: Floats, time: Floats) -> str:
    text = f"The heavy line is the mean over {duration(smooth_s)}, merges included"
    if _spans(run.table("marks"), ("merge",)):
        text += "; green bands are merges"
    inner = whole(smooth, round(smooth_s / float(np.median(np.diff(time)))))
    if np.isfinite(inner).any():
        low, high = float(np.nanmin(inner)), float(np.nanmax(inner))
        unit_s, unit = _unit(float(time[-1]))
        at = float(time[np.nanargmin(inner)]) / unit_s
        text += f"; the mean moves between {percent(low)} (near {unit} {at:.1f}) and {percent(high)}"
    down = _spans(run.table("marks"), ("down",))
    if down:
        text += f", and peers went away {len(down)} {'time' if len(down) == 1 else 'times'}"
    return text + "."
