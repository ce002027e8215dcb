"""The folder of a run's checkpoints: names, order, what is old; files that are opened without being led astray."""

import os
import re
import shutil
import stat
from pathlib import Path
from typing import BinaryIO, Final

from orionbed.checkpoints.errors import CheckpointError

MANIFEST: Final = "manifest.json"
_NAME: Final = re.compile(r"position-(\d{9,})")


def path_of(parent: Path, position: int) -> Path:
    """Return where the checkpoint of a position lies."""
    return parent / f"position-{position:09d}"


def folders_in(parent: Path) -> list[Path]:
    """Return the folders that are named like checkpoints, in the order of their positions."""
    if not parent.is_dir():
        return []
    return sorted((path for path in parent.iterdir() if _NAME.fullmatch(path.name)), key=_position)


def positions(parent: Path) -> list[int]:
    """Return the positions of which there are checkpoints, in order."""
    return [_position(path) for path in folders_in(parent) if (path / MANIFEST).is_file()]


def newest(parent: Path) -> Path | None:
    """Return the checkpoint of the last position, unread; `None` if there is none."""
    found = positions(parent)
    return path_of(parent, found[-1]) if found else None


def remove(folder: Path) -> None:
    """Remove a checkpoint; whoever looks meanwhile finds all of it or nothing."""
    doomed = folder.with_name(f".{folder.name}.removed")
    shutil.rmtree(doomed, ignore_errors=True)
    folder.rename(doomed)
    shutil.rmtree(doomed)


def prune(parent: Path, keep: int, written: int) -> None:
    """Remove all checkpoints but the last `keep` and the one just written, and what writers that died have left."""
    for position in positions(parent)[:-keep]:
        if position != written:
            remove(path_of(parent, position))
    for left in parent.glob(".position-*"):
        shutil.rmtree(left, ignore_errors=True)


def _position(path: Path) -> int:
    return int(path.name.rpartition("-")[2])


def settle(folder: Path) -> None:
    """Have a folder's names written to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def opened(path: Path) -> BinaryIO:
    """Open a file to read it.

    Raises:
        CheckpointError: it is a link, not a plain file, not there or not readable; the message names it.

    """
    try:
        # Not blocking, lest a pipe of that name makes the reader wait for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise CheckpointError(f"{path.name}: it is missing") from None
    except OSError as error:
        what = "a symbolic link, which is not followed" if path.is_symlink() else f"unreadable: {error.strerror}"
        raise CheckpointError(f"{path.name}: {what}") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise CheckpointError(f"{path.name}: no plain file")
    return os.fdopen(descriptor, "rb")
