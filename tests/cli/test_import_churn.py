"""`orionbed import-churn`: the file it writes is one that a scenario takes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Orionbed = Callable[..., Any]
COUNTS = {"metadata": {"gap_seconds": 600}, "data": [8, 8, 6, 7, 8, 3, 8]}


@pytest.fixture(name="counts")
def _counts(tmp_path: Path) -> Path:
    file = tmp_path / "counts.json"
    file.write_text(json.dumps(COUNTS))
    return file


def test_what_is_imported_can_be_run(orionbed: Orionbed, counts: Path, tmp_path: Path) -> None:
    out = tmp_path / "churn.csv"
    ended = orionbed("import-churn", str(counts), "minimal", "--out", str(out), "--json")
    assert (ended.code, ended.err) == (0, "")
    found = json.loads(ended.out)
    assert found["departures"] == 2 + 5
    assert found["hours"] == pytest.approx(7 / 6)
    ended = orionbed("check", "minimal", "--set", f"churn={{trace: {out}}}")
    assert ended.code == 0, ended.err


def test_the_same_seed_gives_the_same_file(orionbed: Orionbed, counts: Path, tmp_path: Path) -> None:
    texts = []
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        out = tmp_path / f"{name}.csv"
        ended = orionbed("import-churn", str(counts), "minimal", "--out", str(out), "--seed", seed)
        assert "7 departures of" in ended.out
        texts.append(out.read_text())
    assert texts[0] == texts[1] != texts[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--peer", "s99r9"], "--peer s99r9: the scenario's peers go from s00r0 to s03r1"),
        (["--format", "bamboo"], "counts.json:1: must read time_ms,add|remove,node"),
        (["--each"], "has 8 nodes, not one; leave --each out"),
        (["--format", "bamboo", "--each"], "--each is for counts of one node"),
    ],
)
def test_mistakes_have_one_line(
    orionbed: Orionbed, counts: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    out = tmp_path / "churn.csv"
    ended = orionbed("import-churn", str(counts), "minimal", "--out", str(out), *arguments)
    assert (ended.code, ended.out) == (2, "")
    assert message in ended.err
    assert not out.exists()
