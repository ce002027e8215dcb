"""From finished runs to pages, figures, tables and trace files."""

from reports.compare import Difference, compare
from reports.labs import draw_deadlines, draw_merges
from reports.page import build
from reports.parity import draw_parity
from reports.run_folder import ReportError, Run, load
from reports.sweeps import build_sweep, sweep_lines
from reports.values import draw_values, value_lines

__all__ = [
    "Difference",
    "ReportError",
    "Run",
    "build",
    "build_sweep",
    "compare",
    "draw_deadlines",
    "draw_merges",
    "draw_parity",
    "draw_values",
    "load",
    "sweep_lines",
    "value_lines",
]
