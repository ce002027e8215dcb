"""`ls`, `show`, `compare` and `report`: reading finished runs, and stores with none or with broken ones."""

import json
import shutil
from pathlib import Path

import pytest

from orionbed.runs import run_files

from_finished = pytest.mark.usefixtures("in_finished")


@pytest.fixture
def in_finished(orionbed, finished, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand where the two finished runs are."""
    monkeypatch.chdir(finished.folder)


@pytest.fixture
def names(finished) -> list[str]:
    return sorted(folder.name for folder in finished.runs.iterdir())


@from_finished
def test_ls(orionbed, names) -> None:
    ended = orionbed("ls")
    assert (ended.code, ended.err) == (0, "")
    head, *rows = ended.out.splitlines()
    assert head.split() == ["run", "MFU", "tokens/s", "datacenter", "started"]
    assert [row.split()[0] for row in rows] == names
    assert len({row.index("%") for row in rows}) == 1  # columns stand below one another


@from_finished
def test_ls_json(orionbed, finished, names) -> None:
    rows = json.loads(orionbed("ls", "--json").out)
    assert [row["run"] for row in rows] == names
    summary = json.loads((finished.runs / names[1] / "summary.json").read_text())
    assert rows[1]["mfu"] == summary["mfu"]["wall_clock"]
    assert rows[1]["tokens_per_s"] == summary["tokens"]["per_s"]["wall_clock"]
    assert rows[1]["relative_speed"] == summary["datacenter"]["relative_speed"]


@pytest.mark.parametrize("command", ["ls", "clean"])
def test_a_store_that_does_not_exist(orionbed, terminal, command: str) -> None:
    ended = orionbed(command, "--runs", "nowhere")
    assert (ended.code, ended.err) == (0, "")
    assert "nowhere" in ended.out
    assert not (terminal.folder / "nowhere").exists()
    assert orionbed("ls", "--runs", "nowhere", "--json").out == "[]\n"


@pytest.mark.parametrize("command", [("show", "x"), ("compare", "x", "y"), ("report", "x")])
def test_reading_from_a_store_that_does_not_exist(orionbed, terminal, command: tuple[str, ...]) -> None:
    ended = orionbed(*command, "--runs", "nowhere")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == "there is no run 'x', and no folder nowhere with runs; say where with --runs\n"
    assert not (terminal.folder / "nowhere").exists()


def test_an_empty_store(orionbed, terminal) -> None:
    terminal.runs.mkdir()
    assert orionbed("ls").out == "no runs in runs; `orionbed run minimal` makes a run\n"
    assert orionbed("show", "x").err == "there is no run 'x' here or in runs; `orionbed ls` lists the runs\n"


@from_finished
@pytest.mark.parametrize("how", ["id", "beginning", "path", "path with a slash"])
def test_runs_go_by_id_beginning_or_path(orionbed, names, how: str) -> None:
    name = names[1]
    given = {"id": name, "beginning": name[:-1], "path": f"runs/{name}", "path with a slash": f"runs/{name}/"}[how]
    if how == "beginning":
        given = name if names[0].startswith(given) else given
    ended = orionbed("show", given)
    assert ended.code == 0
    assert ended.out.startswith(name)


@from_finished
def test_a_beginning_of_several_is_refused(orionbed, names) -> None:
    ended = orionbed("show", "tiny")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == f"'tiny' may be {names[0]}, {names[1]}; write more of it\n"


@from_finished
def test_show(orionbed, finished, names) -> None:
    ended = orionbed("show", names[0])
    assert (ended.code, ended.err) == (0, "")
    lines = ended.out.splitlines()
    assert lines[0] == f"{names[0]}   Four peers for five minutes"
    assert lines[1].startswith("  MFU ")
    assert "tokens/s" in lines[1]
    assert lines[2].split() == ["model.num_parameters", "17,830,400", "published", "17,830,400", "(input,", "+0.0%)"]
    assert lines[3].split()[:1] == ["mfu.wall_clock"]
    assert "published 0.002 (predicted, " in lines[3]
    assert lines[4].split() == ["mfu.nowhere", "not", "measured", "published", "0.5", "(predicted)"]
    assert "useful FLOPs" in ended.out
    assert "  warning: the run lasted 0.08 h" in ended.out
    assert lines[-1] == f"  scenario  runs/{names[0]}/resolved.yaml"


@from_finished
def test_show_json_is_the_summary(orionbed, finished, names) -> None:
    assert orionbed("show", names[0], "--json").out == (finished.runs / names[0] / "summary.json").read_text()


@from_finished
def test_compare(orionbed, names) -> None:
    ended = orionbed("compare", *names)
    assert (ended.code, ended.err) == (0, "")
    head, *rows = ended.out.splitlines()
    assert head.split() == ["quantity", "A", "B", "B", "-", "A"]
    assert rows[0].startswith("MFU, by the wall clock")


@from_finished
def test_compare_json(orionbed, finished, names) -> None:
    rows = {row["quantity"]: row for row in json.loads(orionbed("compare", *names, "--json").out)}
    row = rows["tokens.per_s.wall_clock"]
    a, b = (json.loads((finished.runs / name / "summary.json").read_text()) for name in names)
    assert row["a"] == a["tokens"]["per_s"]["wall_clock"]
    assert row["b"] == b["tokens"]["per_s"]["wall_clock"]
    assert row["difference"] == row["b"] - row["a"]


def test_report_of_one_run_again(orionbed, finished, names, terminal) -> None:
    """The only real page drawn here; what is on it is tested with `reports`."""
    folder = terminal.runs / names[0]
    shutil.copytree(finished.runs, terminal.runs)
    ended = orionbed("report", names[0])
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == f"report  runs/{names[0]}/report.html\n"
    assert "</html>" in (folder / "report.html").read_text()
    # Whatever a report writes is known as a run's own when runs are replaced and removed.
    assert {path for path in folder.rglob("*") if path.is_file()} == set(run_files(folder))


@from_finished
@pytest.mark.parametrize(
    ("options", "page"), [([], "runs/comparison/report.html"), (["--out", "new/both.html"], "new/both.html")]
)
def test_report_of_several(orionbed, names, monkeypatch: pytest.MonkeyPatch, options: list[str], page: str) -> None:
    asked = []
    monkeypatch.setattr("reports.build", lambda folders, out: asked.append((folders, out)) or out)
    ended = orionbed("report", *names, *options)
    assert (ended.code, ended.out) == (0, f"report  {page}\n")
    assert asked == [([Path("runs") / name for name in names], Path(page))]


class TestBrokenRuns:
    """A summary that cannot be read is named; it does not keep others from being read."""

    @pytest.fixture(autouse=True)
    def _store(self, terminal) -> None:
        for name, text in (
            ("garbage", "{"),
            ("list", "[]"),
            ("other", '{"name": "not ours"}'),
            ("old", '{"schema_version": 0}'),
        ):
            (terminal.runs / name).mkdir(parents=True)
            (terminal.runs / name / "summary.json").write_text(text)

    def test_ls_leaves_them_out_and_says_so(self, orionbed) -> None:
        assert orionbed("run", "tiny.yaml").code == 0
        ended = orionbed("ls")
        assert ended.code == 0
        assert len(ended.out.splitlines()) == 2
        assert ended.err.count("left out: ") == 4

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("garbage", "runs/garbage/summary.json is no JSON: "),
            ("list", "runs/list/summary.json is no summary of a run"),
            ("other", "runs/other/summary.json is no summary of a run"),
            ("old", "runs/old/summary.json has schema_version 0, this orionbed reads 1; run the scenario again"),
        ],
    )
    @pytest.mark.parametrize("command", ["show", "compare", "report"])
    def test_reading_one_says_what_is_wrong(self, orionbed, name: str, message: str, command: str) -> None:
        ended = orionbed(command, name, *([name] if command == "compare" else []))
        assert (ended.code, ended.out) == (2, "")
        assert "Traceback" not in ended.err
        if command != "report":  # which reads them in its own words
            assert ended.err.startswith(message)

    def test_a_broken_trace(self, orionbed, terminal) -> None:
        orionbed("run", "tiny.yaml", "--out", "here")
        (terminal.folder / "here" / "trace.npz").write_bytes(b"no trace")
        ended = orionbed("report", "here")
        assert (ended.code, ended.out) == (2, "")
        assert "here/trace.npz" in ended.err
