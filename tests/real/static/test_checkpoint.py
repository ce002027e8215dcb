"""Checkpoints: complete or not there, two of each process, and nothing taken for what it is not."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orionbed.backends import BackendError
from orionbed.keys import Key
from orionbed.plan import make_plan
from orionbed.scenario import ScenarioError, apply, load
from orionbed.scenario.training import InnerOptimizer
from orionbed.training.parameters import HEADER
from orionbed.training.shape import ModelShape
from real.static import checkpoint
from real.static.checkpoint import Checkpoints, key_of, newest_common

pytest.importorskip("torch")
pytestmark = pytest.mark.usefixtures("one_thread")

Make = Callable[..., Any]


@pytest.fixture(name="make")
def _make() -> Make:
    """Return a function that makes the parameters of a chunk after some steps."""

    def make(steps: int = 0, *, chunk: int = 0, dtype: str = "float64", optimizer: str = "adamw") -> Any:
        from orionbed.training.modules import make_chunk
        from orionbed.training.parameters import FlatParameters

        shape = ModelShape((1, 1), 32, 48, 4, 2, 64, 8, 2, None, dtype)
        settings = InnerOptimizer(kind=optimizer, learning_rate=1e-2)
        flat = FlatParameters(shape, [chunk], [make_chunk(shape, chunk, 0)], settings)
        advance(flat, steps)
        return flat

    return make


def advance(flat: Any, steps: int) -> None:
    import torch

    for _ in range(steps):
        generator = torch.Generator().manual_seed(flat.num_steps)
        flat.gradients.copy_(torch.randn(flat.gradients.shape, generator=generator))
        flat.step(1)


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
@pytest.mark.parametrize("optimizer", ["adamw", "muon", "sgd"])
def test_going_on_is_as_if_nothing_had_been(
    dtype: str, optimizer: str, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "SLICE_BYTES", 1000)
    flat, other = make(3, dtype=dtype, optimizer=optimizer), make(1, dtype=dtype, optimizer=optimizer)
    store = Checkpoints(tmp_path / "new" / "folder", 7)
    store.write(3, flat)
    whole, written = flat.state(), store.path(3).read_bytes()
    assert written[HEADER.size :] == whole[HEADER.size :], "slice by slice it is what the state is whole"
    assert len(written) == len(whole)
    other.gradients.fill_(1.0)
    store.read(3, other)
    assert other.num_steps == 3
    assert not other.gradients.any()
    advance(flat, 2)
    advance(other, 2)
    assert other.state() == flat.state()


def test_the_last_two_are_kept_of_each_process(make: Make, tmp_path: Path) -> None:
    one, other = Checkpoints(tmp_path, 0), Checkpoints(tmp_path, 1)
    assert one.versions() == []
    flat = make()
    for version in range(1, 5):
        advance(flat, 1)
        one.write(version, flat)
    other.write(4, flat)
    (tmp_path / "notes.txt").write_text("mine")
    assert (one.versions(), other.versions()) == ([3, 4], [4])
    assert len(list(tmp_path.iterdir())) == 1 + 3 * 2, "each with its manifest"


def test_one_that_cannot_be_finished_leaves_nothing(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, flat = Checkpoints(tmp_path, 0), make(1)
    store.write(1, flat)
    advance(flat, 1)

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BackendError, match=r"version-000000002.state: the checkpoint cannot be written: .*No space"):
        store.write(2, flat)
    assert {path.stem for path in tmp_path.iterdir()} == {store.path(1).stem}


def test_damage_is_found_and_changes_nothing(make: Make, tmp_path: Path) -> None:
    store, flat = Checkpoints(tmp_path, 0), make(2)
    store.write(2, flat)
    whole = store.path(2).read_bytes()
    before = flat.state()
    damaged = {
        "'state' is damaged or was altered": whole[:100] + bytes([whole[100] ^ 1]) + whole[101:],
        f"{len(whole) - 8} bytes, where {len(whole)} are expected; it was cut off": whole[:-8],
        "14 bytes, where": b"something else",
    }
    for message, content in damaged.items():
        store.path(2).write_bytes(content)
        with pytest.raises(BackendError, match=rf"part-00000-version-000000002\.state: .*{message}"):
            store.read(2, flat)
        assert flat.state() == before


def test_what_is_written_to_while_it_is_read_is_refused(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, flat = Checkpoints(tmp_path, 0), make(2)
    store.write(2, flat)
    whole = store.path(2).read_bytes()

    for content, message in (
        (whole[:-1] + bytes([whole[-1] ^ 1]), "changed since it was checked"),
        (whole[:-9], "bytes of values and should have"),
    ):

        def checked(*_: Any, content: bytes = content) -> list[str]:
            store.path(2).write_bytes(content)
            return []

        monkeypatch.setattr(checkpoint, "file_problems", checked)
        with pytest.raises(BackendError, match=message):
            store.read(2, make())


def test_another_seed_is_refused(make: Make, tmp_path: Path) -> None:
    Checkpoints(tmp_path, 0, about={"seed": 0}).write(1, make(1))
    Checkpoints(tmp_path, 0, about={"seed": 0}).read(1, make())
    with pytest.raises(BackendError, match="it is of a run with seed 0, and this one has 1; remove it"):
        Checkpoints(tmp_path, 0, about={"seed": 1}).read(1, make())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"chunk": 1}, "another model or another piece"),
        ({"dtype": "float32"}, "another optimizer or number format"),
        ({"optimizer": "sgd"}, "another optimizer or number format"),
    ],
)
def test_what_belongs_to_others_is_refused(change: Any, message: str, make: Make, tmp_path: Path) -> None:
    store = Checkpoints(tmp_path, 0)
    store.write(1, make(1))
    with pytest.raises(BackendError, match=message):
        store.read(1, make(1, **change))


def test_a_name_that_says_another_version_is_refused(make: Make, tmp_path: Path) -> None:
    store = Checkpoints(tmp_path, 0)
    store.write(1, make(1))
    for suffix in (".json", ".state"):
        store.path(1).with_suffix(suffix).rename(store.path(9).with_suffix(suffix))
    with pytest.raises(BackendError, match="it holds the state after 1 steps, and its name says 9"):
        store.read(9, make())


def test_one_that_is_not_there(make: Make, tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"part-00000-version-000000001\.json: it is missing"):
        Checkpoints(tmp_path, 0).read(1, make())


def test_what_others_have_signed_is_refused(make: Make, tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    mine, theirs = Key.new("s00r0"), Key.new("s00r0")
    flat = make(1)
    Checkpoints(tmp_path, 0, peer="s00r0", key=mine).write(1, flat)
    Checkpoints(tmp_path, 0, peer="s00r0", key=mine).read(1, flat)
    with pytest.raises(BackendError, match=f"a foreign key, of s00r0 .*{re.escape(mine.fingerprint)}"):
        Checkpoints(tmp_path, 0, peer="s00r0", key=theirs).read(1, flat)
    Checkpoints(tmp_path, 0, peer="s00r0").write(1, flat)
    with pytest.raises(BackendError, match=r"\.json: it is not signed"):
        Checkpoints(tmp_path, 0, peer="s00r0", key=mine).read(1, flat)


def test_keys_are_those_of_the_peers(tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    with pytest.raises(ScenarioError, match="is for signing checkpoints; give `checkpoint`"):
        apply(load("hardware/small"), {"real.keys": "keys"})
    block = {"real.checkpoint": str(tmp_path / "kept"), "real.keys": str(tmp_path)}
    plan = make_plan(apply(load("hardware/small"), block))
    key = Key.new("s00r0")
    key.write(tmp_path)
    mine = key_of(plan, 0)
    assert mine is not None
    assert mine.public == key.public
    with pytest.raises(BackendError, match=r"real\.keys: .*s01r0\.key: .*; orionbed keys make s01r0 --out "):
        Checkpoints.of(plan, 0, 1)


@pytest.mark.parametrize(
    ("versions", "common"),
    [([[1, 2], [2, 3]], 2), ([[1, 2], [1, 2]], 2), ([[1], [2]], 0), ([[], [1]], 0), ([[4, 5]], 5), ([], 0)],
)
def test_the_newest_that_all_have(versions: list[list[int]], common: int) -> None:
    assert newest_common(versions) == common
