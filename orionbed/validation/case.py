"""What a validation source is, and how its cases are judged. Plain data."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Literal

Rule = Literal["mean", "each", "shown"]
"""`mean`: the mean absolute error must be within the tolerance; `each`: every error must; `shown`: nothing is asked."""


@dataclass(frozen=True, slots=True)
class Case:
    """One published number and ours. `group` names the cell within which the order must be right.

    `calibration` marks a number that something was set on: it is shown, and counts for nothing.
    """

    label: str
    published: float
    predicted: float
    group: str = ""
    calibration: bool = False

    @property
    def error(self) -> float:
        """Ours against the published number, as a share of it."""
        return self.predicted / self.published - 1.0


@dataclass(frozen=True, slots=True)
class Source:
    """A table of measurements: where it is from, what of ours was set on it, and what is asked of us.

    `run` computes the cases, `brief` some of them where all take long: what the tests compute. `rivals` are published
    or measured errors of other tools on the same numbers.
    """

    name: str
    title: str
    citation: str
    unit: str
    run: Callable[[], list[Case]]
    rule: Rule
    tolerance: float = 0.0
    ranked: bool = False
    fitted: str = "nothing"
    assumed: str = ""
    rivals: tuple[tuple[str, str], ...] = field(default=())
    brief: Callable[[], list[Case]] | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a source came out. Errors are shares; `misranked` names pairs whose order is wrong."""

    num_cases: int
    mean_error: float
    worst_error: float
    bias: float
    misranked: tuple[str, ...]
    passed: bool


def judge(source: Source, cases: Sequence[Case]) -> Verdict:
    """Judge the cases of a source."""
    errors = [case.error for case in cases if not case.calibration]
    mean = sum(map(abs, errors)) / len(errors)
    worst = max(map(abs, errors))
    misranked = tuple(_misranked(cases)) if source.ranked else ()
    measured = {"mean": mean, "each": worst, "shown": 0.0}[source.rule]
    within = source.rule == "shown" or measured <= source.tolerance
    return Verdict(len(errors), mean, worst, sum(errors) / len(errors), misranked, within and not misranked)


def _misranked(cases: Sequence[Case]) -> list[str]:
    """Pairs of one group whose published numbers differ and whose predicted ones do not follow."""
    return [
        f"{one.label} and {other.label}"
        for one, other in combinations(cases, 2)
        if one.group == other.group
        and one.published != other.published
        and (one.predicted - other.predicted) * (one.published - other.published) <= 0.0
    ]
