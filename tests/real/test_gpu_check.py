"""The unattended script for a GPU, tried on a CPU with a tiny model."""

import re
from pathlib import Path

import pytest

from orionbed.scenario import gpu_profile
from real import gpu_check
from real.calibration import prospects
from real.calibration.table import Table


def table_of(out: str) -> dict[str, str]:
    """The table that is printed last."""
    lines = out.rstrip().rpartition("\n\n")[2].splitlines()
    return dict(re.split(r"  +", line, maxsplit=1) for line in lines)  # type: ignore[arg-type]


def test_a_tiny_check_from_end_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PYTORCH_ALLOC_CONF", "")
    monkeypatch.setattr(prospects, "HORIZON_S", 600.0)
    arguments = ["--device", "cpu", "--tiny", "--out", str(tmp_path / "out"), "--repetitions", "3"]
    assert gpu_check.main(arguments) == 0
    table = table_of(capsys.readouterr().out)
    assert next(iter(table)) == "versions"
    assert list(table)[-1] == "took"
    assert table["stage timed"] == "2 of 2 layers"
    assert {"recompute none", "recompute selective", "recompute full", "stage 1 whole", "attention runs"} <= set(table)
    assert "MFU" in table["minimal on a100-80gb"]
    (path,) = (tmp_path / "out").iterdir()
    profile = gpu_profile(str(path))
    assert table["profile"] == str(path)
    assert set(profile.measured[0].pieces) == {"layer", "embedding", "head", "encoder", "decoder"}
    assert profile.measured[0].optimizer
    assert [note for note in path.read_text().splitlines() if note.startswith("#")][
        1
    ] == "#     python -m real.gpu_check"


def test_without_a_gpu_it_says_so_in_its_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    monkeypatch.setenv("PYTORCH_ALLOC_CONF", "")
    assert gpu_check.main(["--out", str(tmp_path)]) == 1
    assert table_of(capsys.readouterr().out)["FAILED"].startswith("no GPU here that torch can use")


def test_a_part_that_fails_is_in_the_table_and_the_others_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table()

    def fails() -> None:
        raise RuntimeError("CUDA out of memory\nand more")

    table.attempt("stage", fails)
    table.attempt("profile", lambda: table.add("profile", "here.yaml"))
    table.print()
    assert table_of(capsys.readouterr().out) == {"stage: FAILED": "CUDA out of memory", "profile": "here.yaml"}


@pytest.mark.parametrize(("version", "halves"), [("2.13.0+cpu", True), ("2.11.0", False), ("3.0.1", True)])
def test_older_torch_times_no_halves(monkeypatch: pytest.MonkeyPatch, version: str, halves: bool) -> None:
    monkeypatch.setattr("real.gpu_check.metadata.version", lambda _: version)
    table = Table()
    assert gpu_check.has_halves(table) is halves
    assert bool(table.rows) is not halves


def test_a_gpu_from_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
    monkeypatch.setattr(prospects, "HORIZON_S", 600.0)
    assert gpu_check.main(["--device", "cuda", "--tiny", "--out", str(tmp_path), "--repetitions", "3"]) == 0
