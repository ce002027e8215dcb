"""`orionbed train`: the folder it writes, seeds in a row, an end before the end."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

TINY = (
    *("--set", "emulator={width: 32, tokens: 8, sequences: 1, vocab: 32}", "--set", "training.microbatches=12"),
    *("--set", "training.samples=1", "--set", "training.sample_tokens=3", "--set", "training.checkpoint_every=4"),
    *("--set", "training.evaluation_microbatches=1"),
)


@pytest.fixture(autouse=True)
def _torch() -> None:
    pytest.importorskip("torch")


def test_a_training_writes_its_folder_once(orionbed: Any, terminal: Any) -> None:
    ended = orionbed("train", terminal.scenario, *TINY)
    assert (ended.code, ended.err) == (0, "")
    (folder,) = terminal.runs.iterdir()
    assert folder.name.startswith("tiny-train-")
    assert str(folder.relative_to(terminal.folder) / "report.html") in ended.out
    names = {path.name for path in folder.iterdir()}
    assert {"scenario.yaml", "resolved.yaml", "manifest.json", "summary.json", "loss.csv", "samples.txt"} <= names
    assert {"held_out.csv", "report.html", "steps.csv", "log.txt"} <= names
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["backend"] == "train"
    assert summary["train"]["microbatches"] == 12
    assert len((folder / "loss.csv").read_text().splitlines()) == 13
    again = orionbed("train", terminal.scenario, *TINY)
    assert "is already done" in again.out
    assert folder.name in orionbed("ls").out
    assert "MFU" in orionbed("show", folder.name).out


def test_seeds_in_a_row_and_json(orionbed: Any, terminal: Any) -> None:
    ended = orionbed("train", terminal.scenario, *TINY, "--seeds", 2, "--seed", 3, "--jobs", 1, "--json")
    assert ended.code == 0
    assert [one["seed"] for one in json.loads(ended.out)] == [3, 4]
    refused = orionbed("train", terminal.scenario, "--seeds", 2, "--out", "here")
    assert refused.code == 2
    assert "--out is for one seed" in refused.err


def test_what_was_interrupted_goes_on(orionbed: Any, terminal: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from orionbed.cli.ending import Interrupted
    from orionbed.learning.learning import Learning

    learned = Learning._learned

    def interrupted(self: Learning) -> None:
        learned(self)
        if len(self.curve.points) == 9:
            raise Interrupted

    monkeypatch.setattr(Learning, "_learned", interrupted)
    ended = orionbed("train", terminal.scenario, *TINY)
    (kept,) = terminal.runs.iterdir()
    assert kept.name.endswith(".checkpoints")
    message = f"interrupted; its state is kept in {kept}; the same command goes on from there\n"
    assert (ended.code, ended.err) == (3, message)
    monkeypatch.setattr(Learning, "_learned", learned)
    ended = orionbed("train", terminal.scenario, *TINY)
    assert "goes on after 8 micro-batches" in ended.out
    assert [path.name.startswith("tiny-train-") for path in Path(terminal.runs).iterdir()] == [True]


def test_seeds_of_a_pool_are_interrupted_without_a_trace(
    orionbed: Any, terminal: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from orionbed.cli.ending import Interrupted

    train = sys.modules["orionbed.cli.train"]

    def interrupted(*_: object) -> None:
        raise Interrupted

    def ended(code: int) -> None:
        raise SystemExit(code)

    monkeypatch.setattr(train, "_write", interrupted)
    monkeypatch.setattr(train.os, "_exit", ended)
    monkeypatch.setattr("orionbed.processes.in_processes", lambda function, tasks, *_: [function(*t) for t in tasks])
    assert orionbed("train", terminal.scenario, *TINY, "--seeds", 2, "--jobs", 2).code == 3
    assert not terminal.runs.exists()
    monkeypatch.setattr(train, "_train_in_a_pool", interrupted)
    told = orionbed("train", terminal.scenario, *TINY, "--seeds", 2, "--jobs", 2)
    assert (told.code, told.err) == (3, "interrupted; a run that is not finished leaves nothing behind\n")


def test_kept_states_are_removed_with_everything(orionbed: Any, terminal: Any) -> None:
    (terminal.runs / ".tiny-train-000000-s0.checkpoints").mkdir(parents=True)
    orionbed("clean")
    assert list(terminal.runs.iterdir())
    orionbed("clean", "--all")
    assert not list(terminal.runs.iterdir())
