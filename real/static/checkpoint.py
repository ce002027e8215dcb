"""Checkpoints of a run with a static schedule: each process keeps its own part, and all go on from a common version."""

import os
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from orionbed.backends import BackendError
from orionbed.training.parameters import HEADER, FlatParameters

if TYPE_CHECKING:
    from torch import Tensor

KEPT: Final = 2
"""Versions that a process keeps: processes of one pipeline are never more than one step apart."""
SLICE_BYTES: Final = 16 * 2**20
_NAME: Final = re.compile(r"^part-(\d{5})-version-(\d{9})\.state$")


class Checkpoints:
    """The checkpoints of process `index` in a folder that all processes may share.

    A file holds what `FlatParameters.state` returns, but is written and read slice by slice: there never is a second
    copy of the whole state in memory. It has its name only once it lies complete on the disk.
    """

    def __init__(self, folder: Path, index: int) -> None:
        self.folder, self.index = folder, index

    def path(self, version: int) -> Path:
        """Return where the state after `version` steps lies."""
        return self.folder / f"part-{self.index:05d}-version-{version:09d}.state"

    def versions(self) -> list[int]:
        """Return the versions that there are, in order."""
        if not self.folder.is_dir():
            return []
        names = (_NAME.match(path.name) for path in self.folder.iterdir())
        return sorted(int(name[2]) for name in names if name is not None and int(name[1]) == self.index)

    def write(self, version: int, flat: FlatParameters) -> None:
        """Keep the state after `version` steps, and of older ones the last.

        Raises:
            BackendError: it cannot be written.

        """
        assert version == flat.num_steps, "a version is the number of steps that were made"
        path = self.path(version)
        unfinished = path.with_suffix(".unfinished")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                with unfinished.open("wb") as file:
                    _write(file, flat)
                unfinished.replace(path)
                _settle(self.folder)
            finally:
                unfinished.unlink(missing_ok=True)
            for old in self.versions()[:-KEPT]:
                self.path(old).unlink(missing_ok=True)
        except OSError as error:
            raise BackendError(f"{path}: the checkpoint cannot be written: {error}") from None

    def read(self, version: int, flat: FlatParameters) -> None:
        """Go on from the state after `version` steps; gradients become zero.

        Raises:
            BackendError: it is not there, damaged, or of another model, piece or optimizer; nothing has changed then.

        """
        path = self.path(version)
        try:
            with path.open("rb") as file:
                _check(file, version, flat)
                file.seek(HEADER.size)
                for part in _slices(flat):
                    _fill(file, part)
        except OSError as error:
            raise BackendError(f"{path}: the checkpoint cannot be read: {error}") from None
        except ValueError as error:
            raise BackendError(f"{path}: {error}; remove it to go on from an older one") from None
        flat.begin_after(version)


def newest_common(versions: Sequence[Sequence[int]]) -> int:
    """Return the newest version that all processes have; 0, the beginning, if there is none."""
    common = set.intersection(*(set(each) for each in versions)) if versions else set()
    return max(common, default=0)


def _slices(flat: FlatParameters) -> "Iterator[Tensor]":
    for part in flat.parts:
        num_values = SLICE_BYTES // part.element_size()
        yield from (part[start : start + num_values] for start in range(0, len(part), num_values))


def _write(file: BinaryIO, flat: FlatParameters) -> None:
    import torch

    file.write(bytes(HEADER.size))
    checksum = 0
    for part in _slices(flat):
        values = part.view(torch.uint8).cpu().numpy().data
        checksum = zlib.crc32(values, checksum)
        file.write(values)
    file.seek(0)
    file.write(flat.header(checksum))
    file.flush()
    os.fsync(file.fileno())


def _settle(folder: Path) -> None:
    """Have a folder's names written to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check(file: BinaryIO, version: int, flat: FlatParameters) -> None:
    """Raise ValueError unless a file holds a whole state that fits."""
    checksum, num_steps = flat.check_header(file.read(HEADER.size))
    if num_steps != version:
        raise ValueError(f"it holds the state after {num_steps} steps, and its name says {version}")
    found = num_bytes = 0
    while read := file.read(SLICE_BYTES):
        found = zlib.crc32(read, found)
        num_bytes += len(read)
    if num_bytes != flat.body_bytes:
        raise ValueError(f"it has {num_bytes} bytes of values and should have {flat.body_bytes}")
    if found != checksum:
        raise ValueError("it is damaged: its checksum differs")


def _fill(file: BinaryIO, part: "Tensor") -> None:
    import torch

    values = bytearray(file.read(part.numel() * part.element_size()))  # torch wants memory it may write to
    part.copy_(torch.frombuffer(values, dtype=part.dtype))
