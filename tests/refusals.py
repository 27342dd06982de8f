"""Every filter set that a node has to refuse: what it is, the node's key, the counter that tells of it.

All claim to be version 3, for a node that confirmed version 2, unless a row says otherwise.
"""

import json
import random
import struct
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import ed25519_reference as reference
from ed25519_reference import BASE, IDENTITY, L, P, add, digest, encoded, times
from wave_sets import KEY, SECRET_KEY, filters_of, good, sign

from gateway.wave import self_tests
from protocol import filter_set
from protocol.filter_set import CONV1X1, CONV3X3, SIGNATURE_SIZE, SIZE_MAX
from protocol.health import REFUSED_FORM, REFUSED_SELF_TEST, REFUSED_SIGNATURE, REFUSED_SITE, REFUSED_VERSION

RFC = json.loads((Path(__file__).parent / "rfc8032_vectors.json").read_text(encoding="utf-8"))
OTHER_SECRET_KEY = sha256(b"somebody else's key").digest()
RIGHT = good(3)
BODY, SIGNATURE = RIGHT[:-SIGNATURE_SIZE], RIGHT[-SIGNATURE_SIZE:]
SCALAR = reference.secret_scalar(SECRET_KEY)[0]
SMALL_ORDER = reference.small_order()
# Where fields of RIGHT stand: the table in protocol/filter_set.py with the name "memory" and three layers.
COUNT, POOL, TESTS, NAME_SIZE, NAME = 3, 10, 11, 12, 13
LAYERS = (19, 62, 80)
SELF_TESTS, SELF_TEST_SIZE = 128, 9
KIND, CHANNELS_IN, CHANNELS_OUT, SHIFT, BIAS = range(5)


class Row(NamedTuple):
    """One set to refuse.

    Attributes:
        says: what is wrong with it.
        data: the set.
        counter: place of the counter in protocol/health.py.
        key: the node's.
        next: a right version 3 for that key; empty where nobody can sign one.
    """

    says: str
    data: bytes
    counter: int
    key: bytes = KEY
    next: bytes = RIGHT


def matrix(seed):
    """All rows. The seed chooses the bits that are changed."""
    signatures = by_key() + by_signature(seed) + by_rfc(seed) + by_weak_first() + by_weak_key()
    return signatures + by_length() + by_version_and_site() + by_field() + by_bias() + by_layers() + by_self_test()


def by_key():
    return [
        Row("signed with another key", good(3, secret_key=OTHER_SECRET_KEY), REFUSED_SIGNATURE),
        Row("signed with its own public key", sign(RIGHT, KEY), REFUSED_SIGNATURE),
    ]


def by_signature(seed):
    bits = [0, 7, 8, 254, 255, *random.Random(seed).sample(range(9, 254), 3)]
    s = int.from_bytes(SIGNATURE[32:], "little")
    first, second = SIGNATURE[:32], SIGNATURE[32:]
    signatures = {
        "all zero": bytes(64),
        "all ones": b"\xff" * 64,
        "of the set before": good(2)[-64:],
        "with its halves changed over": second + first,
        "R the identity, S zero": encoded(IDENTITY) + bytes(32),
        "R the base point, S one": encoded(BASE) + number(1),
    }
    signatures |= {f"S + {each} L": first + number(s + each * L) for each in range(1, (2**256 - 1 - s) // L + 1)}
    signatures |= {f"S = {name}": first + number(each) for name, each in (("L", L), ("2^256 - 1", 2**256 - 1))}
    signatures |= {f"bit {bit} of R": flipped(SIGNATURE, bit) for bit in bits}
    signatures |= {f"bit {bit} of S": flipped(SIGNATURE, bit + 256) for bit in bits}
    ys = [y for y in range(P, 2**255) if reference.roots(y % P)] + [2]
    signatures |= {f"R with a y of p + {y - P}": number(y) + second for y in ys}
    rows = [Row(f"signature: {says}", BODY + data, REFUSED_SIGNATURE) for says, data in signatures.items()]
    for bit in (34, 8 * LAYERS[0] + 70, 8 * SELF_TESTS):  # version, a bias, a self-test
        rows.append(Row(f"bit {bit} of what is signed", flipped(BODY, bit) + SIGNATURE, REFUSED_SIGNATURE))
    return rows


def by_rfc(seed):
    """Keys of RFC 8032, section 7.1: with its own signatures, and with right ones of which a bit was changed."""
    rows = []
    for row in RFC:
        secret_key, key, signature = (bytes.fromhex(row[name]) for name in ("secret_key", "public_key", "signature"))
        right, says = sign(RIGHT, secret_key), f"RFC 8032, {row['says']}"
        bit = random.Random(seed).randrange(512)
        rows.append(Row(f"{says}: the RFC's signature", BODY + signature, REFUSED_SIGNATURE, key, right))
        changed = BODY + flipped(right[-64:], bit)
        rows.append(Row(f"{says}: bit {bit} of the signature", changed, REFUSED_SIGNATURE, key, right))
        rows.append(Row(f"{says}: bit {bit // 2} of the key", right, REFUSED_SIGNATURE, flipped(key, bit // 2), b""))
    return rows


def by_weak_first():
    """Signatures that hold, with R of small order; the node's key is an honest one plus a point of order 8."""
    torsion = SMALL_ORDER[1]
    key = encoded(add(times(SCALAR, BASE), torsion))
    return [
        Row(f"R of small order, {ends(first)}", holding(key, first, 0, SCALAR, weak), REFUSED_SIGNATURE, key, b"")
        for weak in SMALL_ORDER
        for first in encodings(weak)
    ]


def by_weak_key():
    """Signatures that hold though nobody has a secret: the node's key is of small order."""
    first = encoded(times(7, BASE))
    return [
        Row(f"a key of small order, {ends(key)}", holding(key, first, 7, 0, IDENTITY), REFUSED_SIGNATURE, key, b"")
        for weak in SMALL_ORDER
        for key in encodings(weak)
    ]


def by_length():
    """Cut, or grown, by whoever passes it on; and by whoever signed it."""
    rows = [Row(f"cut to {size} bytes", RIGHT[:size], REFUSED_FORM) for size in (0, 1, 7, 8, 63, 64, 65, 71, 72)]
    sizes = (73, NAME + SIGNATURE_SIZE, LAYERS[2] + 20, len(BODY) - 1, len(BODY), len(RIGHT) - 1)
    rows += [Row(f"cut to {size} bytes", RIGHT[:size], REFUSED_SIGNATURE) for size in sizes]
    rows += [Row("one byte longer", RIGHT + b"\0", REFUSED_SIGNATURE)]
    rows += [Row("longer than any set", RIGHT + bytes(SIZE_MAX + 1 - len(RIGHT)), REFUSED_FORM)]
    sizes = (9, 12, NAME, 18, *LAYERS, LAYERS[2] + 20, SELF_TESTS, SELF_TESTS + 1, len(BODY) - 1)
    rows += [Row(f"signed for {size} bytes", sign(BODY[:size] + bytes(64)), REFUSED_FORM) for size in sizes]
    return [*rows, Row("signed with a byte too much", sign(BODY + bytes(65)), REFUSED_FORM)]


def by_version_and_site():
    foreign = good(3, site="other")
    return [
        Row("an older version", good(1), REFUSED_VERSION),
        Row("version 0", good(0), REFUSED_VERSION),
        Row("an older version with a broken signature", flipped(good(1), 1500), REFUSED_VERSION),
        Row("an older set under a new number", with_bytes(good(1), 4, b"\3"), REFUSED_SIGNATURE),
        Row("of another site", foreign, REFUSED_SITE),
        Row("of a site whose name begins alike", good(3, site="memory2"), REFUSED_SITE),
        Row("of a site without a name", good(3, site=""), REFUSED_SITE),
        Row("of another site, renamed", with_bytes(foreign, NAME, b"memor"), REFUSED_SIGNATURE),
    ]


def by_field():
    """Fields out of their range, rightly signed."""
    wrong = {"magic": (0, 0), "magic 2": (1, 0), "format": (2, 2), "name not in ASCII": (NAME, 0xFF)}
    wrong |= {"no layers": (COUNT, 0), "9 layers": (COUNT, 9), "pool of 1": (POOL, 1), "5 self-tests": (TESTS, 5)}
    wrong |= {"a self-test more than there is": (TESTS, 3), "one less": (TESTS, 1), "longer name": (NAME_SIZE, 255)}
    for number_of, at in enumerate(LAYERS):
        name = f"layer {number_of}: "
        wrong |= {name + "kind 0": (at + KIND, 0), name + "kind 3": (at + KIND, 3)}
        wrong |= {name + "no channels in": (at + CHANNELS_IN, 0), name + "17 channels out": (at + CHANNELS_OUT, 17)}
        wrong |= {name + "no channels out": (at + CHANNELS_OUT, 0), name + "shift 0": (at + SHIFT, 0)}
        wrong |= {name + "shift 25": (at + SHIFT, 25), name + "shift 255": (at + SHIFT, 255)}
    wrong |= {"a first layer without halo": (LAYERS[0] + KIND, CONV1X1)}
    return [
        Row(f"signed: {says}", sign(with_bytes(RIGHT, at, bytes((value,)))), REFUSED_FORM)
        for says, (at, value) in wrong.items()
    ]


def by_bias():
    """Sets whose sums could leave int32."""
    values = (2**29, -(2**29), 2**30, 2**31 - 1, -(2**31))
    return [
        Row(f"layer {index}: a bias of {value}", sign(with_bytes(RIGHT, at + BIAS, packed)), REFUSED_FORM)
        for index, at in enumerate(LAYERS)
        for value, packed in ((value, struct.pack("<i", value)) for value in values)
    ]


def by_layers():
    layer = (CONV3X3, 1, 1, 8, [0], [1] * 9)
    data = sign(filter_set.pack(3, "memory", 0, [layer] * 5, [(1, bytes(5))]))
    return [Row("five exchanges", data, REFUSED_FORM)]


def by_self_test():
    """A value of each layer that is one off, in each self-test; another seed; none at all."""
    rows = [Row("no self-test", sign(filters_of(3).pack("memory")), REFUSED_FORM)]
    for test, (start, value) in ((test, each) for test in range(2) for each in enumerate((2, 5, 7))):
        at = SELF_TESTS + test * SELF_TEST_SIZE + value
        data = sign(with_bytes(RIGHT, at, bytes((RIGHT[at] ^ 1,))))
        rows.append(Row(f"self-test {test}: layer {start} one off", data, REFUSED_SELF_TEST))
    tests = [(seed + 1, activations) for seed, activations in self_tests(filters_of(3))]
    data = sign(filters_of(3).pack("memory", tests))
    return [*rows, Row("self-tests of other inputs", data, REFUSED_SELF_TEST)]


def ends(data):
    return f"{data[:2].hex()}..{data[-2:].hex()}"


def number(value):
    return value.to_bytes(32, "little")


def flipped(data, bit):
    """The bytes with one bit changed."""
    return with_bytes(data, bit // 8, bytes((data[bit // 8] ^ 1 << bit % 8,)))


def with_bytes(data, at, piece):
    """The bytes with some of them replaced."""
    return data[:at] + piece + data[at + len(piece) :]


def encodings(point):
    """All byte strings that a careless decoder takes for the point: with y + p, and with a sign where x is 0."""
    ys = [y for y in (point[1], point[1] + P) if y < 2**255]
    signs = [0, 1] if point[0] == 0 else [point[0] & 1]
    return [number(y | sign << 255) for y in ys for sign in signs]


def holding(key, first, nonce, scalar, rest):
    """A set whose signature holds: [S]B = R + [h]A; A is [scalar]B plus a point of small order, R [nonce]B + rest.

    The reference reading is changed until it does, for the self-tests do not depend on it.
    """
    point = next((weak for weak in SMALL_ORDER if key in encodings(weak)), SMALL_ORDER[1])
    for tries in range(1_000):
        body = with_bytes(BODY, 8, struct.pack("<h", tries))
        message = sha256(body).digest()
        if add(rest, times(digest(first, key, message) % L % 8, point)) == IDENTITY:
            return body + reference.signature_of(first, nonce, scalar, key, message)
    raise AssertionError("no set within 1000")
