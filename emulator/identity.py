"""Long-lived keys in the first conversation of a joining host: who it is, and whether that one may join."""

from dataclasses import dataclass
from pathlib import Path

from orionbed.backends import BackendError
from orionbed.fleet.control import Message
from orionbed.keys import Key, KeysError, Trusted, fingerprint, signature_fits


class UnknownKeyError(Exception):
    """The other end has no key that is known here; the message names it."""


@dataclass(frozen=True, slots=True)
class Identity:
    """The key that one end shows, and those that it accepts; without `trusted` the token is enough."""

    key: Key | None = None
    trusted: Trusted | None = None

    @classmethod
    def read(cls, key: str | Path | None, trusted: str | Path | None, where: tuple[str, str]) -> "Identity":
        """Return the keys of some files; `where` is what their settings are called. BackendError: no good keys."""
        name = where[0]
        try:
            mine = None if key is None else Key.read(Path(key))
            name = where[1]
            return cls(mine, None if trusted is None else Trusted.read(Path(trusted)))
        except KeysError as error:
            raise BackendError(f"{name}: {error}") from None

    def shown(self, role: str, nonces: str, certificate: str) -> Message:
        """Return what proves to the other end, in this conversation and over this certificate, who one is."""
        if self.key is None:
            return {}
        signature = self.key.sign(_said(role, nonces, certificate))
        return {"public": self.key.public.hex(), "signature": signature.hex()}

    def known(self, told: Message, role: str, nonces: str, certificate: str) -> str:
        """Return under which name the other end is trusted; an empty one where no key is asked for.

        Raises:
            UnknownKeyError: it has shown none, another one, or one that is not its own.

        """
        if self.trusted is None:
            return ""
        try:
            public, signature = (bytes.fromhex(str(told[part])) for part in ("public", "signature"))
        except (KeyError, ValueError):
            raise UnknownKeyError("it has shown no key") from None
        print_ = fingerprint(public)
        names = [name for name, known in self.trusted.fingerprints.items() if known == print_]
        if not names:
            raise UnknownKeyError(f"its key {print_} is none of the trusted ones")
        if not signature_fits(public, signature, _said(role, nonces, certificate)):
            raise UnknownKeyError(f"it has shown the key of '{names[0]}', which is not its own")
        return names[0]


def _said(role: str, nonces: str, certificate: str) -> bytes:
    return f"orionbed enrolment {role} {nonces} {certificate}".encode()
