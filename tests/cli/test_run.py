"""`orionbed run`: the folder it writes, and when it runs, refuses or replaces."""

import csv
import json
from pathlib import Path

import pytest

from orionbed.runs import RUN_FILES
from orionbed.scenario import load

WALL_CLOCK = ("started_at", "wall_s", "git")


def summary_of(folder: Path) -> dict[str, object]:
    """A run's summary without what differs from one execution to the next."""
    summary = json.loads((folder / "summary.json").read_text())
    summary["engine"].pop("events_per_s")
    return {key: value for key, value in summary.items() if key not in WALL_CLOCK}


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def only(folder: Path) -> Path:
    (found,) = folder.iterdir()
    return found


def test_a_run_writes_its_folder_and_prints_where_the_report_is(orionbed, terminal) -> None:
    ended = orionbed("run", "tiny.yaml", "--set", "run.trace=window", "--set", "run.trace_from=1 min")
    assert (ended.code, ended.err) == (0, "")
    folder = only(terminal.runs)
    assert folder.name.startswith("tiny-sim-")
    assert folder.name.endswith("-s0")
    lines = ended.out.splitlines()
    assert lines[0] == f"run {folder.name}"
    assert lines[-2].startswith("MFU ")
    assert lines[-1] == f"report  runs/{folder.name}/report.html"
    names = {path.name for path in folder.iterdir()}
    # Drawn by the report; or only with a curve, or with samples, or from processes of their own, or of a training.
    of_training = {"loss.csv", "held_out.csv", "samples.txt"}
    assert names == set(RUN_FILES) - {"trace.json.gz", "curve.csv", "bands.csv", "journal.json"} - of_training
    assert (folder / "scenario.yaml").read_text() == terminal.scenario.read_text()
    assert (folder / "log.txt").read_text().startswith(f"run {folder.name}\n")
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["run"] == folder.name
    assert manifest["command"][:3] == ["orionbed", "run", "tiny.yaml"]
    assert json.loads((folder / "warnings.json").read_text()) == summary_of(folder)["warnings"]
    assert terminal.hidden() == []


def test_the_resolved_scenario_is_the_same_run(orionbed, terminal) -> None:
    orionbed("run", "tiny.yaml", "--seed", "3", "--set", "merge.every=1 min")
    folder = only(terminal.runs)
    resolved = load(folder / "resolved.yaml")
    assert resolved.run.seed == 3
    assert isinstance(resolved.merge, str) is False
    ended = orionbed("run", folder / "resolved.yaml")
    assert ended.out.startswith(f"run {folder.name} is already done")
    assert only(terminal.runs) == folder


def test_json_is_the_summary_and_nothing_else(orionbed, terminal) -> None:
    ended = orionbed("run", "tiny.yaml", "--json")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == (only(terminal.runs) / "summary.json").read_text()
    again = orionbed("run", "tiny.yaml", "--json")
    assert again.out == ended.out


def test_the_same_id_again_says_so_and_changes_nothing(orionbed, terminal) -> None:
    orionbed("run", "tiny.yaml")
    folder = only(terminal.runs)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    ended = orionbed("run", "tiny.yaml")
    assert ended.code == 0
    assert ended.out.startswith(f"run {folder.name} is already done; --force runs it again\nMFU ")
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_force_runs_again_and_replaces_the_run_but_no_other_file(orionbed, terminal) -> None:
    orionbed("run", "tiny.yaml", "--samples", "0")
    folder = only(terminal.runs)
    (folder / "notes.txt").write_text("mine")
    (folder / "curve.csv").write_text("of a run before")
    (folder / "summary.json").write_text("{}")
    ended = orionbed("run", "tiny.yaml", "--force")
    assert (ended.code, ended.err) == (0, "")
    assert only(terminal.runs) == folder
    assert summary_of(folder)["scenario"] == "tiny"
    assert (folder / "notes.txt").read_text() == "mine"
    assert not (folder / "curve.csv").exists()
    assert terminal.hidden() == []


def test_what_changes_the_result_changes_the_id(orionbed, terminal) -> None:
    orionbed("run", "tiny.yaml")
    for change in (["--seed", "1"], ["--set", "run.duration=6 min"], ["--set", "pipeline.schedule.window=2"]):
        ended = orionbed("run", "tiny.yaml", *change)
        assert "already done" not in ended.out
    names = sorted(folder.name for folder in terminal.runs.iterdir())
    assert len(names) == 4
    digests = [name.rpartition("-")[0] for name in names]
    assert len(set(digests)) == 3  # a seed has no part in the digest


class TestOut:
    """`--out DIR` puts a run's files straight into DIR, and nobody else's files are in danger."""

    def test_new_folder(self, orionbed, terminal) -> None:
        ended = orionbed("run", "tiny.yaml", "--out", "a/b")
        assert ended.code == 0
        assert ended.out.endswith("report  a/b/report.html\n")
        assert (terminal.folder / "a/b/summary.json").is_file()
        assert not terminal.runs.exists()
        assert terminal.hidden() == []

    def test_empty_folder_even_the_current_one(self, orionbed, terminal, monkeypatch: pytest.MonkeyPatch) -> None:
        here = terminal.folder / "empty"
        here.mkdir()
        inode = here.stat().st_ino
        monkeypatch.chdir(here)
        ended = orionbed("run", "../tiny.yaml", "--out", ".")
        assert (ended.code, ended.err) == (0, "")
        assert (here / "summary.json").is_file()
        assert here.stat().st_ino == inode  # still the folder that shells and mounts know
        assert terminal.hidden() == []

    def test_the_same_run_again(self, orionbed) -> None:
        orionbed("run", "tiny.yaml", "--out", "here")
        ended = orionbed("run", "tiny.yaml", "--out", "here")
        assert ended.code == 0
        assert "is already done" in ended.out

    def test_another_run_is_not_taken_for_this_one(self, orionbed, terminal) -> None:
        orionbed("run", "tiny.yaml", "--out", "here")
        before = summary_of(terminal.folder / "here")
        ended = orionbed("run", "tiny.yaml", "--out", "here", "--seed", "1")
        assert (ended.code, ended.out) == (2, "")
        assert ended.err.startswith("here holds the run tiny-sim-")
        assert "--force" in ended.err
        assert summary_of(terminal.folder / "here") == before
        assert orionbed("run", "tiny.yaml", "--out", "here", "--seed", "1", "--force").code == 0
        assert summary_of(terminal.folder / "here")["seed"] == 1

    @pytest.mark.parametrize("force", [[], ["--force"]], ids=["plain", "force"])
    @pytest.mark.parametrize("file", ["thesis.tex", "manifest.json", "summary.json", "sub/thesis.tex"])
    def test_a_foreign_folder_is_refused_and_kept(self, orionbed, terminal, force: list[str], file: str) -> None:
        path = terminal.folder / "mine" / file
        path.parent.mkdir(parents=True)
        path.write_text('{"run": "away", "name": "a web app"}')
        ended = orionbed("run", "tiny.yaml", "--out", "mine", *force)
        assert (ended.code, ended.out) == (2, "")
        assert ended.err == "mine is not empty and holds no run; nothing is overwritten, choose another --out\n"
        assert [p for p in (terminal.folder / "mine").rglob("*") if p.is_file()] == [path]

    @pytest.mark.parametrize("force", [[], ["--force"]], ids=["plain", "force"])
    def test_a_file_is_refused_and_kept(self, orionbed, terminal, force: list[str]) -> None:
        (terminal.folder / "mine").write_text("mine")
        ended = orionbed("run", "tiny.yaml", "--out", "mine", *force)
        assert (ended.code, ended.out) == (2, "")
        assert "mine is a file" in ended.err
        assert (terminal.folder / "mine").read_text() == "mine"


def test_a_run_whose_report_fails_leaves_nothing(orionbed, terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(folder: Path) -> None:
        raise RuntimeError(folder.name)

    monkeypatch.setattr("orionbed.cli.run._write_report", fail)
    with pytest.raises(RuntimeError):
        orionbed("run", "tiny.yaml", "--out", "a/b")
    assert [path.name for path in terminal.folder.iterdir()] == ["tiny.yaml"]


def test_a_curve_is_written_and_read_off(orionbed, terminal) -> None:
    ended = orionbed(
        "run",
        "tiny.yaml",
        "--set",
        "report.uplinks=[50 Mbps, 200 Mbps]",
        "--set",
        "report.horizon=1 min",
        "--jobs",
        "2",
    )
    assert ended.code == 0
    folder = only(terminal.runs)
    rows = rows_of(folder / "curve.csv")
    assert [(float(row["uplink_bps"]), row["boundary"]) for row in rows] == [
        *((5e7, "resbm"), (2e8, "resbm"), (5e7, "none"), (2e8, "none"))
    ]
    needed = json.loads((folder / "summary.json").read_text())["curve_needed"]
    assert {row["boundary"] for row in needed} == {"resbm", "none"}


def test_samples_give_bands_whatever_the_number_of_processes(orionbed, terminal) -> None:
    from orionbed.sampling import QUANTITIES, one_draw

    ended = orionbed("run", "tiny.yaml", "--samples", "3", "--jobs", "2")
    assert (ended.code, ended.err) == (0, "")
    folder = only(terminal.runs)
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["bands_samples"] == 3
    assert set(summary["bands"]) == set(QUANTITIES.values())
    assert all(low <= middle <= high for low, middle, high in summary["bands"].values())
    rows = rows_of(folder / "bands.csv")
    # As computed here, one after the other, in one process and in another order.
    scenario = load("tiny.yaml")
    alone = {index: one_draw(scenario, "sim", 0, index) for index in (2, 0, 1)}
    assert rows == [{name: str(value) for name, value in alone[index].items()} for index in range(3)]
    assert len({row["network.uplink.median"] for row in rows}) == 3


def one_after_the_other(function, arguments, _jobs, _progress) -> list[object]:
    """What `in_processes` does, in this process."""
    return [function(*each) for each in arguments]


def test_samples_of_a_certain_scenario_say_so(orionbed, terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orionbed.sampling.in_processes", one_after_the_other)
    terminal.scenario.write_text(terminal.scenario.read_text().partition("uncertain:")[0])
    ended = orionbed("run", "tiny.yaml", "--samples", "2")
    assert ended.code == 0
    assert "nothing is under `uncertain`: the draws differ by their seeds alone" in ended.out


def test_a_draw_that_cannot_be_is_told(orionbed, terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orionbed.sampling.in_processes", one_after_the_other)
    text = terminal.scenario.read_text()
    key = "  network.uplink.median: {dist: uniform, low: 100 Mbps, high: 400 Mbps}\n"
    terminal.scenario.write_text(text.replace(key, "  merge.quorum_floor: {dist: normal, mean: 0.9, sd: 5}\n"))
    ended = orionbed("run", "tiny.yaml", "--samples", "9")
    assert ended.code == 2
    assert "of `uncertain` is no good, narrow the distribution it came from" in ended.err
    assert "merge.quorum_floor" in ended.err
    assert not terminal.runs.exists()
