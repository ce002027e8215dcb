"""Trace files: replayed to the bit, and refused with the line that is wrong."""

from math import inf
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orionbed.absences import Absence
from orionbed.absences.recorded import away_by, read_churn_trace, write_churn_trace
from orionbed.scenario import ScenarioError, load

TRACE = """t,peer,state
0,s00r0,down
1.5 h,s00r0,up
2 h,s00r1,down
7300,s00r1,up
3 h,s01r0,up
4 h,s01r1,down
"""


def test_a_trace_is_replayed_exactly(away: Any, tmp_path: Path) -> None:
    file = tmp_path / "trace.csv"
    file.write_text(TRACE)
    found = away({"trace": str(file)}, 10.0, start_s=50.0, stages=2, replicas=2)
    assert found == [
        (0, Absence(50.0, 5450.0, "trace")),
        (1, Absence(7250.0, 7350.0, "trace")),
        (2, Absence(50.0, 10850.0, "trace")),  # it comes at 3 h: before that it was not there
        (3, Absence(14450.0, inf, "trace")),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "bad.csv:1: the first line must read t,peer,state"),
        ("t,peer\n", "bad.csv:1: the first line must read t,peer,state"),
        ("t,peer,state\n1,s00r0\n", "bad.csv:2: 2 columns, not 3"),
        ("t,peer,state\nsoon,s00r0,up\n", "bad.csv:2: t must be a number of seconds or a duration: 'soon' is not"),
        ("t,peer,state\n-1,s00r0,up\n", "bad.csv:2: t must not be below 0, not '-1'"),
        ("t,peer,state\nnan,s00r0,up\n", "bad.csv:2: t must not be below 0, not 'nan'"),
        ("t,peer,state\n1,s00r0,away\n", "bad.csv:2: state must be up or down, not 'away'"),
        ("t,peer,state\n2 min,s00r0,up\n1,s00r0,down\n", "bad.csv:3: s00r0 goes back in time, from 120 s to 1 s"),
        ("t,peer,state\n1,s00r0,up\n2,s00r0,up\n", "bad.csv:3: s00r0 is up already since 1 s; remove the line"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "bad.csv"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"bad\.csv") as caught:
        read_churn_trace(file)
    assert message in str(caught.value)
    with pytest.raises(ScenarioError, match=r"churn\.trace: is not a churn trace"):
        load("minimal", [f"churn={{trace: {file}}}"])


def test_a_peer_that_is_not_there_is_named(tmp_path: Path) -> None:
    file = tmp_path / "trace.csv"
    file.write_text("t,peer,state\n1,s09r0,down\n")
    with pytest.raises(ScenarioError, match="s09r0 selects nobody: there is no peer s09r0"):
        load("minimal", [f"churn={{trace: {file}}}"])
    with pytest.raises(ScenarioError, match="cannot be read: No such file or directory"):
        load("minimal", ["churn={trace: nowhere.csv}"])


def test_a_path_is_relative_to_the_scenario(tmp_path: Path) -> None:
    (tmp_path / "trace.csv").write_text(TRACE.replace("s01", "s02"))
    (tmp_path / "mine.yaml").write_text("extends: minimal\nchurn: {up: null, down: null, trace: trace.csv}\n")
    scenario = load(tmp_path / "mine.yaml")
    assert not isinstance(scenario.churn, str)
    assert scenario.churn.trace is not None
    assert len(read_churn_trace(scenario.churn.trace)) == 4


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.sampled_from(["a", "b"]), st.tuples(st.booleans(), st.sets(st.floats(0, 1e6), min_size=1))))
def test_what_is_written_is_read_back(tmp_path_factory: Any, drawn: dict[str, tuple[bool, set[float]]]) -> None:
    trace = {
        peer: [(time_s, first ^ bool(i % 2)) for i, time_s in enumerate(sorted(times))]
        for peer, (first, times) in drawn.items()
    }
    file = tmp_path_factory.mktemp("traces") / "trace.csv"
    write_churn_trace(file, trace)
    assert read_churn_trace(file) == trace
    for changes in trace.values():
        away = list(away_by(changes, 0.0))
        assert all(a.start_s < a.end_s for a in away)
        # Each change is an end of an absence, but a first one that says "up" at 0.
        ends = sorted({t for a in away for t in (a.start_s, a.end_s) if t not in {0.0, inf}})
        assert ends == [t for t, _ in changes if t > 0.0]
