"""Reading a checkpoint: all of it is checked before anything is given."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orionbed.checkpoints.contents import to_tensor
from orionbed.checkpoints.errors import CheckpointError
from orionbed.checkpoints.manifest import Entry, Manifest, Shard
from orionbed.checkpoints.shards import entry_bytes
from orionbed.checkpoints.verifying import examine
from orionbed.keys import Trusted

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint that was found good; its contents are read, and compared once more, when they are asked for.

    Raises:
        CheckpointError: from every method that gives a content, if there is none of this name or it has changed.

    """

    folder: Path
    manifest: Manifest

    @property
    def about(self) -> dict[str, Any]:
        """What run this is of."""
        return dict(self.manifest.about)

    @property
    def position(self) -> int:
        """How far the run was."""
        return self.manifest.position

    @property
    def shards(self) -> Sequence[str]:
        """Names of the shards, as they were written."""
        return [shard.name for shard in self.manifest.shards]

    def entries(self, shard: str) -> Sequence[str]:
        """Return the names of a shard's contents, as they were written."""
        return [entry.name for entry in self._shard(shard).entries]

    def bytes(self, shard: str, entry: str) -> bytearray:
        """Return a content as it lies in the file."""
        return entry_bytes(self.folder, self._shard(shard), entry)

    def json(self, shard: str, entry: str) -> Any:
        """Return what was written by way of `as_json`."""
        return json.loads(self.bytes(shard, entry))

    def tensor(self, shard: str, entry: str) -> "Tensor":
        """Return a tensor of its number format and shape on the CPU."""
        data = self.bytes(shard, entry)
        found: Entry = next(each for each in self._shard(shard).entries if each.name == entry)
        return to_tensor(data, found.dtype, found.shape)

    def _shard(self, name: str) -> Shard:
        for shard in self.manifest.shards:
            if shard.name == name:
                return shard
        raise CheckpointError(f"{self.folder}: it has no shard '{name}', only {', '.join(self.shards)}")


def read(folder: Path, trusted: Trusted | None = None) -> Checkpoint:
    """Check all of a checkpoint and return it.

    With known keys all of it must be signed by them; without, signatures must fit, if there are any.

    Raises:
        CheckpointError: something is wrong, all of which the message says; NoCheckpointError: there is none.

    """
    found = examine(folder, trusted)
    if found.manifest is None or found.problems:
        raise CheckpointError(f"{folder}: the checkpoint is refused: {'; '.join(found.problems)}")
    return Checkpoint(folder, found.manifest)
