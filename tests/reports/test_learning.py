"""Loss curves of a sweep that trained."""

from typing import Any

import numpy as np
import pytest

from reports.figures import learning

Curve = list[tuple[float, float | None]]
CURVE: Curve = [(1e5 * number, 6.0 / number) for number in range(1, 11)]


def result(curves: list[list[Curve]], names: list[str], axes: int = 1) -> dict[str, Any]:
    """A sweep of cases by name; with two axes their names stand on the second, and the first has two values."""
    values = ["one", "two"]
    labels = [[name] for name in names] if axes == 1 else [[value, name] for value in values for name in names]
    return {
        "seeds": list(range(len(curves[0]))),
        "axes": [{"name": "where", "values": values}, {"name": "what", "values": names}][2 - axes :],
        "cases": [{"labels": label} for label in labels],
        "curves": curves,
    }


def panels(plot: Any) -> list[Any]:
    return [axes for axes in plot.figure.axes if axes.get_visible()]


def test_a_line_is_the_mean_of_the_seeds_without_the_first_tenth() -> None:
    higher: Curve = [(tokens, (loss or 0.0) + 1.0) for tokens, loss in CURVE]
    plot = learning.draw(result([[CURVE, higher]], ["a"]))
    assert plot is not None
    (axes,) = panels(plot)
    (line,) = axes.lines
    assert list(line.get_xdata()) == pytest.approx([number / 10 for number in range(1, 11)])
    assert list(line.get_ydata()) == pytest.approx([6.0 / number + 0.5 for number in range(1, 11)])
    assert "2 seeds" in plot.reading
    assert plot.rows[0] == ("a", 0, 1e5, 6.0)
    assert len(plot.rows) == 20


def test_two_axes_and_many_cases_make_panels() -> None:
    plot = learning.draw(result([[CURVE]] * 4, ["a", "b"], axes=2))
    assert [axes.get_title(loc="left") for axes in panels(plot)] == ["where one", "where two"]
    plot = learning.draw(result([[CURVE]] * 10, list("abcdefghij")))
    names = [[line.get_label() for line in axes.lines] for axes in panels(plot)]
    assert [each[0] for each in names] == ["a", "a"]
    assert [name for each in names for name in each[1:]] == list("bcdefghij")


def test_what_has_diverged_or_learned_nothing_is_not_drawn() -> None:
    diverged: Curve = [*CURVE[:5], *((tokens, None) for tokens, _ in CURVE[5:])]
    plot = learning.draw(result([[diverged], [[]]], ["a", "b"]))
    assert plot is not None
    (line,) = panels(plot)[0].lines
    assert list(np.isnan(line.get_ydata())) == [False] * 5 + [True] * 5
    assert plot.png()
    assert learning.draw(result([[[]], [[]]], ["a", "b"])) is None
    assert learning.draw({"cases": [], "axes": []}) is None
