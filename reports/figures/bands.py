"""What the uncertain assumptions do to the result: the bands of the draws, and which assumption moves it most."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from reports.figures.drawing import Plot, look, new_figure, quiet
from reports.formatting import number, percent
from reports.palette import BLUE, INK, LINE, MUTED, SKY, VERMILLION
from reports.quantities import is_fraction, label
from reports.run_folder import Run

RESULTS: Final = (
    *("mfu_in_phase", "mfu_with_merges", "mfu_wall_clock", "mfu_peak_sustained"),
    *("relative_speed", "tokens_per_s"),
)
_MIN_DRAWS: Final = 8
_MAX_KEYS: Final = 8


def of(run: Run) -> dict[str, tuple[float, float, float]]:
    """Return the 5, 50 and 95 % quantiles by quantity, from the summary."""
    bands = run.get("bands")
    found = {}
    for key, values in bands.items() if isinstance(bands, dict) else ():
        if isinstance(values, list) and len(values) == 3 and all(isinstance(v, int | float) for v in values):
            found[str(key)] = (float(values[0]), float(values[1]), float(values[2]))
    return found


def influences(run: Run, result: str = "mfu_wall_clock") -> list[tuple[str, float]]:
    """Return the rank correlation of each drawn number with a result, the strongest first; empty below eight draws."""
    table = run.table("bands")
    if table is None or len(table) < _MIN_DRAWS or result not in table:
        return []
    target = _ranks(table.numbers(result))
    found = []
    for key in table.columns:
        values = table.numbers(key)
        if key == "draw" or key in RESULTS or not np.isfinite(values).all() or np.ptp(values) == 0:
            continue
        found.append((key, float(np.corrcoef(_ranks(values), target)[0, 1])))
    return sorted(found, key=lambda item: (-abs(item[1]), item[0]))


def draw(run: Run) -> Plot | None:
    """Draw the bands of every share, or return None when the run has none."""
    found = {key: band for key, band in of(run).items() if is_fraction(key) or key in RESULTS}
    shares = {key: band for key, band in found.items() if is_fraction(key)}
    if not shares:
        return None
    moved = influences(run)[:_MAX_KEYS]
    with look():
        figure = new_figure(0.3 * max(len(shares), len(moved)) + 1.0)
        panels = figure.subplots(1, 2 if moved else 1, squeeze=False)[0]
        axes = panels[0]
        for y, (key, (low, middle, high)) in enumerate(shares.items()):
            axes.plot([low, high], [y, y], color=SKY, linewidth=6, solid_capstyle="butt", alpha=0.6)
            axes.plot([middle], [y], marker="o", color=BLUE, markersize=6, linestyle="none")
            published = _published(run, key)
            if published is not None:
                axes.plot([published], [y], marker="x", color=VERMILLION, markersize=7, markeredgewidth=2, zorder=5)
        axes.set_yticks(range(len(shares)), [label(key) for key in shares])
        axes.set_ylim(len(shares) - 0.4, -0.6)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value * 100:.0f} %")
        axes.set_xlabel("5 to 95 % of the draws; dot: median; ×: published")
        quiet(axes, grid="x")
        for tick in axes.get_yticklabels():
            tick.set_color(INK)
        if moved:
            axes = panels[1]
            places = range(len(moved))
            axes.barh(places, [value for _, value in moved], height=0.5, color=BLUE)
            axes.axvline(0, color=LINE, linewidth=0.8)
            axes.set_yticks(places, [key for key, _ in moved])
            axes.set_ylim(len(moved) - 0.4, -0.6)
            axes.set_xlim(-1, 1)
            axes.set_xticks((-1, -0.5, 0, 0.5, 1))
            axes.set_xlabel("rank correlation with MFU by the wall clock")
            quiet(axes, grid="x")
            for tick in axes.get_yticklabels():
                tick.set_color(MUTED)
    rows: list[tuple[object, ...]] = [(key, *band, _published(run, key) or "") for key, band in of(run).items()]
    columns = ("quantity", "p5", "p50", "p95", "published")
    return Plot("bands", "What the assumptions leave open", _reading(run, moved), figure, columns, rows)


def for_quantity(run: Run, key: str) -> tuple[float, float, float] | None:
    """Return the band of a dotted key of the summary; bands may go by flat names (`mfu_with_merges`)."""
    wanted = {key, key.replace(".", "_"), key.removeprefix("datacenter.")}
    return next((band for name, band in of(run).items() if name in wanted), None)


def _published(run: Run, key: str) -> float | None:
    for entry in run.items("published"):
        quantity = str(entry.get("quantity"))
        if key in (quantity, quantity.replace(".", "_"), quantity.removeprefix("datacenter.")):
            value = entry.get("published")
            return float(value) if isinstance(value, int | float) else None
    return None


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ranks with ties averaged."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: NDArray[np.float64] = (last - (counts - 1) / 2)[inverse]
    return ranks


def _reading(run: Run, moved: list[tuple[str, float]]) -> str:
    draws = run.number("bands_samples")
    text = f"The scenario was run {number(draws)} times with every uncertain assumption drawn anew" if draws else ""
    text = text or "The scenario was run again with every uncertain assumption drawn anew"
    band = for_quantity(run, "mfu.wall_clock")
    if band:
        text += f": 90 % of the draws lie between {percent(band[0])} and {percent(band[2])} MFU"
    if moved:
        text += f", and {moved[0][0]} moves it most (rank correlation {moved[0][1]:+.2f})".replace("-", "−")
    return text + "."
