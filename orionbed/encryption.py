"""What encrypting a connection costs: bytes of TLS records, seconds of a core at both ends, one round trip more."""

from math import inf
from typing import Final

from orionbed.scenario.network import Network

RECORD_BYTES: Final = 16 * 1024
"""Payload of a full record of TLS 1.3 (RFC 8446, section 5.1)."""
RECORD_OVERHEAD_BYTES: Final = 5 + 1 + 16
"""Header, type and tag of a record (RFC 8446, section 5.2; the tag of AES-GCM and of ChaCha20-Poly1305)."""
_PAYLOAD_SHARE: Final = RECORD_BYTES / (RECORD_BYTES + RECORD_OVERHEAD_BYTES)


def cipher_rate(network: Network) -> float:
    """Return the bytes/s of payload that a core encrypts or decrypts; infinite where encryption is not counted."""
    transport = network.transport
    return inf if transport.cipher_rate is None or not transport.tls else transport.cipher_rate / 8.0


def payload_share(network: Network) -> float:
    """Return the share of a connection's bytes that is payload, the rest being what records add; 1 if not counted."""
    return _PAYLOAD_SHARE if cipher_rate(network) < inf else 1.0


def record_delay_s(network: Network) -> float:
    """Return what a message is later because its first record is encrypted before it leaves and its last one after."""
    return 2.0 * RECORD_BYTES / cipher_rate(network)


def added_s(num_bytes: float, rate: float, cipher: float, streams: int = 1) -> float:
    """Return how much later a message arrives that is encrypted, on a way that carries `rate` bytes/s of it in clear.

    Records are encrypted, sent and decrypted at the same time, each by one core, so the slowest of the three sets the
    pace, and what is added is the time of one record at either end. `cipher` is a core's bytes/s; `streams` parallel
    connections have as many cores.
    """
    encrypted = min(rate * _PAYLOAD_SHARE, streams * cipher)
    return num_bytes / encrypted - num_bytes / rate + 2.0 * RECORD_BYTES / cipher
