"""A site's key pair: the gateway signs filter sets with it, nodes hold the public half."""

import hashlib
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from gateway.files import write_private
from protocol.filter_set import SIGNATURE_SIZE

NAME = "site-key.pem"


class SiteKeyError(ValueError):
    """The key cannot be used; one line that names the file and the remedy."""


def load_or_make(folder: Path) -> Ed25519PrivateKey:
    """The site's private key, made on the first call: PEM, PKCS8, readable by its owner only.

    Raises:
        SiteKeyError: the file cannot be read or written, or holds no Ed25519 key.
    """
    path = folder / NAME
    try:
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            key = Ed25519PrivateKey.generate()
            write_private(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    except OSError as error:
        raise _unusable(path, error) from None
    return load(folder)


def load(folder: Path) -> Ed25519PrivateKey:
    """The site's private key.

    Raises:
        SiteKeyError: the file cannot be read, or holds no Ed25519 key.
    """
    path = folder / NAME
    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except OSError as error:
        raise _unusable(path, error) from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise SiteKeyError(f"{path}: holds no Ed25519 key; put it back from a backup, for nodes trust no other")
    return key


def check_signed(folder: Path, key: Ed25519PrivateKey, filter_set: bytes) -> None:
    """See that it is the key that signed the filters which nodes hold.

    Raises:
        SiteKeyError: it is another one.
    """
    signature = filter_set[-SIGNATURE_SIZE:]
    try:
        key.public_key().verify(signature, hashlib.sha256(filter_set[:-SIGNATURE_SIZE]).digest())
    except InvalidSignature:
        remedy = "put that one back from a backup, or move the state folder away and write all nodes anew"
        raise SiteKeyError(f"{folder / NAME}: is not the key that nodes trust; {remedy}") from None


def public_hex(key: Ed25519PrivateKey) -> str:
    """The public half as nodes have it in their configuration, 64 hex digits."""
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()


def fingerprint(key: Ed25519PrivateKey) -> str:
    """Short enough to compare two keys by eye: the first 16 hex digits of the public half's SHA-256."""
    return hashlib.sha256(bytes.fromhex(public_hex(key))).hexdigest()[:16]


def _unusable(path: Path, error: OSError) -> SiteKeyError:
    remedy = "the gateway signs filter sets with this key, and nodes trust no other"
    return SiteKeyError(f"{path}: {error.strerror or error}; {remedy}")
