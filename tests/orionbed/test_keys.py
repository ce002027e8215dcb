"""Keys: what files they make, what is refused and what a signature says."""

import stat
from pathlib import Path

import pytest

from orionbed.keys import Key, Keyring, KeysError, Trusted, fingerprint, signature_fits

pytest.importorskip("cryptography")


def test_a_signature_is_that_of_one_key_and_one_message() -> None:
    key, other = Key.new("s00r0"), Key.new("s00r0")
    signature = key.sign(b"message")
    assert signature_fits(key.public, signature, b"message")
    assert not signature_fits(key.public, signature, b"messagf")
    assert not signature_fits(other.public, signature, b"message")
    assert not signature_fits(key.public, signature[:-1], b"message")
    assert not signature_fits(b"short", signature, b"message")


def test_a_known_signature() -> None:
    """RFC 8032, section 7.1, test 2."""
    public = bytes.fromhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
    signature = bytes.fromhex(
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )
    assert signature_fits(public, signature, b"\x72")
    assert not signature_fits(public, signature, b"\x73")
    assert fingerprint(bytes(32)) == "SHA256:Zmh6rfhivXdsj8GLjp+OIAiXFIVu4jOzkCpZHQ1fKSU"


def test_files_hold_what_was_made_and_only_their_owner_reads_the_private_one(tmp_path: Path) -> None:
    key = Key.new("s00r0")
    private, public = key.write(tmp_path / "keys")
    assert [stat.S_IMODE(path.stat().st_mode) & 0o077 for path in (private, public)] == [0, 0o044]
    assert Key.read(private).public == key.public
    assert public.read_text() == f"orionbed-ed25519 {key.public.hex()} s00r0\n"
    assert Trusted.read(public).fingerprints == {"s00r0": key.fingerprint}
    with pytest.raises(FileExistsError):
        Key.new("s00r0").write(tmp_path / "keys")
    assert Key.read(private).public == key.public, "it is still the first"
    other = Key.new("s00r0")
    other.write(tmp_path / "keys", force=True)
    assert Key.read(private).public == other.public
    private.chmod(0o640)
    with pytest.raises(KeysError, match=r"s00r0\.key: others than its owner can read this private key; chmod 600"):
        Key.read(private)


def test_files_that_hold_no_key(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    path = tmp_path / "a.key"
    with pytest.raises(KeysError, match=r"a\.key: the key cannot be read: No such file"):
        Key.read(path)
    curve = ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for content, message in ((b"none", "no private key in PEM"), (curve, "a key of another kind than Ed25519")):
        path.write_bytes(content)
        path.chmod(0o600)
        with pytest.raises(KeysError, match=message):
            Key.read(path)


@pytest.mark.parametrize("name", ["", "../a", ".a", "a/b", "a" * 101, "a b", "a\n"])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(KeysError, match="cannot name a key"):
        Key.new(name)


def test_a_keyring_signs_with_the_peers_key_or_the_writers(tmp_path: Path) -> None:
    with pytest.raises(KeysError, match="no keys there"):
        Keyring.read(tmp_path)
    for name in ("s00r0", "me"):
        Key.new(name).write(tmp_path)
    with pytest.raises(KeysError, match=r"no key of 'writer' to sign with, only of me, s00r0"):
        Keyring.read(tmp_path)
    ring = Keyring.read(tmp_path, "me")
    assert (ring.of("s00r0").name, ring.of("s01r0").name) == ("s00r0", "me")
    assert Keyring.read(tmp_path / "me.key").writer == "me"


def test_known_keys_come_as_lines_or_as_a_folder(tmp_path: Path) -> None:
    keys = [Key.new(name) for name in ("a", "b")]
    for key in keys:
        key.write(tmp_path / "keys")
    expected = {key.name: key.fingerprint for key in keys}
    assert Trusted.read(tmp_path / "keys").fingerprints == Trusted.of(keys).fingerprints == expected
    path = tmp_path / "known"
    path.write_text(f"# those we know\n\n{keys[0].public_line}{keys[1].fingerprint} b # by telephone\n")
    assert Trusted.read(path).fingerprints == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no public keys there"),
        ("orionbed-ed25519 00 a", ":1: neither"),
        ("orionbed-ed25519 zz a", ":1: neither"),
        ("ssh-ed25519 AAAA a", ":1: neither"),
        ("SHA256:short a", ":1: neither"),
        (f"orionbed-ed25519 {'00' * 32} ../a", ":1: neither"),
        (f"orionbed-ed25519 {'00' * 32} a\norionbed-ed25519 {'01' * 32} a", ":2: another key of 'a' stands before"),
    ],
)
def test_files_of_known_keys_that_are_none(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "known").write_text(text)
    with pytest.raises(KeysError, match=message):
        Trusted.read(tmp_path / "known")
