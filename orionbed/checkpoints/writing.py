"""Writing a checkpoint: under another name until all of it lies on the disk."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from orionbed.checkpoints.contents import Value
from orionbed.checkpoints.errors import CheckpointError
from orionbed.checkpoints.folders import MANIFEST, path_of, prune, settle
from orionbed.checkpoints.manifest import FORMAT, Manifest, position_of, reason, sign_shard
from orionbed.checkpoints.shards import write_shard
from orionbed.keys import Keyring


def write(
    parent: Path,
    shards: Mapping[str, Mapping[str, Value]],
    about: Mapping[str, Any],
    *,
    keys: Keyring | None = None,
    keep: int = 2,
) -> Path:
    """Keep a checkpoint in the folder of a run's checkpoints, remove all but the last `keep`, return its folder.

    `shards` gives each peer's contents by name, `about` says in plain JSON what run this is; its `position` orders
    checkpoints. With keys each shard is signed by its peer's, or the writer's where there is none, and the manifest by
    the writer's. One process at a time may write to a folder; any number may read.

    Raises:
        CheckpointError: it cannot be written, or there is one of this position; nothing has changed then.

    """
    assert keep > 0, "the one that is written stays"
    try:
        position = position_of(about)
    except ValueError as error:
        raise CheckpointError(str(error)) from None
    target = path_of(parent, position)
    if target.exists():
        raise CheckpointError(f"{target}: there is a checkpoint of this position; remove it, or use another folder")
    unfinished = target.with_name(f".{target.name}.unfinished")
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        try:
            _fill(unfinished, shards, dict(about), keys)
            unfinished.rename(target)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        settle(parent)
        prune(parent, keep, position)
    except OSError as error:
        raise CheckpointError(f"{target}: the checkpoint cannot be written: {error}") from None
    except (TypeError, ValidationError) as error:
        raise CheckpointError(f"{target}: the checkpoint cannot be written like this: {reason(error)}") from None
    return target


def write_text(path: Path, text: str) -> None:
    """Write a new file and have it settle on the disk."""
    with path.open("x", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _fill(folder: Path, shards: Mapping[str, Mapping[str, Value]], about: dict[str, Any], keys: Keyring | None) -> None:
    made = [write_shard(folder, f"{name}.shard", name, contents) for name, contents in shards.items()]
    if keys is not None:
        made = [sign_shard(shard, about, keys.of(shard.name)) for shard in made]
    manifest = Manifest(format=FORMAT, about=about, shards=made)
    if keys is not None:
        manifest = manifest.signed(keys.keys[keys.writer])
    write_text(folder / MANIFEST, manifest.text())
    settle(folder)
