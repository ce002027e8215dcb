"""The peers' links and what each peer made of its own."""

from __future__ import annotations

import numpy as np

from reports.figures.drawing import Plot, logarithmic, look, new_figure, quiet
from reports.formatting import percent, rate
from reports.palette import BLUE, INK, ORANGE, SERIES
from reports.run_folder import Run


def draw(run: Run) -> Plot | None:
    """Draw the links' distribution beside MFU by uplink, or return None when the run has no peers."""
    peers = run.table("peers")
    if peers is None:
        return None
    up, down, mfu = (peers.numbers(name) for name in ("uplink_bps", "downlink_bps", "mfu"))
    if not np.isfinite(up).any():
        return None
    with look():
        figure = new_figure(2.9)
        axes, scatter = figure.subplots(1, 2)
        for values, colour, name in ((up, BLUE, "uplink"), (down, ORANGE, "downlink")):
            sorted_values = np.sort(values[np.isfinite(values)]) / 1e6
            if not len(sorted_values):
                continue
            share = (np.arange(len(sorted_values)) + 1) / len(sorted_values)
            axes.step(sorted_values, share, where="post", color=colour, linewidth=1.8)
            middle = len(sorted_values) // 2
            side = -1 if colour == BLUE else 1
            axes.annotate(
                name, (sorted_values[middle], share[middle]), xytext=(8 * side, -3), textcoords="offset points",
                ha="right" if side < 0 else "left", color=INK,
            )  # fmt: skip
        axes.set_xlabel("Mbit/s (logarithmic)")
        axes.set_ylabel("share of peers at or below")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value * 100:.0f} %")
        axes.set_ylim(0, 1.03)
        quiet(axes, grid="y")
        sites = peers.text("site")
        for number, site in enumerate(dict.fromkeys(sites)):
            here = np.array([s == site for s in sites])
            colour = SERIES[number % len(SERIES)]
            scatter.plot(
                up[here] / 1e6, mfu[here], linestyle="none", marker="osD^vP*"[number % 7], markersize=4.5,
                color=colour, label=site, alpha=0.9,
            )  # fmt: skip
        scatter.set_xlabel("uplink, Mbit/s (logarithmic)")
        scatter.set_ylabel("MFU of the peer")
        highest = float(np.nanmax(mfu)) if np.isfinite(mfu).any() else 1.0
        digits = 0 if highest >= 0.1 else 1
        scatter.yaxis.set_major_formatter(lambda value, _: f"{value * 100:.{digits}f} %")
        scatter.set_ylim(0, max(highest * 1.15, 1e-3))
        quiet(scatter, grid="y")
        if len(set(sites)) <= 8:
            scatter.legend(loc="lower left", ncols=2, handletextpad=0.2, columnspacing=1.0)
        for panel in (axes, scatter):
            logarithmic(panel)
    columns = [
        *("peer", "stage", "replica", "site", "uplink_bps", "downlink_bps", "speed", "busy_s", "microbatches"),
        *("bytes_up", "bytes_down", "utilisation_up", "down_s", "mfu"),
    ]
    rows = list(zip(*(peers.text(name) for name in columns), strict=True))
    return Plot("links", "Peers and their links", _reading(run), figure, columns, rows)


def _reading(run: Run) -> str:
    peers = run.table("peers")
    if peers is None:
        return ""
    up, mfu = peers.numbers("uplink_bps"), peers.numbers("mfu")
    text = (
        f"Left: how the links are spread, uplinks from {rate(float(np.nanmin(up)))} "
        f"to {rate(float(np.nanmax(up)))} with the median at {rate(float(np.nanmedian(up)))}; "
        "right: whether a slow uplink costs its peer MFU"
    )
    both = np.isfinite(up) & np.isfinite(mfu)
    if both.sum() < 4 or np.ptp(up[both]) == 0:
        return text + "."
    order = np.argsort(up[both], kind="stable")
    quarter = max(1, len(order) // 4)
    slow, fast = float(mfu[both][order[:quarter]].mean()), float(mfu[both][order[-quarter:]].mean())
    return f"{text}: the slowest quarter reaches {percent(slow)}, the fastest {percent(fast)}."
