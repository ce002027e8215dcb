"""Checkpoints: shards of named contents and a manifest of hashes, signed if there are keys; whole or not there.

A checkpoint is a folder `position-NNNNNNNNN` inside the folder of a run's checkpoints: `manifest.json` and one file per
shard, which holds its contents one after the other and nothing else. A manifest says of each shard and of each content
its length and SHA-256, and of what run and position all is (`about`); its own SHA-256 stands in it as well. Signatures
are Ed25519 (RFC 8032), one per shard and one over all. See docs/how-to/checkpoints.md.
"""

from orionbed.checkpoints.contents import Value, as_json
from orionbed.checkpoints.errors import CheckpointError, NoCheckpointError
from orionbed.checkpoints.folders import newest, positions
from orionbed.checkpoints.reading import Checkpoint, read
from orionbed.checkpoints.verifying import Examined, examine, verify
from orionbed.checkpoints.writing import write

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "Examined",
    "NoCheckpointError",
    "Value",
    "as_json",
    "examine",
    "newest",
    "positions",
    "read",
    "verify",
    "write",
]
