"""The picture of a validation."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def draw_parity(outcomes: Sequence[Any], path: Path) -> None:
    """Draw the outcomes of `orionbed validate` into a PNG. Raises OSError."""
    from reports.figures import parity

    path.write_bytes(parity.draw(outcomes).png())
