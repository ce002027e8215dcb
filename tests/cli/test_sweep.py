"""`orionbed sweep`: what it prints and writes, what it keeps, what it refuses."""

import csv
import json
import re
from pathlib import Path

import pytest

from orionbed.cli.ending import Interrupted
from orionbed.sweeps import running

SWEEP = """\
scenario: tiny
title: Window of four peers
set: {run.duration: 20 s, merge: none}
vary: {pipeline.schedule.window: [4, 1]}
seeds: 2
measure: [mfu.in_phase, tokens.per_s.wall_clock]
"""


@pytest.fixture
def file(terminal) -> Path:
    path = terminal.folder / "mine.yaml"
    path.write_text(SWEEP)
    return path


@pytest.fixture(autouse=True)
def _undrawn(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Drawing takes longer than all else here."""
    if "drawn" not in request.node.name:
        monkeypatch.setattr("reports.build_sweep", lambda _, folder: (folder / "sweep.png").write_bytes(b"png"))


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The seeds of the runs that are done from now on."""
    seeds: list[int] = []
    one_run = running.one_run

    def run(*task):
        seeds.append(task[2])
        return one_run(*task)

    monkeypatch.setattr(running, "one_run", run)
    return seeds


def folder_of(terminal) -> Path:
    (folder,) = terminal.runs.iterdir()
    return folder


def rows_of(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "sweep.csv").read_text().splitlines()))


def test_a_sweep_is_printed_and_written(orionbed, terminal, file) -> None:
    ended = orionbed("sweep", "mine.yaml", "--jobs", 1)
    assert ended.code == 0, ended.err
    folder = folder_of(terminal)
    assert re.fullmatch(r"mine-sweep-[0-9a-f]{6}", folder.name)
    assert "Window of four peers: tiny, 2 cases, seeds 0 to 1; differences are to the first case" in ended.out
    assert "MFU, in training phases" in ended.out
    assert re.search(r"\n  1 .* lower\n", ended.out)
    assert {path.name for path in folder.iterdir()} == {
        "manifest.json", "runs.jsonl", "sweep.csv", "sweep.json", "sweep.png", "sweep.yaml",
    }  # fmt: skip
    assert (folder / "sweep.yaml").read_text() == SWEEP
    rows = rows_of(folder)
    assert [(row["pipeline.schedule.window"], row["seed"], row["fits"]) for row in rows] == [
        ("4", "0", "yes"), ("4", "1", "yes"), ("1", "0", "yes"), ("1", "1", "yes"),
    ]  # fmt: skip
    result = json.loads((folder / "sweep.json").read_text())
    wide, narrow = (case["results"]["mfu.in_phase"] for case in result["cases"])
    assert wide["values"] == [float(row["mfu.in_phase"]) for row in rows[:2]]
    assert wide["mean"] == pytest.approx(sum(wide["values"]) / 2)
    assert (wide["least"], wide["greatest"]) == (min(wide["values"]), max(wide["values"]))
    pairs = [one - other for one, other in zip(narrow["values"], wide["values"], strict=True)]
    assert wide["difference"] is None
    assert narrow["difference"]["mean"] == pytest.approx(sum(pairs) / 2)
    assert narrow["difference"]["verdict"] == "lower"


def test_a_row_is_what_a_run_of_that_case_gives(orionbed, terminal, file) -> None:
    orionbed("sweep", "mine.yaml", "--jobs", 1)
    sets = [
        word for value in ("run.duration=20 s", "merge=none", "pipeline.schedule.window=1") for word in ("--set", value)
    ]
    orionbed("run", "tiny.yaml", *sets, "--seed", 1, "--out", "one")
    summary = json.loads((terminal.folder / "one/summary.json").read_text())
    assert float(rows_of(folder_of(terminal))[-1]["mfu.in_phase"]) == summary["mfu"]["in_phase"]


def test_the_same_bytes_on_two_processes(orionbed, terminal, file) -> None:
    for jobs in (1, 2):
        assert orionbed("sweep", "mine.yaml", "--jobs", jobs, "--seeds", 1, "--out", f"with{jobs}").code == 0
    for name in ("sweep.csv", "sweep.json", "runs.jsonl"):
        assert (terminal.folder / "with1" / name).read_bytes() == (terminal.folder / "with2" / name).read_bytes()


def test_json_and_nothing_else(orionbed, terminal, file) -> None:
    ended = orionbed("sweep", "mine.yaml", "--jobs", 1, "--json", "--seeds", 1)
    assert json.loads(ended.out) == json.loads((folder_of(terminal) / "sweep.json").read_text())
    assert ended.out.count("no interval") == 2


def test_more_seeds_only_add_runs(orionbed, terminal, file, counted) -> None:
    orionbed("sweep", "mine.yaml", "--jobs", 1)
    assert counted == [0, 1, 0, 1]
    orionbed("sweep", "mine.yaml", "--jobs", 1, "--seeds", 3)
    assert counted == [0, 1, 0, 1, 2, 2]
    orionbed("sweep", "mine.yaml", "--jobs", 1)
    assert len(counted) == 6
    assert len((folder_of(terminal) / "runs.jsonl").read_text().splitlines()) == 7
    orionbed("sweep", "mine.yaml", "--jobs", 1, "--force")
    assert len(counted) == 10


def test_an_interrupted_sweep_goes_on_where_it_was(orionbed, terminal, file, monkeypatch) -> None:
    calls: list[int] = []
    one_run = running.one_run

    def run(*task):
        calls.append(task[2])
        if len(calls) == 3:
            raise Interrupted
        return one_run(*task)

    monkeypatch.setattr(running, "one_run", run)
    ended = orionbed("sweep", "mine.yaml", "--jobs", 1)
    assert ended.code == 3
    folder = folder_of(terminal)
    kept = f"2 runs are kept in runs/{folder.name}; the same command goes on from there"
    assert ended.err == f"interrupted; {kept}\n"
    assert [path.name for path in folder.iterdir()] == ["runs.jsonl"]
    with (folder / "runs.jsonl").open("a") as kept:
        kept.write('{"run": "to')  # killed in the middle of a line
    assert orionbed("sweep", "mine.yaml", "--jobs", 1).code == 0
    assert len(calls) == 5
    orionbed("sweep", "mine.yaml", "--jobs", 1, "--out", "whole")
    assert (folder / "sweep.csv").read_bytes() == (terminal.folder / "whole/sweep.csv").read_bytes()
    assert (folder / "runs.jsonl").read_bytes() == (terminal.folder / "whole/runs.jsonl").read_bytes()


def test_cleaning_all_removes_sweeps_and_nothing_else(orionbed, terminal, file) -> None:
    orionbed("sweep", "mine.yaml", "--jobs", 1, "--seeds", 1)
    orionbed("clean")
    assert len(list(terminal.runs.iterdir())) == 1
    (terminal.runs / "notes").mkdir()
    (terminal.runs / "notes/runs.jsonl").write_text("mine")
    assert orionbed("clean", "--all").out == "removed 1 folder from runs\n"
    assert [path.name for path in terminal.runs.iterdir()] == ["notes"]


def test_interrupted_in_the_first_run_it_leaves_nothing(orionbed, terminal, file, monkeypatch) -> None:
    def run(*task):
        raise Interrupted

    monkeypatch.setattr(running, "one_run", run)
    ended = orionbed("sweep", "mine.yaml", "--jobs", 1)
    assert (ended.code, ended.err) == (3, "interrupted; a run that is not finished leaves nothing behind\n")
    assert list(terminal.runs.iterdir()) == []


def test_a_folder_of_something_else_is_left_alone(orionbed, terminal, file) -> None:
    (terminal.folder / "mine").mkdir()
    (terminal.folder / "mine/letter.txt").write_text("dear")
    ended = orionbed("sweep", "mine.yaml", "--jobs", 1, "--out", "mine")
    assert (ended.code, ended.err) == (
        2, "mine is not empty and holds no sweep; nothing is overwritten, choose another --out\n",
    )  # fmt: skip
    orionbed("sweep", "mine.yaml", "--jobs", 1, "--out", "one")
    ended = orionbed("sweep", "mine.yaml", "--jobs", 1, "--out", "one", "--set", "run.duration=21 s")
    assert ended.code == 2
    assert re.match(r"one holds the sweep mine-sweep-\w{6}; use --force to replace it, or choose", ended.err)


def test_a_wrong_key_ends_it_before_anything_runs(orionbed, terminal, file, counted) -> None:
    file.write_text(SWEEP.replace("window: [4, 1]", "windw: [4, 1]"))
    ended = orionbed("sweep", "mine.yaml")
    assert ended.code == 2
    assert ended.err == "mine.yaml:4:8: vary.pipeline.schedule.windw: unknown key; did you mean window?\n"
    assert counted == []
    assert not terminal.runs.exists()


def test_a_case_that_does_not_fit_is_marked(orionbed, terminal, file) -> None:
    file.write_text(SWEEP.replace("pipeline.schedule.window: [4, 1]", "batch.sequences: [4, 40000]"))
    ended = orionbed("sweep", "mine.yaml", "--jobs", 1, "--seeds", 1)
    assert "    does not fit: stage 0 needs" in ended.out
    assert [row["fits"] for row in rows_of(folder_of(terminal))] == ["yes", "no"]


def test_a_sweep_is_drawn_and_has_a_page(orionbed, terminal, file) -> None:
    ended = orionbed("sweep", "mine.yaml", "--jobs", 1, "--seeds", 1, "--png", "here.png")
    assert ended.code == 0, ended.err
    folder = folder_of(terminal)
    assert (terminal.folder / "here.png").read_bytes() == (folder / "sweep.png").read_bytes()
    assert (folder / "sweep.png").read_bytes().startswith(b"\x89PNG")
    page = (folder / "report.html").read_text()
    assert "<h1>Window of four peers</h1>" in page
    assert "one seed: no interval" in page
    assert "<svg" in page
    assert "http" not in re.sub(r"http://www.w3.org/\S+", "", page)
