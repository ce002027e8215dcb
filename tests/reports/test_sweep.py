"""Sweeps and values of peers as lines and figures."""

from typing import Any

import pytest

from reports.figures import sweep as sweep_figure
from reports.figures import values as value_figure
from reports.sweeps import rows, sweep_lines
from reports.values import value_lines


def case(labels: list[str], values: list[float | None], *, misfit: str = "", first: bool = False) -> dict[str, Any]:
    known = [value for value in values if value is not None]
    mean = sum(known) / len(known) if known else None
    against = {"mean": 0.01, "low": -0.02, "high": 0.04, "num_pairs": 2, "verdict": "not distinguishable"}
    result = {"values": values, "mean": mean, "least": min(known, default=None), "greatest": max(known, default=None)}
    return {
        "labels": labels,
        "misfit": misfit,
        "aborted": {"1": "no micro-batch was completed in 30 days"} if misfit else {},
        "results": {"mfu.in_phase": {**result, "difference": None if first or not known else against}},
    }


@pytest.fixture
def result() -> dict[str, Any]:
    """Two windows and two routers; one case does not fit, one was never measured."""
    return {
        "sweep": "x-sweep-000000", "name": "x", "title": "", "scenario": "minimal", "seeds": [0, 1],
        "draws": False, "measures": ["mfu.in_phase"],
        "axes": [
            {"name": "pipeline.schedule.router", "values": ["swarm", "replica"], "numbers": None},
            {"name": "pipeline.schedule.window", "values": ["200", "4"], "numbers": [200.0, 4.0]},
        ],
        "cases": [
            case(["swarm", "200"], [0.3, 0.32], first=True),
            case(["swarm", "4"], [0.2, 0.21]),
            case(["replica", "200"], [0.31, 0.33], misfit="stage 0 needs 90.0 GB of the 80 GB of a100-80gb"),
            case(["replica", "4"], [None, None]),
        ],
    }  # fmt: skip


def test_lines_stand_along_numbers_and_carry_names(result) -> None:
    plot = sweep_figure.draw(result)
    (axes,) = [axes for axes in plot.figure.axes if axes.get_visible()]
    assert axes.get_xscale() == "log"
    assert axes.get_xlabel() == "pipeline.schedule.window   (lines: pipeline.schedule.router)"
    assert {text.get_text() for text in axes.texts} == {"swarm", "replica"}
    swarm = next(line for line in axes.lines if len(line.get_xdata()) == 2)
    assert list(swarm.get_xdata()) == [4.0, 200.0]
    hollow = [line for line in axes.lines if line.get_markerfacecolor() == "white"]
    assert len(hollow) == 1
    assert "Hollow: does not fit the memory" in plot.reading
    assert plot.rows[-1] == ("replica", "4", "mfu.in_phase", None, None, None)
    assert plot.png() == sweep_figure.draw(result).png()


def test_single_cases_with_names_are_bars(result) -> None:
    result["axes"] = [{"name": "case", "values": ["calm", "harsh"], "numbers": None}]
    result["cases"] = [case(["calm"], [0.3, 0.4], first=True), case(["harsh"], [0.1, 0.2], misfit="too large")]
    plot = sweep_figure.draw(result)
    bars = plot.figure.axes[0].patches
    assert [bar.get_width() for bar in bars] == pytest.approx([0.35, 0.15])
    assert bars[1].get_facecolor()[:3] == (1.0, 1.0, 1.0)
    assert [text.get_text() for text in plot.figure.axes[0].texts] == ["35.0\u00a0%", "15.0\u00a0%"]


def test_where_inputs_are_drawn_differences_are_shown(result) -> None:
    result |= {"draws": True, "axes": [{"name": "change", "values": ["as it was", "more"], "numbers": None}]}
    result["cases"] = [case(["as it was"], [0.3, 0.4], first=True), case(["more"], [0.31, 0.41])]
    plot = sweep_figure.draw(result)
    (axes,) = plot.figure.axes
    assert [text.get_text() for text in axes.texts] == ["35.0\u00a0%", "+1.0\u00a0points"]
    assert [line.get_markerfacecolor() for line in axes.lines[1:]] == ["white"], "the interval contains 0"
    assert axes.get_xlabel() == "difference to \u201cas it was\u201d, points"
    assert "Hollow: not distinguishable" in plot.reading


def test_a_table_marks_what_does_not_fit_or_was_not_measured(result) -> None:
    lines = sweep_lines(result)
    assert lines[0] == "minimal, 4 cases, seeds 0 to 1; differences are to the first case, 95 % intervals"
    assert "    does not fit: stage 0 needs 90.0 GB of the 80 GB of a100-80gb" in lines
    assert "    seed 1 ended early: no micro-batch was completed in 30 days" in lines
    cells = [row.cells for row in rows(result, "mfu.in_phase")]
    assert [row[-1] for row in cells] == ["first case", "not distinguishable", "not distinguishable", "not measured"]
    assert cells[1][3:6] == ["+1.0\u00a0points", "\u22122.0\u00a0points", "+4.0\u00a0points"]


def value(name: str, mean: float, low: float, high: float, verdict: str) -> dict[str, Any]:
    change = {"mean": mean, "low": low, "high": high, "num_pairs": 2, "verdict": verdict}
    runs = {"with": [100.0, 110.0], "without": [90.0, 100.0]}
    words = {"higher": "makes the run faster", "lower": "makes the run slower"}.get(verdict, verdict)
    return {
        "name": name, "num_peers": 1, "usd_per_hour": 1.25, "break_even_usd_per_hour": None, "verdict": words,
        "tokens_per_s": {**runs, "difference": change}, "usd_per_million_tokens": {**runs, "difference": None},
    }  # fmt: skip


def test_values_are_sorted_and_told_apart_without_colour() -> None:
    found = [
        value("slow", -5.0, -6.0, -4.0, "lower"),
        value("fast", 9.0, 8.0, 10.0, "higher"),
        value("so-so", 1.0, -1.0, 3.0, "not distinguishable"),
    ]
    result = {"scenario": "minimal", "by": "peer", "seeds": [0, 1], "horizon_s": 3600.0, "values": found}
    lines = value_lines(result)
    assert [line.split()[0] for line in lines[4:7]] == ["fast", "so-so", "slow"]
    assert lines[4].endswith("makes the run faster")
    assert lines[6].endswith("makes the run slower")
    plot = value_figure.draw(result)
    looks = [(line.get_marker(), line.get_markerfacecolor()) for line in plot.figure.axes[0].lines[:3]]
    assert len(set(looks)) == 3
    assert [row[0] for row in plot.rows] == ["slow", "fast", "so-so"]
