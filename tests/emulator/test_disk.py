"""What a machine keeps of its peer: two versions, and never none because of a death in the middle of a write."""

import os
from typing import Any

import pytest

from emulator.disk import Disk


class DeathError(Exception):
    """The process dies here."""


def die_after(monkeypatch: pytest.MonkeyPatch, num_writes: int) -> None:
    real, count = os.pwrite, [0]

    def pwrite(slot: int, data: Any, at: int) -> int:
        count[0] += 1
        if count[0] > num_writes:
            raise DeathError
        return real(slot, data, at)

    monkeypatch.setattr(os, "pwrite", pwrite)


def test_at_first_there_is_nothing() -> None:
    assert Disk().read() is None
    assert Disk().read(0) is None


def test_the_latest_version_and_the_one_before_can_be_had() -> None:
    disk = Disk()
    for version in range(4):
        disk.write(version, b"state %d" % version)
    assert disk.read() == (3, b"state 3")
    assert disk.read(2) == (2, b"state 2")
    assert disk.read(1) is None


def test_versions_need_not_follow_one_another() -> None:
    disk = Disk()
    for version in (1_000_000, 1_000_400, 1_000_802):
        disk.write(version, str(version).encode())
    assert disk.read() == (1_000_802, b"1000802")
    assert disk.read(1_000_400) == (1_000_400, b"1000400")


def test_a_shorter_state_leaves_nothing_of_a_longer_one() -> None:
    disk = Disk()
    disk.write(1, b"x" * 100)
    disk.write(2, b"y" * 100)
    disk.write(3, b"z")
    assert disk.read() == (3, b"z")


def test_a_version_that_is_made_anew_replaces_the_one_given_up() -> None:
    disk = Disk()
    for version, state in ((4, b"four"), (5, b"five"), (5, b"five again")):
        disk.write(version, state)
    assert disk.read(5) == (5, b"five again")
    assert disk.read(4) == (4, b"four")


@pytest.mark.parametrize("num_writes", [0, 1, 2])
@pytest.mark.parametrize("step", [1, 2])
def test_a_torn_write_costs_one_version(monkeypatch: pytest.MonkeyPatch, step: int, num_writes: int) -> None:
    disk = Disk()
    for version in (step, 2 * step):
        disk.write(version, b"state %d" % version)
    with monkeypatch.context() as patch:
        die_after(patch, num_writes)
        with pytest.raises(DeathError):
            disk.write(3 * step, b"state that is never whole")
    assert disk.read() == (2 * step, b"state %d" % (2 * step))
    assert disk.read(3 * step) is None
    disk.write(3 * step, b"state %d" % (3 * step))
    assert disk.read() == (3 * step, b"state %d" % (3 * step))
    assert disk.read(2 * step) is not None
