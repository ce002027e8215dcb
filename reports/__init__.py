"""From finished runs to pages, figures, tables and trace files."""

from reports.compare import Difference, compare
from reports.page import build
from reports.parity import draw_parity
from reports.run_folder import ReportError, Run, load

__all__ = ["Difference", "ReportError", "Run", "build", "compare", "draw_parity", "load"]
