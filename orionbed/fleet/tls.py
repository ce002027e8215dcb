"""TLS 1.3 between the machines of a run: both ends show a certificate of the run's own authority; names are nothing."""

import hashlib
import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any


class TlsError(ConnectionError):
    """The other end is not the one that it should be."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """A certificate with its key, and that of the authority that both ends trust, as PEM text."""

    key: str
    certificate: str
    authority: str

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of the certificate."""
        return fingerprint(ssl.PEM_cert_to_DER_cert(self.certificate))

    def server(self, *, strangers: bool = False) -> ssl.SSLContext:
        """Return the context of an end that listens; with `strangers` it lets in those without certificate as well."""
        context = self._context(ssl.PROTOCOL_TLS_SERVER)
        context.verify_mode = ssl.CERT_OPTIONAL if strangers else ssl.CERT_REQUIRED
        context.num_tickets = 0  # nobody comes back on a ticket, and one that is not read resets a connection
        return context

    def client(self) -> ssl.SSLContext:
        """Return the context of an end that connects."""
        return self._context(ssl.PROTOCOL_TLS_CLIENT)

    def _context(self, protocol: int) -> ssl.SSLContext:
        context = _bare(protocol)
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=self.authority)
        with _as_file(self.key + self.certificate) as path:
            context.load_cert_chain(path)
        return context


def stranger() -> ssl.SSLContext:
    """Return the context of an end that has no certificate yet and looks at the other's fingerprint itself."""
    context = _bare(ssl.PROTOCOL_TLS_CLIENT)
    context.verify_mode = ssl.CERT_NONE
    return context


def _bare(protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    return context


@contextmanager
def _as_file(text: str) -> Iterator[str]:
    """Yield a path at which a text can be read that lies in memory alone: Python's ssl takes keys from files only."""
    descriptor = os.memfd_create("orionbed-key")
    try:
        os.write(descriptor, text.encode())
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def fingerprint(certificate: bytes | None) -> str:
    """Return the SHA-256 of a certificate in DER; none has an empty one."""
    return hashlib.sha256(certificate).hexdigest() if certificate else ""


@dataclass(frozen=True, slots=True)
class Tls:
    """What the processes of one host need: contexts for connections among peers, and whom to expect as supervisor.

    Without a fingerprint the supervisor is on this machine, and is spoken to without TLS.
    """

    server: ssl.SSLContext
    client: ssl.SSLContext
    supervisor: str

    @classmethod
    def from_order(cls, order: dict[str, Any] | None) -> "Tls | None":
        """Return what a supervisor's order brings along, if it does."""
        if order is None:
            return None
        credentials = Credentials(order["key"], order["certificate"], order["authority"])
        return cls(credentials.server(), credentials.client(), order["supervisor"])


def tls_order(credentials: Credentials, supervisor: str) -> dict[str, str]:
    """Return the part of an order that `Tls.from_order` reads."""
    return asdict(credentials) | {"supervisor": supervisor}
