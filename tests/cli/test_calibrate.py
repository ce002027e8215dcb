"""`orionbed calibrate` on this CPU, with a tiny model, and what other commands make of its profile."""

import json
from pathlib import Path

import pytest

from orionbed.scenario import gpu_profile

pytest.importorskip("torch", reason="torch is not installed, and there is nothing to calibrate without it")

TINY = (
    *("--set", "model={layers: 6, hidden: 64, ffn: 128, heads: 4, kv_heads: 2, vocab: 128, dtype: fp32}"),
    *("--set", "batch={sequence: 32, sequences: 2}"),
    *("--set", "pipeline.stages=3"),
    *("--set", "pipeline.replicas=1"),
    *("--set", "pipeline.boundary={kind: resbm, width: 8}"),
    *("--set", "peers.sites={virginia: 2, oregon: 1}"),
)
FACTOR = 3.0
"""How far a prediction may be off in a test."""


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    from real.calibration import copies, matmuls, pieces

    monkeypatch.setitem(matmuls.GRIDS, "cpu", matmuls.Grid((128,), (16, 32), 2**20))
    monkeypatch.setitem(pieces.STEP_SIZES, "cpu", (10**4, 10**5))
    monkeypatch.setattr(copies, "SENT_BYTES", 2**22)


@pytest.fixture
def profile(orionbed, terminal) -> Path:
    """A profile of this CPU for the tiny model; whether it passes its own check is up to the machine."""
    ended = orionbed("calibrate", *TINY, "--out", "here.yaml", "--repetitions", 10)
    assert ended.code in {0, 1}, ended.err
    return terminal.folder / "here.yaml"


def test_it_measures_writes_and_checks(orionbed, terminal) -> None:
    ended = orionbed("calibrate", "minimal", *TINY, "--out", "here.yaml", "--repetitions", 10, "--json")
    assert ended.code in {0, 1}, ended.err
    assert ended.err == ""
    found = json.loads(ended.out)
    assert ended.code == (0 if found["passed"] else 1)
    assert found["profile"] == "here.yaml"
    assert {row["stage"] for row in found["rows"]} == {0, 1, 2}
    held = {row["what"] for row in found["rows"] if row["held"]}
    assert held == {"forward", "backward", "whole"}
    for row in found["rows"]:
        if row["held"]:
            assert 1.0 / FACTOR < row["predicted_s"] / row["measured_s"] < FACTOR, row
    profile = gpu_profile(str(terminal.folder / "here.yaml"))
    assert profile.device == "cpu"
    assert profile.measurement is not None
    assert profile.measurement.threads == 1
    assert profile.measurement.loopback is not None
    (entry,) = profile.measured
    assert (entry.shape.hidden, entry.shape.boundary, entry.shape.dtype) == (64, 8, "fp32")
    assert set(entry.pieces) == {"layer", "embedding", "head", "encoder", "decoder"}
    assert {10**4, 10**5} < {step.parameters for step in entry.optimizer}
    assert 0.0 < profile.measurement.recompute_factor < FACTOR


def test_the_table_is_the_last_thing_it_prints(orionbed) -> None:
    ended = orionbed("calibrate", *TINY, "--out", "here.yaml", "--stage", 1, "--repetitions", 3)
    *_, last = ended.out.splitlines()
    assert last.startswith(("ok: furthest off is the", "FAILED: furthest off is the"))
    assert "profile    here.yaml" in ended.out
    assert "stage 1 (decoder, 2 layers, encoder)" in ended.out
    assert "stage 0 (" not in ended.out


def test_other_commands_take_the_profile(orionbed, profile: Path, terminal) -> None:
    name = gpu_profile(str(profile)).name
    checked = orionbed("check", "minimal", *TINY, "--profile", "here.yaml")
    assert checked.code == 0
    assert f"ok  minimal  3 stages x 1 replicas = 3 peers, {name}, " in checked.out
    assert "warning" not in checked.out
    other = orionbed("check", "minimal", *TINY, "--set", "batch.sequences=3", "--profile", "here.yaml")
    assert other.code == 0
    assert "warning    the profile measured-" in other.out.splitlines()[-1]
    run = (
        *(
            "run",
            "minimal",
            *TINY,
            "--profile",
            "here.yaml",
            "--set",
            "run.duration=2 min",
            "--set",
            "report.uplinks=[]",
        ),
        *("--set", "merge=none", "--set", "datacenter.horizon=10 s"),
    )
    ended = orionbed(*run, "--json")
    assert (ended.code, ended.err) == (0, "")
    summary = json.loads(ended.out)
    assert summary["layout"]["gpu"] == name
    assert "profile-not-covered" not in {entry["code"] for entry in summary["warnings"]}
    sources = {row["key"]: row["source"] for row in summary["assumptions"]}
    assert sources["peers.gpu"] == "measured with orionbed calibrate (here.yaml)"
    assert "with orionbed calibrate: medians" in sources[f"gpus/{name}.measured.0.pieces.layer.forward.median"]
    larger = json.loads(orionbed(*run, "--set", "batch.sequences=3", "--json").out)
    (warning,) = [entry for entry in larger["warnings"] if entry["code"] == "profile-not-covered"]
    assert "3 x 32 tokens" in warning["message"]
    assert warning["advice"] == "measure it: orionbed calibrate minimal --device cpu --out here.yaml"


def test_a_second_shape_joins_the_first(orionbed, profile: Path) -> None:
    orionbed("calibrate", *TINY, "--set", "model.vocab=64", "--out", "here.yaml", "--repetitions", 3)
    assert [entry.shape.vocab for entry in gpu_profile(str(profile)).measured] == [128, 64]


def test_a_profile_can_be_checked_alone(orionbed, profile: Path) -> None:
    before = profile.read_bytes()
    ended = orionbed("calibrate", *TINY, "--check-only", "here.yaml", "--repetitions", 3)
    assert ended.code in {0, 1}
    assert "stage 2 (decoder, 2 layers, head)" in ended.out
    assert profile.read_bytes() == before
    other = orionbed("calibrate", *TINY, "--set", "batch.sequences=3", "--check-only", "here.yaml")
    assert other.code == 2
    assert "here.yaml has no measurement of layer, embedding, head, encoder, decoder at hidden 64" in other.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--out", "here.txt"), "--out here.txt: must end in .yaml"),
        (("--out", "nowhere/here.yaml"), "in a folder that is there"),
        (("--out", "a.yaml", "--check-only", "b.yaml"), "--check-only writes nothing"),
        (("--check-only", "b.yaml"), "no GPU profile 'b.yaml'"),
        (("--stage", 3), "--stage 3: minimal has stages 0 to 2"),
        (("nowhere",), "nor a packaged scenario"),
        (("--set", "model.hidden=65536"), "choose one with --stage, or make the model smaller with --set"),
        (("--set", "model.block=gpt"), "only llama blocks on one GPU per peer can be measured"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_it_begins(
    orionbed, terminal, arguments: tuple[object, ...], said: str
) -> None:
    ended = orionbed("calibrate", *TINY, *arguments)
    assert (ended.code, ended.out) == (2, "")
    assert said in ended.err
    assert [path.name for path in terminal.folder.iterdir()] == ["tiny.yaml"]


def test_without_a_gpu_it_says_so(orionbed) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    ended = orionbed("calibrate", "--device", "cuda")
    assert ended.code == 2
    assert ended.err.startswith("no GPU here that torch can use")


def test_on_a_gpu(orionbed) -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
    ended = orionbed("calibrate", "minimal", *TINY, "--device", "cuda", "--repetitions", 3, "--json")
    assert ended.code in {0, 1}, ended.err
    assert gpu_profile(json.loads(ended.out)["profile"]).device == "cuda"
