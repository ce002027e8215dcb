"""Checkpoints of a run with a static schedule: each process keeps its own part, and all go on from a common version."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from orionbed.backends import BackendError
from orionbed.checkpoints import CheckpointError
from orionbed.checkpoints.about import about_run
from orionbed.checkpoints.contents import BYTES, SLICE_BYTES, Content
from orionbed.checkpoints.folders import opened
from orionbed.checkpoints.parts import Parts
from orionbed.checkpoints.shards import file_problems
from orionbed.keys import PRIVATE, Key, KeysError
from orionbed.training.parameters import HEADER, FlatParameters

if TYPE_CHECKING:
    from torch import Tensor

    from orionbed.plan import Plan

KEPT: Final = 2
"""Versions that a process keeps: processes of one pipeline are never more than one step apart."""
STATE: Final = "state"


class Checkpoints:
    """The checkpoints of process `index` in a folder that all processes may share.

    With a key they are signed, and what it has not signed is refused. `about` is said of the run in their manifests.

    A file holds what `FlatParameters.state` returns, without a checksum, since the SHA-256 in its manifest is one. It
    is written and read slice by slice: there never is a second copy of the whole state in memory.
    """

    def __init__(
        self,
        folder: Path,
        index: int,
        *,
        peer: str | None = None,
        key: Key | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        self._parts = parts = Parts(folder, index, peer or f"part-{index:05d}", key, about or {})
        self.path = parts.path
        self.versions = parts.versions

    @classmethod
    def of(cls, plan: "Plan", seed: int, index: int) -> "Checkpoints":
        """Return those of a process of a run, as `real.checkpoint` and `real.keys` say.

        Raises:
            BackendError: the key of its peer is not there, or cannot be used.

        """
        block, peer = plan.scenario.real, plan.peers[index].name
        assert block.checkpoint is not None, "whoever asks has looked"
        about = about_run(plan.scenario, seed, 0, processes=len(plan.peers))
        return cls(Path(block.checkpoint), index, peer=peer, key=key_of(plan, index), about=about)

    def write(self, version: int, flat: FlatParameters) -> None:
        """Keep the state after `version` steps, and of older ones the last.

        Raises:
            BackendError: it cannot be written.

        """
        assert version == flat.num_steps, "a version is the number of steps that were made"
        content = Content(BYTES, (HEADER.size + flat.body_bytes,), lambda: _contents(flat))
        try:
            self._parts.write(version, {STATE: content}, KEPT)
        except OSError as error:
            raise BackendError(f"{self.path(version)}: the checkpoint cannot be written: {error}") from None

    def read(self, version: int, flat: FlatParameters) -> None:
        """Go on from the state after `version` steps; gradients become zero.

        Raises:
            BackendError: it is not there, damaged, signed by another, or of another seed, model, piece or optimizer;
                nothing has changed then. Or somebody wrote to it while it was read; then weights are of no use.

        """
        path = self.path(version)
        try:
            manifest = self._parts.manifest(version)
            found, mine = (about.get("seed") for about in (manifest.about, self._parts.about))
            if found != mine:
                raise CheckpointError(f"it is of a run with seed {found!r:.20}, and this one has {mine}")
            with opened(path) as file:
                if problems := file_problems(file, manifest.shards[0]):
                    raise CheckpointError("; ".join(problems))
                file.seek(0)
                whole = hashlib.sha256(_header(file, version, flat))
                for part in _slices(flat):
                    whole.update(_fill(file, part))
            if whole.hexdigest() != manifest.shards[0].sha256:
                raise CheckpointError("it has changed since it was checked")
        except OSError as error:
            raise BackendError(f"{path}: the checkpoint cannot be read: {error}") from None
        except ValueError as error:
            raise BackendError(f"{path}: {error}; remove it to go on from an older one") from None
        flat.begin_after(version)


def key_of(plan: "Plan", index: int) -> Key | None:
    """Return the key that a process signs with, if `real.keys` wants it.

    Raises:
        BackendError: it is not there, or cannot be used.

    """
    folder = plan.scenario.real.keys
    if folder is None:
        return None
    name = plan.peers[index].name
    try:
        return Key.read(Path(folder) / f"{name}{PRIVATE}")
    except KeysError as error:
        raise BackendError(f"real.keys: {error}; orionbed keys make {name} --out {folder}") from None


def newest_common(versions: Sequence[Sequence[int]]) -> int:
    """Return the newest version that all processes have; 0, the beginning, if there is none."""
    common = set.intersection(*(set(each) for each in versions)) if versions else set()
    return max(common, default=0)


def _slices(flat: FlatParameters) -> "Iterator[Tensor]":
    for part in flat.parts:
        num_values = SLICE_BYTES // part.element_size()
        yield from (part[start : start + num_values] for start in range(0, len(part), num_values))


def _contents(flat: FlatParameters) -> Iterator[Any]:
    import torch

    yield flat.header(0)
    for part in _slices(flat):
        yield part.view(torch.uint8).cpu().numpy().data


def _header(file: BinaryIO, version: int, flat: FlatParameters) -> bytes:
    """Return the header of a file, which then stands behind it. ValueError: the state that it holds does not fit."""
    header = file.read(HEADER.size)
    _, num_steps = flat.check_header(header)
    if num_steps != version:
        raise ValueError(f"it holds the state after {num_steps} steps, and its name says {version}")
    found = file.seek(0, 2) - file.seek(HEADER.size)
    if found != flat.body_bytes:
        raise ValueError(f"it has {found} bytes of values and should have {flat.body_bytes}")
    file.seek(HEADER.size)
    return header


def _fill(file: BinaryIO, part: "Tensor") -> bytearray:
    """Let values be those that come next in a file; return their bytes."""
    import torch

    values = bytearray(file.read(part.numel() * part.element_size()))  # torch wants memory it may write to
    if len(values) != part.numel() * part.element_size():
        raise ValueError("it was cut off while it was read")
    part.copy_(torch.frombuffer(values, dtype=part.dtype))
    return values
