"""`clean` and `doctor`."""

import os
import re
from pathlib import Path

import pytest

from orionbed.cli import upkeep
from orionbed.cli.upkeep import TORCH

NO_PROCESS = 2**22 + 1  # above the highest process number Linux gives


@pytest.fixture
def store(terminal) -> Path:
    """One leftover of a dead process, one of a living one, and things that are none of orionbed's business."""
    for name in (f".x-sim-abc123-s0.partial-{NO_PROCESS}", f".y.partial-{os.getpid()}", ".z.partial-abc", "photos"):
        (terminal.runs / name).mkdir(parents=True)
        (terminal.runs / name / "file").write_text("x")
    (terminal.runs / f".file.partial-{NO_PROCESS}").write_text("a file")
    return terminal.runs


def test_clean_removes_leftovers_of_dead_processes_only(orionbed, store: Path) -> None:
    orionbed("run", "tiny.yaml")
    before = {path.name for path in store.iterdir()}
    ended = orionbed("clean")
    assert (ended.code, ended.out, ended.err) == (0, "removed 1 folder from runs\n", "")
    assert before - {path.name for path in store.iterdir()} == {f".x-sim-abc123-s0.partial-{NO_PROCESS}"}
    assert orionbed("clean").out == "removed 0 folders from runs\n"


def test_clean_finds_leftovers_of_a_run_that_was_to_be_replaced(orionbed, terminal) -> None:
    orionbed("run", "tiny.yaml", "--out", "runs/here")
    (terminal.runs / "here" / f".partial-{NO_PROCESS}").mkdir()
    assert orionbed("clean").out == "removed 1 folder from runs\n"
    assert terminal.hidden() == []


def test_clean_all_removes_runs_and_nothing_else(orionbed, store: Path) -> None:
    orionbed("run", "tiny.yaml")
    orionbed("run", "tiny.yaml", "--out", "runs/with-notes")
    orionbed("run", "tiny.yaml", "--out", "elsewhere")
    (store / "with-notes" / "notes.txt").write_text("mine")
    (store / "foreign").mkdir()
    (store / "foreign" / "summary.json").write_text("{}")
    (store / "link").symlink_to(store.parent / "elsewhere")
    ended = orionbed("clean", "--all")
    assert ended.code == 0
    assert ended.out.splitlines() == [
        "removed 2 folders from runs",
        "kept runs/foreign: no run of orionbed's own, or other files are in it",
        "kept runs/link: no run of orionbed's own, or other files are in it",
        "kept runs/with-notes: no run of orionbed's own, or other files are in it",
    ]
    assert (store / "photos" / "file").is_file()
    assert (store / "foreign" / "summary.json").is_file()
    assert (store.parent / "elsewhere" / "summary.json").is_file()
    assert [path.name for path in (store / "with-notes").iterdir()] == ["notes.txt"]


def test_doctor(orionbed) -> None:
    ended = orionbed("doctor")
    assert (ended.code, ended.err) == (0, "")
    assert [line.split()[1] for line in ended.out.splitlines()] == ["orionbed", "python", "cores", "disk", "torch"]


def test_doctor_fails_on_a_full_disk_and_says_what_to_do(orionbed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "NEEDED_DISK_BYTES", 1e18)
    ended = orionbed("doctor")
    assert ended.code == 1
    assert re.search(r"^--  disk .* free some disk space", ended.out, re.MULTILINE)


def test_doctor_and_torch(orionbed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep.importlib.util, "find_spec", lambda _name: None)
    assert f"torch     not installed   the simulator needs none; for emulator and real: pip install torch=={TORCH}" in (
        orionbed("doctor").out
    )


@pytest.mark.parametrize(("installed", "fine"), [(TORCH, True), (f"{TORCH}+cpu", True), ("2.4.1", False)])
def test_doctor_wants_one_version_of_torch(monkeypatch: pytest.MonkeyPatch, installed: str, fine: bool) -> None:
    monkeypatch.setattr(upkeep.importlib.util, "find_spec", lambda _name: object())
    monkeypatch.setattr("importlib.metadata.version", lambda _name: installed)
    found, ok, advice = upkeep._torch()
    assert (found, ok) == (installed, fine)
    assert TORCH in advice


def test_the_version_of_torch_is_that_of_the_package() -> None:
    text = (Path(upkeep.__file__).parents[2] / "pyproject.toml").read_text()
    assert f'torch = ["torch=={TORCH}"]' in text
