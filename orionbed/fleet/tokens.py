"""What a user carries from the supervisor to another machine so that each can tell that the other is the right one."""

import hmac
import re
import secrets
from dataclasses import dataclass
from typing import Final

from orionbed.backends import BackendError

FROM_ENVIRONMENT: Final = "ORIONBED_TOKEN"
LEAST_SECRET: Final = 16
_FORM: Final = re.compile(rf"([\x21-\x2d\x2f-\x7e]{{{LEAST_SECRET},256}})(?:\.([0-9a-f]{{64}}))?")


@dataclass(frozen=True, slots=True)
class JoinToken:
    """A secret and the SHA-256 of the supervisor's certificate, as `SECRET.FINGERPRINT`.

    Without a fingerprint, as where somebody chose the secret before the run began, the supervisor is known by its proof
    alone, which covers its certificate too.
    """

    secret: str
    fingerprint: str = ""

    @classmethod
    def made(cls, fingerprint: str, chosen: str = "") -> "JoinToken":
        """Return the token of a run, with a secret of its own unless one was chosen. BackendError: not a good one."""
        secret = cls.parsed(chosen, f"${FROM_ENVIRONMENT}").secret if chosen else secrets.token_hex(16)
        return cls(secret, fingerprint)

    @classmethod
    def parsed(cls, text: str, where: str = "--token") -> "JoinToken":
        """Return the token that was written. BackendError: it is none."""
        found = _FORM.fullmatch(text)
        if found is None:
            raise BackendError(
                f"{where} is no token: a secret of {LEAST_SECRET} or more characters without spaces or dots is needed, "
                "or what the supervisor prints"
            )
        return cls(found[1], found[2] or "")

    def __str__(self) -> str:
        return f"{self.secret}.{self.fingerprint}" if self.fingerprint else self.secret

    def proof(self, role: str, nonces: str, fingerprint: str) -> str:
        """Return the proof that one end (`role`) knows the secret, for one conversation and one certificate."""
        said = f"orionbed {role} {nonces} {fingerprint}".encode()
        return hmac.digest(self.secret.encode(), said, "sha256").hex()

    def proves(self, proof: object, role: str, nonces: str, fingerprint: str) -> bool:
        """Whether the other end's proof is right."""
        return hmac.compare_digest(str(proof).encode(errors="replace"), self.proof(role, nonces, fingerprint).encode())
