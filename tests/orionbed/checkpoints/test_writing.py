"""Writing and reading: what comes out is what went in, whole or not at all, and only the last few stay."""

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orionbed import checkpoints
from orionbed.checkpoints import CheckpointError, NoCheckpointError, contents, newest, positions, read, verify
from orionbed.checkpoints.about import about_run
from orionbed.keys import Keyring, Trusted
from orionbed.runs import with_seed
from orionbed.scenario import load

Write = Callable[..., Path]


def test_what_comes_out_is_what_went_in(write: Write, keyring: Keyring) -> None:
    folder = write(keys=keyring)
    found = read(folder, Trusted.of(keyring.keys.values()))
    assert (found.position, found.shards, found.entries("s00r0")) == (1, ["s00r0", "s01r0"], ["weights", "cursor"])
    assert found.about == {"scenario": "tiny", "seed": 0, "position": 1, "share": 0.5}
    assert found.json("s00r0", "cursor") == {"at": 7}
    assert found.bytes("s00r0", "weights") == np.arange(12.0, dtype="<f4").tobytes()
    assert found.bytes("s01r0", "nothing") == b""
    with pytest.raises(CheckpointError, match="it has no shard 's02r0', only s00r0, s01r0"):
        found.entries("s02r0")
    with pytest.raises(CheckpointError, match="it holds no 'moments'"):
        found.bytes("s00r0", "moments")


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16", "int64", "uint8", "bool"])
def test_tensors_keep_their_format_and_shape(dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(contents, "SLICE_BYTES", 7)
    tensors = {
        "matrix": (torch.arange(12).reshape(3, 4) - 3).to(getattr(torch, dtype)).t(),
        "scalar": torch.tensor(1).to(getattr(torch, dtype)),
        "empty": torch.zeros((0, 3), dtype=getattr(torch, dtype)),
    }
    found = read(checkpoints.write(tmp_path, {"peer": tensors}, {"position": 0}))
    for name, tensor in tensors.items():
        there = found.tensor("peer", name)
        assert (there.dtype, there.shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(there, tensor)


def test_a_content_may_be_given_in_slices(tmp_path: Path) -> None:
    content = contents.Content(contents.BYTES, (6,), lambda: iter([b"abc", memoryview(b"def")]))
    assert read(checkpoints.write(tmp_path, {"peer": {"text": content}}, {"position": 0})).bytes("peer", "text") == (
        b"abcdef"
    )


def test_the_last_few_stay(write: Write, tmp_path: Path) -> None:
    assert newest(tmp_path / "kept") is None
    for position in (3, 7, 11, 1_000_000_000_007):
        write(position, keep=3)
    assert positions(tmp_path / "kept") == [7, 11, 1_000_000_000_007]
    assert newest(tmp_path / "kept") == tmp_path / "kept" / "position-1000000000007"
    assert len(list((tmp_path / "kept").iterdir())) == 3
    with pytest.raises(CheckpointError, match="there is a checkpoint of this position"):
        write(11)
    write(2, keep=1)
    assert positions(tmp_path / "kept") == [2, 1_000_000_000_007], "what was just written stays in any case"


class Killed(BaseException):
    """What stands for the end of a process."""


def crashing(monkeypatch: pytest.MonkeyPatch, step: int) -> Iterator[str]:
    """Let everything that touches the disk end the process at its `step`th use, with nothing tidied up after it."""
    left = step

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal left
            left -= 1
            if left <= 0:
                raise Killed
            return real(*arguments, **options)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", counted(os.fsync))
        patch.setattr(Path, "rename", counted(Path.rename))
        patch.setattr(Path, "open", counted(Path.open))
        patch.setattr(shutil, "rmtree", counted(shutil.rmtree))
        yield "patched"


def test_a_crash_at_any_moment_leaves_whole_ones_alone(write: Write, tmp_path: Path) -> None:
    write(1)
    ended = 0
    for step in range(1, 30):
        position = positions(tmp_path / "kept")[-1]
        with pytest.MonkeyPatch.context() as monkeypatch:
            patched = crashing(monkeypatch, step)
            next(patched)
            try:
                write(position + 1)
            except Killed:
                ended += 1
            finally:
                patched.close()
        there = positions(tmp_path / "kept")
        assert there[-1] in {position, position + 1}
        assert [verify(tmp_path / "kept" / f"position-{each:09d}") for each in there] == [[]] * len(there)
    assert 10 < ended < 29, "every moment was one to crash at, and after the last one it comes through"
    write(1000)
    assert {path.name[0] for path in (tmp_path / "kept").iterdir()} == {"p"}, "what crashes have left is removed"


def test_one_that_cannot_be_finished_leaves_nothing(write: Write, tmp_path: Path) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(CheckpointError, match=r"position-000000001: the checkpoint cannot be written: .*No space"):
            write(1)
    assert list((tmp_path / "kept").iterdir()) == []


@pytest.mark.parametrize(
    ("shards", "about", "message"),
    [
        ({"../s00r0": {}}, {"position": 1}, "'../s00r0.shard' cannot name a shard"),
        ({"/tmp/s": {}}, {"position": 1}, "cannot name a shard"),
        ({".s": {}}, {"position": 1}, "cannot name a shard"),
        ({"s": {"../x": b""}}, {"position": 1}, "cannot be written like this: name"),
        ({"s": {"x": "text"}}, {"position": 1}, "a str cannot be kept"),
        ({"s": {"x": np.zeros(1, dtype=complex)}}, {"position": 1}, "numbers of complex128 cannot be kept"),
        ({}, {}, "None is no position"),
        ({}, {"position": -1}, "-1 is no position"),
        ({}, {"position": True}, "True is no position"),
        ({}, {"position": 1, "seed": {1, 2}}, "cannot be written like this: about.seed"),
    ],
)
def test_what_cannot_be_kept_is_refused(shards: Any, about: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=message):
        checkpoints.write(tmp_path / "kept", shards, about)
    assert [path for path in tmp_path.rglob("*") if path.name != "kept"] == [], "nor is there anything beside it"


def test_who_reads_while_others_write_sees_whole_ones(tmp_path: Path) -> None:
    kept, done, seen = tmp_path / "kept", threading.Event(), set()

    def writing() -> None:
        for position in range(1, 25):
            checkpoints.write(kept, {"peer": {"x": bytes([position]) * 5000}}, {"position": position})
        done.set()

    writer = threading.Thread(target=writing)
    writer.start()
    try:
        while not done.is_set():
            folder = newest(kept)
            if folder is None:
                continue
            try:
                found = read(folder)
                assert found.bytes("peer", "x") == bytes([found.position]) * 5000
            except CheckpointError:
                assert not folder.exists(), "only what is old may go while it is read"
            else:
                seen.add(found.position)
    finally:
        writer.join()
    assert seen, "it was read meanwhile"


def test_what_it_is_of() -> None:
    scenario = load("minimal", ())
    about = about_run(scenario, 3, 120, microbatches=7)
    assert (about["scenario"], about["seed"], about["position"], about["microbatches"]) == ("minimal", 3, 120, 7)
    assert about["scenario_sha256"] == about_run(with_seed(scenario, 5), 5, 1)["scenario_sha256"]
    assert about["scenario_sha256"] != about_run(load("minimal", ["run.duration=7min"]), 3, 1)["scenario_sha256"]


def test_nothing_there(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(NoCheckpointError, match="no checkpoint there"):
            verify(path)
