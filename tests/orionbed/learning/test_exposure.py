"""What stages could read: rows of every boundary, before and after training, and that narrow ones give away less."""

from typing import Any

import pytest

from orionbed.backends import BackendError
from orionbed.learning import exposure as exposing
from orionbed.learning.exposure import Row, exposure, lines
from orionbed.scenario import Scenario, apply, load
from orionbed.training import probe as probing


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    monkeypatch.setattr(exposing, "KNOWN_TOKENS", 2048)
    monkeypatch.setattr(exposing, "SECRET_TOKENS", 1024)
    monkeypatch.setattr(probing, "STEPS", 100)


def scenario(**changes: Any) -> Scenario:
    small = {"width": 64, "tokens": 64, "sequences": 2, "vocab": 32}
    shape = {
        "pipeline.stages": 3, "pipeline.replicas": 1, "peers.sites": {"virginia": 3}, "emulator": small,
        "pipeline.boundary": {"kind": "none"},
    }  # fmt: skip
    return apply(load("minimal"), shape | {key.replace("__", "."): value for key, value in changes.items()})


def named(rows: list[Row], model: str) -> list[float]:
    return [row["accuracy"] for row in rows if row["model"] == model]


def test_a_whole_boundary_gives_the_tokens_away_and_a_narrow_one_less() -> None:
    whole = exposure(scenario(), 0, microbatches=8)
    narrow = exposure(scenario(pipeline__boundary={"kind": "resbm", "width": 64}), 0, microbatches=8)
    assert [(row["model"], row["stage"]) for row in whole] == [
        ("untrained", 0), ("untrained", 1), ("trained", 0), ("trained", 1)
    ]  # fmt: skip
    assert min(named(whole, "untrained")) > 0.9
    assert [row["values"] for row in narrow] == [narrow[0]["values"]] * 4
    assert narrow[0]["values"] < 64
    assert max(named(narrow, "untrained")) < min(named(whole, "untrained"))
    assert all(row["chance"] == 1 / 32 < row["majority"] < 0.2 for row in whole)
    assert whole[2]["loss"] < whole[0]["loss"]


def test_the_same_seed_gives_the_same_rows() -> None:
    two = {"pipeline__stages": 2, "peers__sites": {"virginia": 2}}
    first, again = (exposure(scenario(**two), 3, microbatches=1, offsets=(0, 1)) for _ in range(2))
    assert first == again
    assert [row["offset"] for row in first] == [0, 1, 0, 1]


def test_even_a_training_shorter_than_a_step_takes_one() -> None:
    long = {"pipeline__schedule": {"kind": "1f1b", "microbatches": 8}, "pipeline__stages": 2}
    rows = exposure(scenario(**long, peers__sites={"virginia": 2}), 0, microbatches=3)
    assert rows[1]["loss"] < rows[0]["loss"]


def test_a_pipeline_of_one_stage_has_no_boundary_to_probe() -> None:
    with pytest.raises(BackendError, match=r"pipeline\.stages: nothing crosses"):
        exposure(scenario(pipeline__stages=1, peers__sites={"virginia": 1}), 0)


def test_the_table_has_a_line_per_row() -> None:
    rows = exposure(scenario(), 0, microbatches=0)
    assert [row["model"] for row in rows] == ["untrained"] * 2
    table = lines(rows)
    assert len(table) == 3
    assert "stage 1" in table[2]
