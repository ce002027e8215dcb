"""Checkpoints of processes that share no more than a folder: each writes its own shard, with a manifest of its own.

Process `n` of version `v` has `part-n-version-v.state` and, written after it, `.json` of that name, a manifest of this
one shard. Its `about` says which of how many processes it is. A version is whole once every process has written its.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from orionbed.checkpoints.contents import Value
from orionbed.checkpoints.errors import CheckpointError
from orionbed.checkpoints.folders import settle
from orionbed.checkpoints.manifest import FORMAT, Manifest, load, sign_shard
from orionbed.checkpoints.shards import write_shard
from orionbed.checkpoints.verifying import Examined, examine_manifest, signature_problems
from orionbed.checkpoints.writing import write_text
from orionbed.keys import Key, Trusted

_NAME: Final = re.compile(r"part-(\d{5})-version-(\d{9})\.(?:state|json)")


@dataclass(frozen=True, slots=True)
class Parts:
    """What one process keeps, and under whose name and key. With a key, nothing that it has not signed is read."""

    folder: Path
    process: int
    peer: str
    key: Key | None = None
    about: Mapping[str, Any] = field(default_factory=dict)

    def path(self, version: int) -> Path:
        """Return where the state of a version lies."""
        return self.folder / f"part-{self.process:05d}-version-{version:09d}.state"

    def versions(self) -> list[int]:
        """Return the versions that there are, in order."""
        there = _found(self.folder, ".json") & _found(self.folder, ".state")
        return sorted(version for version, process in there if process == self.process)

    def write(self, version: int, contents: Mapping[str, Value], keep: int) -> None:
        """Keep a version, and of older ones so many that they are `keep` together.

        Raises:
            OSError: it cannot be written; if there was none of this version, there is none now.

        """
        path = self.path(version)
        manifest = path.with_suffix(".json")
        unfinished = [each.with_name(f"{each.name}.unfinished") for each in (path, manifest)]
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            for each in unfinished:
                each.unlink(missing_ok=True)
            told = self._manifest(unfinished[0].name, path.name, version, contents)
            write_text(unfinished[1], told.text())
            # Only with its manifest a version is there, so that one goes first and comes last.
            manifest.unlink(missing_ok=True)
            unfinished[0].replace(path)
            unfinished[1].replace(manifest)
            settle(self.folder)
        finally:
            for each in unfinished:
                each.unlink(missing_ok=True)
        for old in self.versions()[:-keep]:
            self.path(old).with_suffix(".json").unlink(missing_ok=True)
            self.path(old).unlink(missing_ok=True)

    def manifest(self, version: int) -> Manifest:
        """Return what stands in the manifest of a version; its state is still to be checked.

        Raises:
            CheckpointError: it is not there, damaged, or another's.

        """
        path = self.path(version)
        found = load(path.with_suffix(".json"))
        trusted = None if self.key is None else Trusted.of([self.key])
        problems, _ = signature_problems(path.with_suffix(".json").name, found, trusted)
        if problems:
            raise CheckpointError("; ".join(problems))
        if found.position != version:
            raise CheckpointError(f"it holds the state after {found.position} steps, and its name says {version}")
        if [shard.file for shard in found.shards] != [path.name]:
            raise CheckpointError(f"its manifest is not one of {path.name} alone")
        return found

    def _manifest(self, unfinished: str, name: str, version: int, contents: Mapping[str, Value]) -> Manifest:
        """Write the state of a version under a name of its own for now; return the manifest for its last name."""
        about = {**self.about, "process": self.process, "position": version}
        shard = write_shard(self.folder, unfinished, self.peer, contents).model_copy(update={"file": name})
        if self.key is not None:
            shard = sign_shard(shard, about, self.key)
        manifest = Manifest(format=FORMAT, about=about, shards=[shard])
        return manifest if self.key is None else manifest.signed(self.key)


def has_parts(folder: Path) -> bool:
    """Whether processes have kept their parts in a folder."""
    return folder.is_dir() and any(_NAME.fullmatch(path.name) for path in folder.iterdir())


def examine_parts(folder: Path, trusted: Trusted | None = None) -> tuple[dict[int, list[Examined]], list[str]]:
    """Return by version what was found of each process, and what is wrong with the folder as a whole.

    That a process has not written the last version yet is no fault; that there is no version of all of them is one.
    """
    found: dict[int, list[Examined]] = defaultdict(list)
    for version, process in sorted(_found(folder, ".json")):
        part = Parts(folder, process, "")
        examined = examine_manifest(part.path(version).with_suffix(".json"), trusted)
        if examined.manifest is not None:
            examined.problems.extend(_misplaced(examined.manifest, part, version))
        found[version].append(examined)
    problems = [
        f"{path.name}: it has no manifest beside it"
        for path in sorted(folder.glob("part-*.state"))
        if _NAME.fullmatch(path.name) and not path.with_suffix(".json").exists()
    ]
    missing = {version: missing_processes(parts) for version, parts in found.items()}
    if not any(names == [] for names in missing.values()):
        problems += [f"version {version}: missing {', '.join(names)}" for version, names in missing.items()]
    return dict(found), problems


def missing_processes(parts: Sequence[Examined]) -> list[str]:
    """Return the parts that are missing of one version, by the number of processes that the others tell of."""
    manifests = [each.manifest for each in parts if each.manifest is not None]
    told = [about for about in (each.about.get("processes") for each in manifests) if isinstance(about, int)]
    there = {each.about.get("process") for each in manifests}
    return [f"part-{number:05d}" for number in range(max(told, default=0)) if number not in there]


def _misplaced(manifest: Manifest, part: Parts, version: int) -> list[str]:
    path = part.path(version)
    right = manifest.position == version and manifest.about.get("process") == part.process
    if right and [shard.file for shard in manifest.shards] == [path.name]:
        return []
    return [f"{path.with_suffix('.json').name}: it is the manifest of another part, under this name"]


def _found(folder: Path, suffix: str) -> set[tuple[int, int]]:
    """Return version and process of every part that has a file of this kind."""
    if not folder.is_dir():
        return set()
    matches = (_NAME.fullmatch(path.name) for path in folder.iterdir() if path.suffix == suffix)
    return {(int(match[2]), int(match[1])) for match in matches if match}
