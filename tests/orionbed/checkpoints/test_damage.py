"""Whatever is altered in a checkpoint is found and named, and nothing of it is loaded."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orionbed.checkpoints import CheckpointError, examine, read, verify
from orionbed.checkpoints.folders import MANIFEST
from orionbed.checkpoints.manifest import Manifest, load
from orionbed.keys import Key, Keyring, Trusted

Write = Callable[..., Path]


@pytest.fixture(params=["signed", "unsigned"])
def folder(request: pytest.FixtureRequest, write: Write, keyring: Keyring) -> Path:
    return write(keys=keyring if request.param == "signed" else None)


def rewritten(folder: Path, change: Callable[[Any], None]) -> None:
    """Change what a manifest says as somebody would who knows how it is written."""
    told = json.loads((folder / MANIFEST).read_text())
    change(told)
    del told["sha256"]
    (folder / MANIFEST).write_text(Manifest.model_validate(told).text())


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_byte_of_any_file(folder: Path, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(sorted(folder.iterdir())))
    whole = path.read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    kind = data.draw(st.sampled_from(["flip", "cut", "insert", "remove"]))
    other = bytes([whole[at] ^ data.draw(st.integers(1, 255))])
    damaged = {
        "flip": whole[:at] + other + whole[at + 1 :],
        "cut": whole[:at],
        "insert": whole[:at] + other + whole[at:],
        "remove": whole[:at] + whole[at + 1 :],
    }[kind]
    path.write_bytes(damaged)
    try:
        problems = verify(folder)
        assert problems
        assert all(problem.startswith(path.name) for problem in problems), "and nothing else is blamed"
        with pytest.raises(CheckpointError, match="the checkpoint is refused: "):
            read(folder)
    finally:
        path.write_bytes(whole)
    assert verify(folder) == []


def test_a_flipped_bit_is_named(folder: Path) -> None:
    path = folder / "s00r0.shard"
    whole = path.read_bytes()
    path.write_bytes(whole[:3] + bytes([whole[3] ^ 16]) + whole[4:])
    assert verify(folder) == ["s00r0.shard: 'weights' is damaged or was altered: its SHA-256 differs"]
    path.write_bytes(whole[:-1] + b"]")
    assert verify(folder) == ["s00r0.shard: 'cursor' is damaged or was altered: its SHA-256 differs"]


def test_files_that_are_missing_cut_off_or_too_many_are_named(folder: Path) -> None:
    (folder / "s00r0.shard").unlink()
    (folder / "s01r0.shard").write_bytes(bytes(17))
    (folder / "s09r0.shard").write_bytes(b"mine")
    assert verify(folder) == [
        "s00r0.shard: it is missing",
        "s01r0.shard: 17 bytes, where 40 are expected; it was cut off",
        "s09r0.shard: it is not in the manifest",
    ]


def test_links_and_pipes_are_not_followed(folder: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(folder, elsewhere)
    for name in ("s00r0.shard", "s01r0.shard"):
        (folder / name).unlink()
    (folder / "s00r0.shard").symlink_to(elsewhere / "s00r0.shard")
    os.mkfifo(folder / "s01r0.shard")
    assert verify(folder) == [
        "s00r0.shard: a symbolic link, which is not followed",
        "s01r0.shard: no plain file",
    ]
    (folder / MANIFEST).unlink()
    (folder / MANIFEST).symlink_to(elsewhere / MANIFEST)
    assert verify(folder) == ["manifest.json: a symbolic link, which is not followed"]


@pytest.mark.parametrize(
    "name", ["../s00r0.shard", "/etc/passwd", "a/b", "", ".", "..", "manifest.json", "s01r0.shard"]
)
def test_names_that_lead_elsewhere_are_refused(name: str, folder: Path) -> None:
    told = json.loads((folder / MANIFEST).read_text())
    told["shards"][0]["file"] = name
    del told["sha256"]
    with pytest.raises(ValueError, match=r"shards\.0\.file|same name|cannot lie in"):
        Manifest.model_validate(told)


def test_manifests_that_are_none(folder: Path) -> None:
    path = folder / MANIFEST
    whole = path.read_bytes()
    for content, message in (
        (b"", "it is damaged: no JSON"),
        (b"[]", "it is no manifest"),
        (b"{}", "it is no manifest"),
        (b"\xff" + whole, "it is damaged: byte 0 is no text"),
        (b"[" * 100_000, "it is damaged: no JSON"),
        (whole.replace(b"checkpoint-1", b"checkpoint-2"), "it is of format 'orionbed-checkpoint-2', and this version"),
        (whole.replace(b'"seed": 0', b'"seed": 1'), "its SHA-256 differs from the one that it names"),
        (whole.replace(b'"seed": 0', b'"seed":  0'), "written otherwise than orionbed writes it"),
        (whole.replace(b'"seed": 0', b'"seed": 1, "seed": 0'), "written otherwise"),
    ):
        path.write_bytes(content)
        (problem,) = verify(folder)
        assert problem.startswith(f"manifest.json: {message}") or message in problem


def test_lengths_and_shapes_must_add_up(write: Write) -> None:
    folder = write()
    for change in (
        lambda told: told["shards"][0]["entries"][0].update(shape=[13]),
        lambda told: told["shards"][0]["entries"][0].update(dtype="float31"),
        lambda told: told["shards"][0].update(bytes=1),
        lambda told: told["shards"].append(told["shards"][0]),
        lambda told: told["about"].pop("position"),
        lambda told: told.update(extra=1),
    ):
        with pytest.raises(ValueError, match="validation error"):
            rewritten(folder, change)


def test_what_was_signed_cannot_be_rewritten(write: Write, keyring: Keyring) -> None:
    folder = write(keys=keyring)
    rewritten(folder, lambda told: told["about"].update(seed=1))
    problems = verify(folder)
    who = f"writer ({keyring.keys['writer'].fingerprint})"
    assert problems[0] == f"manifest.json: it was altered: the signature of {who} does not fit"
    assert [problem.partition(":")[0] for problem in problems[1:]] == ["s00r0.shard", "s01r0.shard"], "what it is about"


def test_a_shard_fits_no_other_checkpoint(write: Write, keyring: Keyring) -> None:
    """An old shard with its signature, put into a new checkpoint that anybody signs as a whole."""
    old, new = write(1, keys=keyring), write(2, keys=keyring)
    taken = load(old / MANIFEST).shards[0]
    manifest = load(new / MANIFEST)
    mixed = manifest.model_copy(update={"shards": [taken, manifest.shards[1]], "signature": None})
    (new / MANIFEST).write_text(mixed.signed(keyring.keys["writer"]).text())
    (problem,) = verify(new)
    assert problem.startswith("s00r0.shard: what the manifest says of it was altered: the signature of s00r0")


def test_only_known_keys_will_do(write: Write, keyring: Keyring) -> None:
    folder = write(keys=keyring)
    everybody = Trusted.of(keyring.keys.values())
    found = examine(folder, everybody)
    assert (found.problems, found.remarks) == ([], [])
    assert "nobody was asked to trust" in examine(folder).remarks[0]

    def known(**others: Key) -> Trusted:
        return Trusted(dict(everybody.fingerprints) | {name: key.fingerprint for name, key in others.items()})

    (problem,) = verify(folder, known(s01r0=Key.new("s01r0")))
    assert problem.startswith(
        f"s01r0.shard: signed with a foreign key, of s01r0 ({keyring.keys['s01r0'].fingerprint}), where SHA256:"
    )
    (problem,) = verify(folder, Trusted.of([keyring.keys["s00r0"], keyring.keys["writer"]]))
    assert problem.endswith("which is not known")
    with pytest.raises(CheckpointError, match=r"refused: s01r0\.shard: signed with a foreign key, of s01r0 \(SHA256:"):
        read(folder, known(s01r0=Key.new("s01r0")))


def test_the_unsigned_are_refused_where_keys_are_known(write: Write, keyring: Keyring) -> None:
    folder = write()
    assert verify(folder, Trusted.of(keyring.keys.values())) == [
        "manifest.json: it is not signed", "s00r0.shard: it is not signed", "s01r0.shard: it is not signed",
    ]  # fmt: skip
    assert "unsigned" in examine(folder).remarks[0]


def test_who_has_a_key_signs_for_itself(write: Write, keyring: Keyring) -> None:
    writer = keyring.keys["writer"]
    folder = write(keys=Keyring({"writer": writer}, "writer"))
    assert verify(folder, Trusted.of([writer])) == [], "peers without a key are vouched for by the writer"
    (problem,) = verify(folder, Trusted.of([writer, keyring.keys["s01r0"]]))
    assert problem.startswith("s01r0.shard: made by s01r0, whose key is known, but signed by writer (SHA256:")


def test_without_cryptography(write: Write, keyring: Keyring, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(keys=keyring)
    monkeypatch.setattr("orionbed.checkpoints.verifying.can_sign", lambda: False)
    said = "signatures cannot be checked without the package cryptography: pip install 'orionbed[tls]'"
    found = examine(folder)
    assert (found.problems, found.remarks) == ([], [said])
    assert verify(folder, Trusted.of(keyring.keys.values())) == [said]


def test_what_changes_after_the_check_is_not_given(write: Write) -> None:
    folder = write()
    found = read(folder)
    (folder / "s00r0.shard").write_bytes(bytes(57))
    with pytest.raises(CheckpointError, match=r"s00r0\.shard: 'weights' has changed since it was checked"):
        found.bytes("s00r0", "weights")
    shutil.rmtree(folder)
    with pytest.raises(CheckpointError, match=r"s01r0\.shard: it is missing"):
        found.bytes("s01r0", "weights")
