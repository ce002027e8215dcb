"""How every figure is made: matplotlib without pyplot, one look, the same bytes for the same numbers."""

from __future__ import annotations

import csv
import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final
from xml.sax.saxutils import quoteattr

from reports.palette import GRID, INK, LINE, MUTED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH_IN: Final = 9.6
DASHES: Final = ("solid", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)), (0, (3, 1)), (0, (2, 3)), (0, (8, 3)))
"""Of lines that stand together, so that colour alone need not tell them apart."""
_FONTS: Final = "system-ui, -apple-system, 'Segoe UI', 'Helvetica Neue', Arial, 'DejaVu Sans', sans-serif"
_LOOK: Final[dict[Any, Any]] = {
    "axes.axisbelow": True,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.unicode_minus": True,
    "figure.facecolor": "white",
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "legend.fontsize": 8.0,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "lines.solid_capstyle": "round",
    "path.simplify_threshold": 0.2,
    "savefig.facecolor": "white",
    "svg.fonttype": "none",
    "svg.hashsalt": "orionbed",
    "text.color": INK,
    "text.parse_math": False,  # a peer may be called $\frac$
    "xtick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.color": LINE,
    "ytick.labelcolor": MUTED,
}


@dataclass(frozen=True)
class Plot:
    """A figure, the data behind it as a table, and one sentence that says how to read it and what it shows.

    `raster`: too dense for an inline SVG, the page shows the PNG.
    """

    name: str
    title: str
    reading: str
    figure: Figure
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    raster: bool = False

    def csv(self) -> str:
        """Return the data behind the figure."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows(self.rows)
        return text.getvalue()

    def svg(self) -> str:
        """Return the figure as a stand-alone SVG file in the reader's own sans-serif font."""
        return self._svg

    @cached_property
    def _svg(self) -> str:
        text = self._save("svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None}).decode()
        text = re.sub(r"<!DOCTYPE[^>]*>\s*|<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
        text = re.sub(r'<svg [^>]*?(viewBox="[^"]*")[^>]*>', self._opening, text, count=1)
        return text.replace("'DejaVu Sans'", _FONTS)

    def inline(self, prefix: str = "") -> str:
        """Return the figure as an `svg` element for a page, with ids that no other figure of the page uses."""
        text = self.svg().split("?>", 1)[1].strip()
        text = re.sub(r'\bid="([^"]*)"', rf'id="{prefix}{self.name}-\1"', text)
        return re.sub(r'(url\(#|href="#)', rf"\g<1>{prefix}{self.name}-", text)

    def png(self) -> bytes:
        """Return the figure as PNG at twice the resolution of a page."""
        return self._save("png", dpi=160, metadata={"Software": None})

    def _opening(self, found: re.Match[str]) -> str:
        spaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" version="1.1"'
        return f'<svg {found[1]} {spaces} role="img" aria-label={quoteattr(f"{self.title}. {self.reading}")}>'

    def _save(self, file_format: str, **options: Any) -> bytes:
        stream = io.BytesIO()
        with look():
            self.figure.savefig(stream, format=file_format, **options)
        return stream.getvalue()


@contextmanager
def look() -> Iterator[None]:
    """Draw in the project's look while the context lasts. Names in scripts the font lacks are no reason to warn."""
    import matplotlib as mpl

    with mpl.rc_context(), warnings.catch_warnings():
        mpl.rcdefaults()
        mpl.rcParams.update(_LOOK)
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from", category=UserWarning)
        yield


def new_figure(height_in: float) -> Figure:
    """Return an empty figure as wide as the page's column, laid out by constraint."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.06, h_pad=0.06)  # type: ignore[union-attr, call-arg]
    return figure


def quiet(axes: Axes, *, grid: str | None = None) -> None:
    """Take the frame and the ticks' marks away and lay a light grid along one axis."""
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
    axes.tick_params(length=0)
    if grid in ("x", "y"):
        axes.grid(visible=True, axis=grid)  # type: ignore[arg-type]


def logarithmic(axes: Axes) -> None:
    """Make the x axis logarithmic, with marks at 1, 2 and 5 of each decade."""
    from matplotlib.ticker import LogLocator, NullLocator

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}")


def legend_below(axes: Axes, handles: Sequence[Any], labels: Sequence[str], columns: int = 4) -> None:
    """Put a legend under the axes, out of the data's way."""
    axes.figure.legend(
        handles, labels, loc="outside lower left", ncols=columns, handlelength=1.0, handleheight=0.9, columnspacing=1.6
    )
