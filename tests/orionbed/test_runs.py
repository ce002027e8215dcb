"""The run store: ids, folders that become visible when they are finished, finding and removing."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from orionbed import runs
from orionbed.runs import RunError, RunId, find_run, held_run, is_done, leftovers, list_runs, run_id, unfinished
from orionbed.scenario import Scenario, apply, load, to_yaml
from orionbed.scenario.packaged import FOLDER

MANIFEST = '{"run": "x-sim-000000-s0", "packages": {}}'
ID = RunId("x", "sim", "000000", 0)


@pytest.fixture(scope="module")
def scenario() -> Scenario:
    return load("minimal")


def finish(target: Path, *, force: bool = False, meanwhile: Callable[[], None] | None = None, **files: str) -> None:
    """Write a run into `target` as the command line does; `meanwhile` happens before it is finished."""
    with unfinished(target, force=force) as folder:
        for name, text in {"manifest": MANIFEST, "summary": '{"schema_version": 1}', **files}.items():
            (folder / f"{name}.json").write_text(text)
        if meanwhile is not None:
            meanwhile()


def interrupted(target: Path, *, force: bool = False, **files: str) -> None:
    """Write a run into `target` and be interrupted just before the end."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    finish(target, force=force, meanwhile=interrupt, **files)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class TestId:
    def test_reads_as_name_backend_digest_and_seed(self, scenario: Scenario) -> None:
        found = run_id(scenario, "sim", 0)
        assert str(found) == f"minimal-sim-{found.digest}-s0"
        assert len(found.digest) == 6
        assert int(found.digest, 16) >= 0

    def test_is_stable(self, scenario: Scenario) -> None:
        assert run_id(scenario, "sim", 0) == run_id(load("minimal"), "sim", 0)

    def test_seeds_share_the_digest(self, scenario: Scenario) -> None:
        first, second = run_id(scenario, "sim", 0), run_id(runs.with_seed(scenario, 5), "sim", 0)
        assert first.digest == second.digest
        assert (first.seed, second.seed) == (0, 5)

    def test_a_seed_takes_no_source_away(self, scenario: Scenario) -> None:
        assert runs.with_seed(scenario, 5).provenance == scenario.provenance

    def test_everything_else_changes_it(self, scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
        longer = apply(scenario, {"run.duration": 1.0})
        found = [run_id(scenario, "sim", 0), run_id(scenario, "real", 0), run_id(scenario, "sim", 3)]
        found.append(run_id(longer, "sim", 0))
        monkeypatch.setattr(runs, "version", lambda: "9.9")
        found.append(run_id(scenario, "sim", 0))
        assert len({each.digest for each in found}) == 5

    def test_a_file_that_the_scenario_names_changes_it(self, scenario: Scenario, tmp_path: Path) -> None:
        profile = tmp_path / "mine.yaml"
        text = (FOLDER / "gpus" / "a100-80gb.yaml").read_text()
        profile.write_text(text)
        named = apply(scenario, {"peers.gpu": str(profile)})
        before = run_id(named, "sim", 0)
        profile.write_text(text.replace("312 TFLOP/s", "624 TFLOP/s"))
        assert run_id(named, "sim", 0) != before

    def test_so_does_the_text_that_is_learned_from(self, scenario: Scenario, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_text("one")
        (tmp_path / "a.parquet").write_bytes(b"one")
        for kind, path in (("text", tmp_path), ("text", tmp_path / "a.txt"), ("parquet", tmp_path / "a.parquet")):
            named = apply(scenario, {"training": {"data": {"kind": kind, "path": str(path)}}})
            before = run_id(named, "train", 0)
            assert run_id(named, "train", 0) == before
            (tmp_path / "a.txt").write_text((tmp_path / "a.txt").read_text() + "!")
            (tmp_path / "a.parquet").write_bytes(bytes(len(kind)))
            assert run_id(named, "train", 0) != before


class TestUnfinished:
    def test_the_folder_appears_when_all_is_well(self, tmp_path: Path) -> None:
        target = tmp_path / "a" / "b" / "run"
        with unfinished(target, force=False) as folder:
            assert not target.exists()
            assert folder.parent == target.parent
            (folder / "x").write_text("1")
        assert names(target) == ["x"]
        assert names(target.parent) == ["run"]

    def test_nothing_is_left_of_a_failure(self, tmp_path: Path) -> None:
        with pytest.raises(KeyboardInterrupt):
            interrupted(tmp_path / "a" / "b")
        assert names(tmp_path) == []

    def test_folders_that_were_there_stay(self, tmp_path: Path) -> None:
        (tmp_path / "a").mkdir()
        with pytest.raises(ValueError, match="x"), unfinished(tmp_path / "a" / "b" / "c", force=False):
            raise ValueError("x")
        assert names(tmp_path) == ["a"]
        assert names(tmp_path / "a") == []

    def test_a_folder_made_by_another_process_meanwhile_is_kept(self, tmp_path: Path) -> None:
        target = tmp_path / "run"

        def put_theirs() -> None:
            target.mkdir()
            (target / "theirs").write_text("theirs")

        for force in (False, True):
            with pytest.raises(RunError, match="nothing is overwritten"):
                finish(target, force=force, meanwhile=put_theirs)
            assert names(tmp_path) == ["run"]
            assert names(target) == ["theirs"]
            (target / "theirs").unlink()
            target.rmdir()

    def test_a_run_finished_by_another_process_meanwhile_is_kept(self, tmp_path: Path) -> None:
        target = tmp_path / "run"
        with pytest.raises(RunError, match="holds the run x-sim-000000-s0"):
            finish(target, meanwhile=lambda: finish(target, theirs="theirs"), mine="mine")
        assert names(target) == ["manifest.json", "summary.json", "theirs.json"]

    def test_a_folder_left_by_an_earlier_process_of_our_number(self, tmp_path: Path) -> None:
        (tmp_path / f".run.partial-{os.getpid()}" / "old").mkdir(parents=True)
        finish(tmp_path / "run")
        assert names(tmp_path / "run") == ["manifest.json", "summary.json"]

    def test_force_replaces_run_files_only(self, tmp_path: Path) -> None:
        target = tmp_path / "run"
        finish(target)
        (target / "figures").mkdir()
        for name in ("curve.csv", "notes.txt", "figures/old.svg", "figures/notes.txt"):
            (target / name).write_text("old")
        with unfinished(target, force=True) as folder:
            (folder / "figures").mkdir()
            for name in ("summary.json", "manifest.json", "figures/new.svg"):
                (folder / name).write_text(MANIFEST)
        assert names(target) == ["figures", "manifest.json", "notes.txt", "summary.json"]
        assert names(target / "figures") == ["new.svg", "notes.txt"]

    def test_a_failed_replacement_changes_nothing(self, tmp_path: Path) -> None:
        target = tmp_path / "run"
        finish(target, log="old")
        with pytest.raises(KeyboardInterrupt):
            interrupted(target, force=True, log="new")
        assert names(target) == ["log.json", "manifest.json", "summary.json"]
        assert (target / "log.json").read_text() == "old"

    def test_a_link_to_a_folder_is_followed(self, tmp_path: Path) -> None:
        (tmp_path / "real").mkdir()
        (tmp_path / "link").symlink_to(tmp_path / "real")
        finish(tmp_path / "link")
        assert (tmp_path / "link").is_symlink()
        assert names(tmp_path / "real") == ["manifest.json", "summary.json"]


class TestIsDone:
    @pytest.fixture
    def target(self, scenario: Scenario, tmp_path: Path) -> Path:
        finish(tmp_path / "run")
        (tmp_path / "run" / "resolved.yaml").write_text(to_yaml(scenario))
        return tmp_path / "run"

    def test_the_very_run(self, scenario: Scenario, target: Path) -> None:
        assert is_done(target, ID, scenario)

    def test_another_id_or_no_run(self, scenario: Scenario, target: Path) -> None:
        assert not is_done(target, RunId("x", "sim", "000000", 1), scenario)
        assert not is_done(target / "nowhere", ID, scenario)

    @pytest.mark.parametrize("name", ["summary.json", "manifest.json", "resolved.yaml"])
    def test_an_incomplete_one(self, scenario: Scenario, target: Path, name: str) -> None:
        (target / name).unlink()
        assert not is_done(target, ID, scenario)

    def test_two_scenarios_with_one_digest(self, scenario: Scenario, target: Path) -> None:
        """Six digits collide once in a few thousand runs of one name; silence would be a wrong result."""
        with pytest.raises(RunError, match="the same id but of another scenario"):
            is_done(target, ID, apply(scenario, {"run.duration": 1.0}))


@pytest.mark.parametrize(
    ("text", "held"),
    [(MANIFEST, "x-sim-000000-s0"), ('{"run": "x"}', None), ('{"name": "app"}', None), ("[1]", None), ("{", None)],
)
def test_whose_manifest_it_is(tmp_path: Path, text: str, held: str | None) -> None:
    (tmp_path / "manifest.json").write_text(text)
    assert held_run(tmp_path) == held
    assert held_run(tmp_path / "nowhere") is None


class TestFinding:
    @pytest.fixture
    def store(self, tmp_path: Path) -> Path:
        for name in ("a-1", "a-12", "b-1"):
            finish(tmp_path / "runs" / name)
        (tmp_path / "runs" / ".hidden").mkdir()
        (tmp_path / "runs" / "comparison").mkdir()
        return tmp_path / "runs"

    def test_list(self, store: Path) -> None:
        assert [folder.name for folder in list_runs(store)] == ["a-1", "a-12", "b-1"]
        assert list_runs(store / "nowhere") == []

    @pytest.mark.parametrize(("given", "found"), [("a-1", "a-1"), ("a-12", "a-12"), ("b", "b-1")])
    def test_by_id_or_its_beginning(self, store: Path, given: str, found: str) -> None:
        assert find_run(given, store) == store / found

    def test_by_path(self, store: Path) -> None:
        assert find_run(str(store / "b-1"), store / "nowhere") == store / "b-1"

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ("a", "'a' may be a-1, a-12; write more of it"),
            ("c", "there is no run 'c' here or in .*; `orionbed ls` lists the runs"),
        ],
    )
    def test_not_found(self, store: Path, given: str, message: str) -> None:
        with pytest.raises(RunError, match=message):
            find_run(given, store)


def test_leftovers_of_living_processes_are_no_leftovers(tmp_path: Path) -> None:
    for name in (f".a.partial-{os.getpid()}", ".b.partial-4194305", ".partial-99999999999999999999", ".c.partial-x"):
        (tmp_path / name).mkdir()
    assert [folder.name for folder in leftovers(tmp_path)] == [".b.partial-4194305", ".partial-99999999999999999999"]
    assert leftovers(tmp_path / "nowhere") == []


def test_json_without_a_common_spelling_is_refused(tmp_path: Path) -> None:
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="JSON compliant"):
            runs.write_json(tmp_path / "x.json", {"value": value})
    runs.write_json(tmp_path / "y.json", {"value": "×", "b": 0.1})
    assert (tmp_path / "y.json").read_text(encoding="utf-8") == '{\n  "value": "×",\n  "b": 0.1\n}\n'


def test_manifest_has_what_it_takes_to_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/somewhere/bin/orionbed", "run", "minimal", "--seed", "3"])
    found = runs.manifest(
        RunId("x", "sim", "0", 3), command=runs.command_line(), started_at="now", wall_s=1.5, samples=2
    )
    assert found["command"] == ["orionbed", "run", "minimal", "--seed", "3"]
    assert (found["run"], found["seed"], found["samples"]) == ("x-sim-0-s3", 3, 2)
    assert {"orionbed", "numpy", "pydantic", "simpy"} <= set(found["packages"])
    json.dumps(found)


def test_git_state_is_empty_where_there_is_no_git(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert runs.git_state() == ""
