"""Whether a checkpoint is what its manifest says, and who vouches for it."""

from dataclasses import dataclass, field
from pathlib import Path

from orionbed.checkpoints.errors import CheckpointError, NoCheckpointError
from orionbed.checkpoints.folders import MANIFEST
from orionbed.checkpoints.manifest import Manifest, Signature, load, shard_signature_fits
from orionbed.checkpoints.shards import shard_problems
from orionbed.keys import Trusted, can_sign


@dataclass(frozen=True, slots=True)
class Examined:
    """What was found: a manifest unless even that is unusable, and all that is wrong, each with its file's name."""

    path: Path
    manifest: Manifest | None
    problems: list[str]
    remarks: list[str] = field(default_factory=list)


def verify(folder: Path, trusted: Trusted | None = None) -> list[str]:
    """Return all that is wrong with a checkpoint; nothing, if it is good.

    Raises:
        NoCheckpointError: there is none at this path.

    """
    return examine(folder, trusted).problems


def examine(folder: Path, trusted: Trusted | None = None) -> Examined:
    """Read all of a checkpoint and compare: files, lengths, hashes, signatures and, if given, the keys that are known.

    Raises:
        NoCheckpointError: there is none at this path.

    """
    path = folder / MANIFEST
    if not path.is_symlink() and not path.exists():
        raise NoCheckpointError(f"{folder}: no checkpoint there: it has no {MANIFEST}")
    found = examine_manifest(path, trusted)
    if found.manifest is not None:
        found.problems.extend(_unlisted(folder, found.manifest))
    return found


def examine_manifest(path: Path, trusted: Trusted | None = None) -> Examined:
    """Do the same for one manifest and the shards that it lists, whatever lies beside them."""
    try:
        manifest = load(path)
    except CheckpointError as error:
        return Examined(path, None, [str(error)])
    problems, remarks = signature_problems(path.name, manifest, trusted)
    for shard in manifest.shards:
        problems += shard_problems(path.parent, shard)
    return Examined(path, manifest, problems, remarks)


def signature_problems(name: str, manifest: Manifest, trusted: Trusted | None) -> tuple[list[str], list[str]]:
    """Return what is wrong with the signatures of the manifest of this name, and what else is to be said of them."""
    signatures = [manifest.signature, *(shard.signature for shard in manifest.shards)]
    if not can_sign() and any(signatures):
        said = "signatures cannot be checked without the package cryptography: pip install 'orionbed[tls]'"
        return ([said], []) if trusted is not None else ([], [said])
    problems = []
    if manifest.signature is not None and not manifest.signature_fits():
        problems.append(f"{name}: it was altered: the signature of {_who(manifest.signature)} does not fit")
    problems += [
        f"{shard.file}: what the manifest says of it was altered: the signature of {_who(shard.signature)} does not fit"
        for shard in manifest.shards
        if shard.signature is not None and not shard_signature_fits(shard, manifest.about)
    ]
    if trusted is not None:
        problems += _distrust(name, None, manifest.signature, trusted)
        for shard in manifest.shards:
            problems += _distrust(shard.file, shard.name, shard.signature, trusted)
        return problems, []
    remarks = []
    if not all(signatures):
        remarks.append("unsigned: this shows damage, and not who made it")
    elif not problems:
        remarks.append("signed by keys that nobody was asked to trust; name those that you know with --trusted")
    return problems, remarks


def _distrust(name: str, peer: str | None, signature: Signature | None, trusted: Trusted) -> list[str]:
    """Return why known keys do not vouch for a part. Who has a key of its own must have signed what it made."""
    if signature is None:
        return [f"{name}: it is not signed"]
    known = trusted.fingerprints.get(signature.by)
    if known is None:
        return [f"{name}: signed with a foreign key, of {_who(signature)}, which is not known"]
    if known != signature.fingerprint:
        return [f"{name}: signed with a foreign key, of {_who(signature)}, where {known} is known"]
    if peer in trusted.fingerprints and signature.by != peer:
        return [f"{name}: made by {peer}, whose key is known, but signed by {_who(signature)}"]
    return []


def _who(signature: Signature) -> str:
    return f"{signature.by} ({signature.fingerprint})"


def _unlisted(folder: Path, manifest: Manifest) -> list[str]:
    listed = {MANIFEST, *(shard.file for shard in manifest.shards)}
    try:
        names = sorted(path.name for path in folder.iterdir())
    except OSError as error:
        return [f"{folder.name}: unreadable: {error.strerror}"]
    return [f"{name}: it is not in the manifest" for name in names if name not in listed]
