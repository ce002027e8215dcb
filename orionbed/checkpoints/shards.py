"""Shard files: contents one after the other, hashed while they are written and before anything of them is used."""

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from re import fullmatch
from typing import BinaryIO

from orionbed.checkpoints.contents import SLICE_BYTES, Value, content_of
from orionbed.checkpoints.errors import CheckpointError
from orionbed.checkpoints.folders import opened
from orionbed.checkpoints.manifest import Entry, Shard
from orionbed.keys import NAME


def write_shard(folder: Path, file_name: str, name: str, contents: Mapping[str, Value]) -> Shard:
    """Write a new file and have it settle on the disk; return what the manifest says of it, unsigned.

    Raises:
        CheckpointError: the file cannot be named like this, or a content be kept.
        OSError: it is there, or cannot be written.

    """
    if not fullmatch(NAME, file_name):
        raise CheckpointError(f"'{file_name}' cannot name a shard; use letters, digits, '.', '_', '-', at most 100")
    entries: list[Entry] = []
    whole = hashlib.sha256()
    with (folder / file_name).open("xb") as file:
        for entry, value in contents.items():
            content = content_of(value)
            own = hashlib.sha256()
            for part in content.slices():
                file.write(part)
                own.update(part)
                if len(contents) > 1:
                    whole.update(part)
            if len(contents) == 1:
                whole = own  # the only content is the file
            entries.append(
                Entry(
                    name=entry,
                    dtype=content.dtype,
                    shape=list(content.shape),
                    bytes=content.num_bytes,
                    sha256=own.hexdigest(),
                )
            )
        file.flush()
        os.fsync(file.fileno())
    total = sum(entry.bytes for entry in entries)
    return Shard(name=name, file=file_name, bytes=total, sha256=whole.hexdigest(), entries=entries)


def shard_problems(folder: Path, shard: Shard) -> list[str]:
    """Return what is wrong with the file of a shard: its length, and each content that is not what it was."""
    try:
        with opened(folder / shard.file) as file:
            return file_problems(file, shard)
    except CheckpointError as error:
        return [str(error)]
    except OSError as error:
        return [f"{shard.file}: unreadable: {error.strerror}"]


def entry_bytes(folder: Path, shard: Shard, name: str) -> bytearray:
    """Return a content.

    Raises:
        CheckpointError: there is none of this name, or the file has changed since it was checked.

    """
    start = 0
    for entry in shard.entries:
        if entry.name == name:
            break
        start += entry.bytes
    else:
        raise CheckpointError(f"{shard.file}: it holds no '{name}'")
    with opened(folder / shard.file) as file:
        file.seek(start)
        data = bytearray(file.read(entry.bytes))
    if len(data) != entry.bytes or hashlib.sha256(data).hexdigest() != entry.sha256:
        raise CheckpointError(f"{shard.file}: '{name}' has changed since it was checked")
    return data


def file_problems(file: BinaryIO, shard: Shard) -> list[str]:
    """Return what is wrong with the file of a shard that is open, at its beginning."""
    found = os.fstat(file.fileno()).st_size
    if found != shard.bytes:
        how = "it was cut off" if found < shard.bytes else "something was added"
        return [f"{shard.file}: {found} bytes, where {shard.bytes} are expected; {how}"]
    whole, problems = hashlib.sha256(), []
    single = len(shard.entries) == 1
    for entry in shard.entries:
        own = hashlib.sha256()
        for part in _pieces(file, entry.bytes):
            own.update(part)
            if not single:
                whole.update(part)
        if single:
            whole = own
        if own.hexdigest() != entry.sha256:
            problems.append(f"{shard.file}: '{entry.name}' is damaged or was altered: its SHA-256 differs")
    if not problems and whole.hexdigest() != shard.sha256:
        problems.append(f"{shard.file}: the SHA-256 of the whole differs from those of its parts")
    return problems


def _pieces(file: BinaryIO, num_bytes: int) -> Iterator[bytes]:
    while num_bytes and (part := file.read(min(SLICE_BYTES, num_bytes))):
        num_bytes -= len(part)
        yield part
