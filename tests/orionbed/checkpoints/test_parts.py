"""Parts that processes write for themselves: whole once all have written, each with its own signature."""

from pathlib import Path
from typing import Any

import pytest

from orionbed.checkpoints import CheckpointError
from orionbed.checkpoints.parts import Parts
from orionbed.checkpoints.survey import survey
from orionbed.keys import Keyring, Trusted


def part(folder: Path, process: int, **options: Any) -> Parts:
    return Parts(folder, process, f"s0{process}r0", about={"scenario": "tiny", "processes": 2}, **options)


def written(folder: Path, *versions: tuple[int, int], **options: Any) -> None:
    """Write versions of processes, each in its own words."""
    for process, version in versions:
        part(folder, process, **options).write(version, {"state": b"%d of %d" % (version, process)}, 2)


def test_a_version_is_whole_when_all_have_written_it(tmp_path: Path) -> None:
    written(tmp_path, (0, 1))
    assert survey(tmp_path).problems == ["version 1: missing part-00001"]
    written(tmp_path, (1, 1))
    assert survey(tmp_path).good
    written(tmp_path, (0, 2))
    found = survey(tmp_path)
    assert found.good
    assert found.remarks == ["version 2: part-00001 missing"], "a process may be behind the others"
    written(tmp_path, (1, 2), (0, 3), (1, 3))
    assert part(tmp_path, 0).versions() == [2, 3]
    assert len(list(tmp_path.iterdir())) == 2 * 2 * 2, "two versions of two processes, each with its manifest"


def test_damage_and_disorder_are_named(tmp_path: Path) -> None:
    written(tmp_path, (0, 1), (1, 1))
    one = part(tmp_path, 0).path(1)
    one.write_bytes(b"1 of 8")
    assert [each.problems for each in survey(tmp_path).found] == [
        ["part-00000-version-000000001.state: 'state' is damaged or was altered: its SHA-256 differs"], [],
    ]  # fmt: skip
    one.with_suffix(".json").unlink()
    assert survey(tmp_path).problems == [
        "part-00000-version-000000001.state: it has no manifest beside it",
        "version 1: missing part-00000",
    ]
    assert part(tmp_path, 0).versions() == [], "without its manifest it is not there"
    with pytest.raises(CheckpointError, match=r"part-00000-version-000000001\.json: it is missing"):
        part(tmp_path, 0).manifest(1)


def test_a_manifest_without_its_state_is_no_version(tmp_path: Path) -> None:
    written(tmp_path, (0, 1), (1, 1), (0, 2), (1, 2))
    part(tmp_path, 0).path(2).unlink()
    assert (part(tmp_path, 0).versions(), part(tmp_path, 1).versions()) == ([1], [1, 2])
    assert [problem for each in survey(tmp_path).found for problem in each.problems] == [
        "part-00000-version-000000002.state: it is missing"
    ]


def test_a_part_under_anothers_name_is_refused(tmp_path: Path) -> None:
    written(tmp_path, (0, 1), (1, 1), (1, 2))
    other = part(tmp_path, 0).path(1).with_suffix(".json")
    other.write_bytes(part(tmp_path, 1).path(1).with_suffix(".json").read_bytes())
    problems = [problem for each in survey(tmp_path).found for problem in each.problems]
    assert problems == ["part-00000-version-000000001.json: it is the manifest of another part, under this name"]
    with pytest.raises(CheckpointError, match=r"not one of part-00000-version-000000001\.state alone"):
        part(tmp_path, 0).manifest(1)


def test_each_signs_its_own(tmp_path: Path, keyring: Keyring) -> None:
    first, second = keyring.keys["s00r0"], keyring.keys["s01r0"]
    written(tmp_path, (0, 1), key=first)
    written(tmp_path, (1, 1), key=second)
    assert survey(tmp_path, Trusted.of([first, second])).good
    assert part(tmp_path, 0, key=first).manifest(1).position == 1
    found = survey(tmp_path, Trusted.of([first]))
    assert [len(each.problems) for each in found.found] == [0, 2]
    with pytest.raises(CheckpointError, match="signed with a foreign key, of s01r0"):
        part(tmp_path, 1, key=first).manifest(1)
