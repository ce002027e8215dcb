"""Two summaries side by side, quantity by quantity, the waterfall's causes included."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from orionbed.published import lookup
from reports.quantities import HEADLINES, label, show, show_difference

_NOTHING: Final = 5e-6
"""A relative difference that prints as none: it comes from another order of adding."""


@dataclass(frozen=True)
class Difference:
    """One quantity of two runs: b - a, and the same relative to a; None where a run lacks it or a is nought."""

    quantity: str
    a: float | None
    b: float | None

    @property
    def difference(self) -> float | None:
        """How much larger b is, in the quantity's own unit."""
        return None if self.a is None or self.b is None else self.b - self.a

    @property
    def relative(self) -> float | None:
        """How much larger b is, as a fraction of a."""
        return None if self.difference is None or not self.a else self.difference / abs(self.a)

    @property
    def label(self) -> str:
        """The words for the quantity."""
        return label(self.quantity)

    def printed(self) -> tuple[str, str, str]:
        """Return a, b and the difference with their units."""
        difference = self.difference
        if self.a and difference is not None and abs(difference) < _NOTHING * abs(self.a):
            difference = 0.0
        return show(self.quantity, self.a), show(self.quantity, self.b), show_difference(self.quantity, difference)

    def as_dict(self) -> dict[str, Any]:
        """Return the row as JSON wants it."""
        return {**asdict(self), "label": self.label, "difference": self.difference, "relative": self.relative}


def compare(summary_a: Mapping[str, Any], summary_b: Mapping[str, Any]) -> list[Difference]:
    """Return the headline quantities that a run has, then the causes of both waterfalls, the largest change first.

    Raises ValueError when the summaries' schema versions differ: their numbers may not mean the same.
    """
    versions = [summary.get("schema_version") for summary in (summary_a, summary_b)]
    if versions[0] != versions[1]:
        raise ValueError(
            f"the runs cannot be compared: summary.json has schema_version {versions[0]!r} in the first and "
            f"{versions[1]!r} in the second; run the older one again"
        )
    rows = [_row(key, summary_a, summary_b) for key in HEADLINES]
    causes = {entry["cause"]: None for s in (summary_a, summary_b) for entry in s.get("waterfall") or ()}
    losses = [_waterfall_row(cause, summary_a, summary_b) for cause in causes]
    losses.sort(key=lambda row: -abs(row.difference or 0.0))
    return [row for row in rows + losses if (row.a, row.b) != (None, None)]


def _row(key: str, summary_a: Mapping[str, Any], summary_b: Mapping[str, Any]) -> Difference:
    return Difference(key, *(_number(lookup(dict(summary), key)) for summary in (summary_a, summary_b)))


def _waterfall_row(cause: str, summary_a: Mapping[str, Any], summary_b: Mapping[str, Any]) -> Difference:
    """A cause that a waterfall does not name has no share in it."""
    row = _row(f"waterfall.{cause}", summary_a, summary_b)
    fill_a, fill_b = (0.0 if summary.get("waterfall") else None for summary in (summary_a, summary_b))
    return Difference(row.quantity, fill_a if row.a is None else row.a, fill_b if row.b is None else row.b)


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
