"""`orionbed probe`."""

import json

import pytest

from orionbed.learning import exposure
from orionbed.training import probe

MODEL = "emulator={width: 64, tokens: 32, sequences: 2, vocab: 32}"


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    monkeypatch.setattr(exposure, "KNOWN_TOKENS", 256)
    monkeypatch.setattr(exposure, "SECRET_TOKENS", 128)
    monkeypatch.setattr(probe, "STEPS", 10)


def test_it_prints_a_table_or_rows(orionbed) -> None:
    ended = orionbed("probe", "tiny.yaml", "--microbatches", "1", "--hidden", "8", "--set", MODEL)
    assert ended.code == 0, ended.err
    heads, untrained, trained, caution = ended.out.splitlines()
    assert heads.split()[:4] == ["model", "after", "token", "boundary"]
    assert untrained.startswith("untrained  stage 0  the same  resbm")
    assert trained.startswith("trained")
    assert "lower bound" in caution
    ended = orionbed("probe", "tiny.yaml", "--microbatches", "0", "--neighbours", "--json", "--set", MODEL)
    assert [row["offset"] for row in json.loads(ended.out)["rows"]] == [0, -1, 1]
