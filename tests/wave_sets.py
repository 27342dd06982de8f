"""Signed filter sets for tests of the wave: right ones, and all that a node has to refuse."""

from hashlib import sha256

import ed25519_reference as reference
import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from wave_bench import SITE

from gateway import wave
from gateway.model import CONV1X1, CONV3X3, Filters, NodeLayer
from protocol.filter_set import SIGNATURE_SIZE

SECRET_KEY = sha256(b"a gateway's key").digest()
KEY = reference.public_key(SECRET_KEY)


def filters_of(version):
    """A small network whose activations differ from version to version."""
    rng = np.random.default_rng(version)
    layers = []
    for kind, channels_in, channels_out in ((CONV3X3, 1, 3), (CONV1X1, 3, 2), (CONV3X3, 2, 2)):
        taps = 9 if kind == CONV3X3 else 1
        weights = rng.integers(-128, 128, (channels_out, channels_in, taps)).astype(np.int8)
        bias = rng.integers(0, 4_000, channels_out).astype(np.int32)
        layers.append(NodeLayer(kind, channels_in, channels_out, 14 if channels_in == 1 else 8, bias, weights))
    return Filters(version, 2_200, tuple(layers))


def flashed(version=1, site=SITE):
    """The set that a node has from its flashing: unsigned, without self-tests."""
    return filters_of(version).pack(site)


def good(version, site=SITE, secret_key=SECRET_KEY):
    """A set as the gateway signs it."""
    return wave.signed(filters_of(version), site, Ed25519PrivateKey.from_private_bytes(secret_key))


def sign(data, secret_key=SECRET_KEY):
    """Put a right signature on whatever lies before the last 64 bytes."""
    body = bytes(data[:-SIGNATURE_SIZE])
    return body + Ed25519PrivateKey.from_private_bytes(secret_key).sign(sha256(body).digest())
