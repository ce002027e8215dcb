"""Ed25519 keys: who a peer is, in files that `orionbed keys` makes; signatures, and whose keys are known.

A private key lies in `NAME.key` (PKCS 8, PEM, readable by its owner alone), its public one in `NAME.pub`: one line,
`orionbed-ed25519 HEX NAME`. A file of known keys is such lines one below the other, or lines `FINGERPRINT NAME`.
"""

import base64
import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

PRIVATE, PUBLIC = ".key", ".pub"
NAME: Final = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
"""Names of peers and of files: nothing that leads out of a folder."""
_NAME: Final = re.compile(NAME)
_KIND: Final = "orionbed-ed25519"
_FINGERPRINT: Final = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")
_PUBLIC_BYTES: Final = 32


class KeysError(ValueError):
    """A key, or a file of keys, cannot be used; the message says which and why."""


def fingerprint(public: bytes) -> str:
    """Return the SHA-256 of a raw public key, in the form in which OpenSSH writes fingerprints."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(public).digest()).decode().rstrip("=")


def can_sign() -> bool:
    """Whether the package `cryptography` is there."""
    from importlib.util import find_spec

    return find_spec("cryptography") is not None


@dataclass(frozen=True)
class Key:
    """A private key under its name."""

    name: str
    private: "Ed25519PrivateKey"

    @classmethod
    def new(cls, name: str) -> "Key":
        """Return a key that nobody has had before. KeysError: not a name, or `cryptography` is not installed."""
        check_name(name)
        _need_cryptography()
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return cls(name, Ed25519PrivateKey.generate())

    @classmethod
    def read(cls, path: Path) -> "Key":
        """Return the key in a file; its name is the file's.

        Raises:
            KeysError: it is not there, others can read it, or it is no Ed25519 key in PEM.

        """
        _need_cryptography()
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        check_name(path.stem)
        try:
            with path.open("rb") as file:
                mode = os.fstat(file.fileno()).st_mode
                data = file.read(10_000)
        except OSError as error:
            raise KeysError(f"{path}: the key cannot be read: {error.strerror}") from None
        if mode & 0o077:
            raise KeysError(f"{path}: others than its owner can read this private key; chmod 600 {path}")
        try:
            private = load_pem_private_key(data, password=None)
        except (ValueError, TypeError) as error:
            raise KeysError(f"{path}: no private key in PEM: {error}") from None
        if not isinstance(private, Ed25519PrivateKey):
            raise KeysError(f"{path}: a key of another kind than Ed25519; make one with `orionbed keys make`")
        return cls(path.stem, private)

    @property
    def public(self) -> bytes:
        """The public key, 32 bytes."""
        return self.private.public_key().public_bytes_raw()

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the public key."""
        return fingerprint(self.public)

    @property
    def pem(self) -> str:
        """The private key as PEM text."""
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

        return self.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()

    @property
    def public_line(self) -> str:
        """What may be handed out."""
        return f"{_KIND} {self.public.hex()} {self.name}\n"

    def sign(self, message: bytes) -> bytes:
        """Return the signature of a message, 64 bytes."""
        return self.private.sign(message)

    def write(self, folder: Path, *, force: bool = False) -> tuple[Path, Path]:
        """Write both files into a folder that may have to be made; return their paths.

        Raises:
            FileExistsError: one is there; with `force` it is replaced.

        """
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        private, public = (folder / f"{self.name}{suffix}" for suffix in (PRIVATE, PUBLIC))
        for path, text, mode in ((private, self.pem, 0o600), (public, self.public_line, 0o644)):
            if force:
                path.unlink(missing_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(text)
        return private, public


@dataclass(frozen=True)
class Keyring:
    """The private keys that are here, by name, and the one that signs what no other does."""

    keys: Mapping[str, Key]
    writer: str

    @classmethod
    def read(cls, path: Path, writer: str | None = None) -> "Keyring":
        """Return the keys of a folder, or the one of a file.

        `writer` names the key that signs manifests, and shards of peers without a key of their own; by default it is
        the only key, or the one called `writer`.

        Raises:
            KeysError: there are none, one is unusable, or it is open which is the writer's.

        """
        paths = sorted(path.glob(f"*{PRIVATE}")) if path.is_dir() else [path]
        keys = {key.name: key for key in map(Key.read, paths)}
        if not keys:
            raise KeysError(f"{path}: no keys there; make some with `orionbed keys make NAME --out {path}`")
        chosen = writer or (next(iter(keys)) if len(keys) == 1 else "writer")
        if chosen not in keys:
            raise KeysError(f"{path}: there is no key of '{chosen}' to sign with, only of {', '.join(keys)}")
        return cls(keys, chosen)

    def of(self, peer: str) -> Key:
        """Return the key of a peer, or the writer's."""
        return self.keys.get(peer) or self.keys[self.writer]


@dataclass(frozen=True)
class Trusted:
    """Fingerprints of known public keys, by name."""

    fingerprints: Mapping[str, str]

    @classmethod
    def read(cls, path: Path) -> "Trusted":
        """Return the known keys of a file, or of all `.pub` files of a folder.

        Raises:
            KeysError: it cannot be read, or a line is neither a public key nor a fingerprint.

        """
        paths = sorted(path.glob(f"*{PUBLIC}")) if path.is_dir() else [path]
        found: dict[str, str] = {}
        for each in paths:
            for where, name, known in _lines(each):
                if found.setdefault(name, known) != known:
                    raise KeysError(f"{where}: another key of '{name}' stands before; keep one of them")
        if not found:
            raise KeysError(f"{path}: no public keys there; give the .pub files that `orionbed keys make` wrote")
        return cls(found)

    @classmethod
    def of(cls, keys: Iterable[Key]) -> "Trusted":
        """Return the public side of keys that are here."""
        return cls({key.name: key.fingerprint for key in keys})


def signature_fits(public: bytes, signature: bytes, message: bytes) -> bool:
    """Whether a signature is that of a message by the owner of a raw public key."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def check_name(name: str) -> None:
    """Raise KeysError unless this may name a key."""
    if not _NAME.fullmatch(name):
        raise KeysError(f"'{name}' cannot name a key; use letters, digits, '.', '_' and '-', at most 100")


def _lines(path: Path) -> Iterator[tuple[str, str, str]]:
    """Yield place, name and fingerprint of each key in a file of known ones."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise KeysError(f"{path}: public keys cannot be read: {error}") from None
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        known = _known(words)
        if known is None or not _NAME.fullmatch(words[-1]):
            raise KeysError(f"{path}:{number}: neither '{_KIND} HEX NAME' nor 'SHA256:... NAME'")
        yield f"{path}:{number}", words[-1], known


def _known(words: list[str]) -> str | None:
    if len(words) == 3 and words[0] == _KIND:
        try:
            public = bytes.fromhex(words[1])
        except ValueError:
            return None
        return fingerprint(public) if len(public) == _PUBLIC_BYTES else None
    return words[0] if len(words) == 2 and _FINGERPRINT.fullmatch(words[0]) else None


def _need_cryptography() -> None:
    if not can_sign():
        raise KeysError("keys need the package cryptography: pip install 'orionbed[tls]'")
