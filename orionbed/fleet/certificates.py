"""A certificate authority that exists for one run, in the supervisor's memory alone."""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from orionbed.backends import BackendError
from orionbed.fleet.tls import Credentials

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.x509 import Certificate, Name

_AHEAD: Final = timedelta(hours=1)
"""Other machines' clocks may be so much behind."""
_LIFETIME: Final = timedelta(days=7)
_AUTHORITY: Final = "orionbed run"
_USAGES: Final = (
    "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
    "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
)  # fmt: skip


class Authority:
    """Issues certificates for one run's hosts and peers. BackendError: the package `cryptography` is not installed."""

    def __init__(self) -> None:
        try:
            from cryptography.hazmat.primitives.asymmetric import ec
        except ImportError:
            raise BackendError(
                "encrypted connections among peers need the package cryptography: pip install 'orionbed[tls]'"
            ) from None
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._certificate = self._signed(self._key.public_key(), _AUTHORITY)

    def issue(self, name: str, lifetime: timedelta = _LIFETIME) -> Credentials:
        """Return a new key and its certificate, good for both ends of a connection, until `lifetime` from now."""
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec

        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._signed(key.public_key(), name, lifetime)
        pem = serialization.Encoding.PEM
        written = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        return Credentials(
            written.decode(), certificate.public_bytes(pem).decode(), self._certificate.public_bytes(pem).decode()
        )

    def _signed(
        self, public_key: "EllipticCurvePublicKey", name: str, lifetime: timedelta = _LIFETIME
    ) -> "Certificate":
        """Return a certificate of a key; the first one is the authority's own."""
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes

        own = public_key == self._key.public_key()
        usages = dict.fromkeys(_USAGES, False) | {"key_cert_sign": own, "digital_signature": not own}
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(_named(name))
            .issuer_name(_named(_AUTHORITY))
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _AHEAD)
            .not_valid_after(now + lifetime)
            .add_extension(x509.BasicConstraints(ca=own, path_length=0 if own else None), critical=True)
            .add_extension(x509.KeyUsage(**usages), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if not own:
            both = [x509.oid.ExtendedKeyUsageOID.SERVER_AUTH, x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH]
            builder = builder.add_extension(x509.ExtendedKeyUsage(both), critical=False)
        return builder.sign(self._key, hashes.SHA256())


def _named(name: str) -> "Name":
    from cryptography import x509

    return x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, name)])
