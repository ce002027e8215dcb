"""The manifest of a checkpoint: what is in it, with hashes and signatures; its one valid text."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints, ValidationError, model_validator

from orionbed.checkpoints.contents import WIDTHS, num_bytes
from orionbed.checkpoints.errors import CheckpointError
from orionbed.checkpoints.folders import MANIFEST, opened
from orionbed.keys import NAME, Key, fingerprint, signature_fits

FORMAT: Final = "orionbed-checkpoint-1"
MOST_BYTES: Final = 64 * 2**20
"""A longer manifest is not read."""

Name = Annotated[str, StringConstraints(pattern=rf"^{NAME}$")]
EntryName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._ /:-]{0,199}$")]
Length = Annotated[int, Field(ge=0, lt=2**63)]
Message = Callable[[str, str], bytes]
"""From the name and the public key of who signs, in hexadecimal, to what is signed."""


def _hex(num_bytes: int) -> Any:
    return StringConstraints(pattern=rf"^[0-9a-f]{{{2 * num_bytes}}}$")


Digest = Annotated[str, _hex(32)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Signature(_Strict):
    """Who signed, with which public key, and the signature; the bytes in hexadecimal."""

    by: Name
    key: Annotated[str, _hex(32)]
    value: Annotated[str, _hex(64)]

    @property
    def fingerprint(self) -> str:
        """That of the public key."""
        return fingerprint(bytes.fromhex(self.key))


class Entry(_Strict):
    """One content of a shard; the first begins where the file does, each other one where the one before ends."""

    name: EntryName
    dtype: str
    shape: list[Length]
    bytes: Length
    sha256: Digest

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        if self.dtype not in WIDTHS or self.bytes != num_bytes(self.dtype, self.shape):
            raise ValueError(f"{self.bytes} bytes are no {self.dtype} of shape {self.shape}")
        return self


class Shard(_Strict):
    """One file, made by the peer of that name."""

    name: Name
    file: Name
    bytes: Length
    sha256: Digest
    entries: list[Entry]
    signature: Signature | None = None

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        if self.bytes != sum(entry.bytes for entry in self.entries):
            raise ValueError(f"shard {self.name} has other bytes than its entries together")
        _distinct(f"entries of shard {self.name}", (entry.name for entry in self.entries))
        return self


class Manifest(_Strict):
    """All there is to know of a checkpoint but its contents."""

    format: str
    about: dict[str, JsonValue]
    shards: list[Shard]
    signature: Signature | None = None

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        _distinct("shards", (shard.name for shard in self.shards))
        _distinct("files", (shard.file for shard in self.shards))
        if any(shard.file == MANIFEST for shard in self.shards):
            raise ValueError(f"a shard cannot lie in {MANIFEST}")
        position_of(self.about)
        return self

    @property
    def position(self) -> int:
        """How far the run was, in what its writer counts."""
        return position_of(self.about)

    def text(self) -> str:
        """Return the only text of which this is read."""
        data = self.model_dump()
        return _render(data | {"sha256": _digest(data)})

    def signed(self, key: Key) -> "Manifest":
        """Return it with a signature over all of it."""
        return self.model_copy(update={"signature": _signature(key, self._message)})

    def signature_fits(self) -> bool:
        """Whether the signature over all is one."""
        return self.signature is not None and _fits(self.signature, self._message)

    def _message(self, by: str, public: str) -> bytes:
        body = self.model_dump(exclude={"signature"})
        return _to_sign({"signed": "manifest", "by": by, "key": public, "body": body})


def sign_shard(shard: Shard, about: dict[str, JsonValue], key: Key) -> Shard:
    """Return a shard with a signature that binds it to what it is about: it fits no other run or position."""
    return shard.model_copy(update={"signature": _signature(key, lambda *who: _shard_message(shard, about, *who))})


def shard_signature_fits(shard: Shard, about: dict[str, JsonValue]) -> bool:
    """Whether the signature of a shard is one."""
    return shard.signature is not None and _fits(shard.signature, lambda *who: _shard_message(shard, about, *who))


def load(path: Path) -> Manifest:
    """Return what a file says, whose signatures are still to be checked.

    Raises:
        CheckpointError: it cannot be read, is damaged, or of another format.

    """
    with opened(path) as file:
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise CheckpointError(f"{path.name}: more than {MOST_BYTES} bytes, which no manifest has")
    try:
        return _parsed(data.decode())
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path.name}: {reason(error)}") from None


def _parsed(text: str) -> Manifest:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is damaged: no JSON: {error}") from None
    if not isinstance(found, dict) or "format" not in found:
        raise ValueError("it is no manifest of a checkpoint, or damaged")
    if found["format"] != FORMAT:
        raise ValueError(f"it is of format {found['format']!r:.80}, and this version of orionbed reads {FORMAT}")
    # Equal content in other words (spaces, repeated keys) would leave room for changes that nobody sees.
    if _render(found) != text:
        raise ValueError("it is damaged: written otherwise than orionbed writes it")
    digest = found.pop("sha256", None)
    if digest != _digest(found):
        raise ValueError("it is damaged or was altered: its SHA-256 differs from the one that it names")
    return Manifest.model_validate(found)


def reason(error: Exception) -> str:
    """Return in one line why a manifest is none."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        return f"{where}: {first['msg']}" if where else first["msg"]
    if isinstance(error, UnicodeDecodeError):
        return f"it is damaged: byte {error.start} is no text"
    return str(error)


def _signature(key: Key, message: Message) -> Signature:
    public = key.public.hex()
    return Signature(by=key.name, key=public, value=key.sign(message(key.name, public)).hex())


def _fits(signature: Signature, message: Message) -> bool:
    public, value = bytes.fromhex(signature.key), bytes.fromhex(signature.value)
    return signature_fits(public, value, message(signature.by, signature.key))


def _shard_message(shard: Shard, about: dict[str, JsonValue], by: str, public: str) -> bytes:
    body = shard.model_dump(exclude={"signature"})
    return _to_sign({"signed": "shard", "format": FORMAT, "by": by, "key": public, "about": about, "body": body})


def _to_sign(data: Any) -> bytes:
    # Keys sign other things as well, and no signature may be taken for one of something else.
    return f"{FORMAT}\n".encode() + _canonical(data)


def _render(data: Any) -> str:
    return json.dumps(data, indent=1, sort_keys=True, allow_nan=False) + "\n"


def _canonical(data: Any) -> bytes:
    return json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _digest(data: Any) -> str:
    return hashlib.sha256(_canonical(data)).hexdigest()


def position_of(about: Mapping[str, Any]) -> int:
    """Return the position that stands in what a checkpoint is about. ValueError: none does."""
    position = about.get("position")
    if isinstance(position, bool) or not isinstance(position, int) or position < 0:
        raise ValueError(f"about.position: {position!r:.80} is no position; give a number from 0")
    return position


def _distinct(what: str, names: Iterable[str]) -> None:
    listed = list(names)
    if len(set(listed)) != len(listed):
        raise ValueError(f"two {what} have the same name")
