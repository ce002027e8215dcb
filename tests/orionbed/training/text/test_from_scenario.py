"""What a scenario says of its text: paths from its own folder, the vocabulary, what is refused before anything runs."""

from pathlib import Path
from typing import Any

import pytest

from orionbed.cli.ending import EXIT_INPUT, explained
from orionbed.emulation import model_shape
from orionbed.plan import make_plan
from orionbed.scenario import Scenario, ScenarioError, load
from orionbed.scenario.training import FileData, SyntheticData
from orionbed.training.shape import ModelShape
from orionbed.training.text import (
    TextError,
    held_out_batches,
    make_batches,
    make_tokenizer,
    require_text,
    sample_of,
    samples_of,
    vocab_of,
)

SHAPE = ModelShape((1, 1), 32, 48, 4, 2, 257, sequence=8, sequences=2, boundary=None)


def scenario_with(folder: Path, training: str, model: str = "") -> Scenario:
    (folder / "own.yaml").write_text(f"extends: minimal\n{model}training:\n  data: {training}\n")
    return load(folder / "own.yaml")


def test_paths_are_from_the_folder_of_the_scenario(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("words " * 20)
    data = scenario_with(tmp_path, "{kind: text, path: texts}").training.data
    assert isinstance(data, FileData)
    assert Path(data.path).resolve() == (tmp_path / "texts").resolve()
    tokens, targets = make_batches(data, SHAPE, 0)(0)
    assert tokens.shape == targets.shape == (2, 8)
    data = scenario_with(tmp_path, "{kind: text}").training.data
    assert isinstance(data, FileData)
    assert (data.path, data.tokenizer) == ("sample", "bytes")


def test_what_is_not_there_is_refused_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"own.yaml:3:28: training.data.path: there is no .*nowhere; give a path"):
        scenario_with(tmp_path, "{kind: text, path: nowhere}")
    with pytest.raises(ScenarioError, match=r"own.yaml:3:33: training.data.tokenizer: there is no .*t.json"):
        scenario_with(tmp_path, "{kind: text, tokenizer: t.json}")
    with pytest.raises(ScenarioError, match=r"own.yaml:\d+:\d+: model.vocab: must be at least 257, the tokens of"):
        scenario_with(tmp_path, "{kind: text}\n  model: own", "model: {vocab: 256}\n")
    scenario_with(tmp_path, "{kind: text}", "model: {vocab: 256}\n")


def test_keys_without_checkpoints_are_refused() -> None:
    with pytest.raises(ScenarioError, match=r"training.keys: is for signing checkpoints; give `checkpoint_every`"):
        load("minimal", ["training={keys: mine, checkpoint_every: null}"])


def test_the_stand_in_has_the_vocabulary_of_the_tokenizer(tmp_path: Path) -> None:
    assert model_shape(make_plan(scenario_with(tmp_path, "{kind: text}"), 0)).vocab == 257
    assert model_shape(make_plan(load("minimal"), 0)).vocab == 256
    assert vocab_of(SyntheticData(kind="synthetic"), 99) == 99


def test_a_text_at_fault_is_an_error_of_input(tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch()
    with pytest.raises(TextError) as caught:
        require_text(FileData(kind="text", path=str(tmp_path / "a.txt")), SHAPE, 0)
    found = explained(caught.value)
    assert found is not None
    assert found[0] == EXIT_INPUT
    require_text(SyntheticData(kind="synthetic"), SHAPE, 0)


@pytest.mark.parametrize("data", [SyntheticData(kind="synthetic"), FileData(kind="text")])
def test_evaluation_is_on_something_else_than_training(data: Any) -> None:
    train, held_out = make_batches(data, SHAPE, 0), held_out_batches(data, SHAPE, 0)
    rows = {tuple(row) for number in range(20) for row in train(number)[0].tolist()}
    others = [tuple(row) for number in range(20) for row in held_out(number)[0].tolist()]
    assert not rows & set(others)
    assert held_out(3)[1].tolist() == held_out(3)[1].tolist()


def test_samples_are_named_by_epoch() -> None:
    synthetic, text = SyntheticData(kind="synthetic"), FileData(kind="text")
    per_epoch = samples_of(text, SHAPE, 0).per_epoch
    assert per_epoch is not None
    assert sample_of(text, SHAPE, 0, per_epoch + 5) == "1/5"
    assert sample_of(synthetic, SHAPE, 0, 12) == "12"
    text_of_it = make_tokenizer("bytes").decode(make_batches(text, SHAPE, 0)(0)[0][0].tolist())
    assert len(text_of_it) == 8
