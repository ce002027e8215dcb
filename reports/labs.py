"""The pictures of the merging lab and of the deadline lab."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def draw_merges(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw the rows of `orionbed merge-lab` into a PNG. Raises OSError."""
    from reports.figures import merges

    path.write_bytes(merges.draw(rows).png())


def draw_deadlines(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw the rows of `orionbed deadlines` into a PNG. Raises OSError."""
    from reports.figures import deadlines

    path.write_bytes(deadlines.draw(rows).png())
