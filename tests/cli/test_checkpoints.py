"""`orionbed keys` and `orionbed verify-checkpoint`."""

import json
from pathlib import Path

import pytest

from orionbed import checkpoints
from orionbed.keys import Keyring

pytest.importorskip("cryptography")


@pytest.fixture
def kept(terminal, orionbed) -> Path:
    """Two signed checkpoints, their keys in `keys`, and the known ones in the file `known`."""
    assert orionbed("keys", "make", "s00r0", "writer").code == 0
    (terminal.folder / "known").write_text(
        "".join(path.read_text() for path in (terminal.folder / "keys").glob("*.pub"))
    )
    ring = Keyring.read(terminal.folder / "keys")
    for position in (1, 2):
        about = {"scenario": "tiny\x1b[2J", "seed": 0, "position": position}
        checkpoints.write(terminal.folder / "kept", {"s00r0": {"weights": b"abc", "cursor": b"7"}}, about, keys=ring)
    return terminal.folder / "kept"


def test_keys_are_made_once_and_shown(orionbed, terminal) -> None:
    made = orionbed("keys", "make", "s00r0", "s01r0", "--out", "mine", "--json")
    assert made.code == 0, made.err
    rows = json.loads(made.out)
    assert [row["name"] for row in rows] == ["s00r0", "s01r0"]
    shown = orionbed("keys", "show", "mine")
    assert shown.out.splitlines()[0] == f"s00r0  {rows[0]['fingerprint']}  mine/s00r0.key"
    assert shown.out.count(rows[1]["fingerprint"]) == 2, "of both files"
    again = orionbed("keys", "make", "s02r0", "s01r0", "--out", "mine")
    assert (again.code, again.out) == (2, "")
    assert "mine/s01r0.key: it is there, nothing was made; --force replaces it, for good" in again.err
    assert not (terminal.folder / "mine" / "s02r0.key").exists()
    forced = json.loads(orionbed("keys", "make", "s01r0", "--out", "mine", "--force", "--json").out)
    assert forced[0]["fingerprint"] != rows[1]["fingerprint"]


def test_what_cannot_be_done_with_keys(orionbed, terminal) -> None:
    (terminal.folder / "empty").mkdir()
    for arguments, message in (
        (("burn", "a"), "keys: 'burn' is nothing to do with keys"),
        (("make", "../a"), "'../a' cannot name a key"),
        (("show", "nowhere"), "nowhere: public keys cannot be read"),
        (("show", "empty"), "empty: no keys there; orionbed keys make NAME --out empty"),
    ):
        ended = orionbed("keys", *arguments)
        assert (ended.code, ended.out) == (2, "")
        assert message in ended.err


def test_a_good_checkpoint(orionbed, kept: Path) -> None:
    ended = orionbed("verify-checkpoint", "kept", "--trusted", "known")
    assert ended.code == 0, ended.err
    assert ended.out.splitlines()[-1] == "ok  whole, and signed by known keys"
    assert "position 2, scenario tiny?[2J, seed 0" in ended.out, "and nothing of it steers the terminal"
    assert "7 bytes" not in ended.out
    assert "s00r0  4 bytes  weights, cursor  signed by s00r0 SHA256:" in ended.out
    one = orionbed("verify-checkpoint", kept / "position-000000002", "--json")
    told = json.loads(one.out)
    assert (one.code, told["good"], len(told["checkpoints"])) == (0, True, 1)
    assert told["checkpoints"][0]["shards"][0]["signed_by"]["name"] == "s00r0"
    assert told["checkpoints"][0]["about"]["position"] == 2


def test_a_bad_one_names_every_problem(orionbed, kept: Path) -> None:
    (kept / "position-000000001" / "s00r0.shard").write_bytes(b"abd8")
    (kept / "position-000000001" / "x\x1b[2J").touch()
    (kept / "position-000000002" / "manifest.json").unlink()
    ended = orionbed("verify-checkpoint", "kept")
    assert ended.code == 1
    lines = [line for line in ended.out.splitlines() if line.startswith("--")]
    assert lines.pop(2) == "--  x?[2J: it is not in the manifest", "nor does the name of a file"
    assert [line.partition(":")[0] for line in lines[:2]] == ["--  s00r0.shard"] * 2
    assert lines[2] == "--  kept/position-000000002: no checkpoint there: it has no manifest.json"
    assert ended.out.splitlines()[-1] == "refused: 4 problems"
    assert json.loads(orionbed("verify-checkpoint", "kept", "--json").out)["good"] is False


def test_no_checkpoint(orionbed, terminal) -> None:
    (terminal.folder / "known").write_text("nonsense")
    for arguments, message in (
        (("nowhere",), "nowhere: no checkpoint there"),
        ((".",), "no checkpoint there"),
        ((".", "--trusted", "known"), "known:1: neither 'orionbed-ed25519 HEX NAME' nor"),
    ):
        ended = orionbed("verify-checkpoint", *arguments)
        assert (ended.code, ended.out) == (2, "")
        assert message in ended.err


def test_parts_of_processes(orionbed, terminal) -> None:
    from orionbed.checkpoints.parts import Parts

    for process in range(2):
        parts = Parts(terminal.folder / "parts", process, f"s0{process}r0", about={"processes": 2})
        parts.write(5, {"state": b"abc"}, 2)
    ended = orionbed("verify-checkpoint", "parts")
    assert (ended.code, ended.out.splitlines()[-1]) == (0, "ok  whole")
    assert ended.out.splitlines()[0] == "parts/part-00000-version-000000005.json"
    (terminal.folder / "parts" / "part-00001-version-000000005.json").unlink()
    ended = orionbed("verify-checkpoint", "parts")
    assert ended.code == 1
    assert "--  version 5: missing part-00001" in ended.out
