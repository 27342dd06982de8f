"""Signatures: what RFC 8032 calls valid is valid, what anybody could forge or alter is not, on both runtimes alike."""

import json
import random
from hashlib import sha256
from pathlib import Path

import ed25519_reference as reference
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from ed25519_reference import BASE, IDENTITY, L, P, add, digest, encoded, times
from on_micropython import run

from protocol.ed25519 import verify

RFC = json.loads((Path(__file__).parent / "rfc8032_vectors.json").read_text(encoding="utf-8"))
SECRET_KEY = sha256(b"a gateway's key").digest()
SCALAR = reference.secret_scalar(SECRET_KEY)[0]
KEY = reference.public_key(SECRET_KEY)
MESSAGE = sha256(b"a filter set").digest()
SIGNATURE = reference.sign(SECRET_KEY, MESSAGE)
SMALL_ORDER = reference.small_order()
TOP_BIT = 1 << 255
# A step on a board may take 50 times as long as here, and nodes have cycles to run in between.
STEPS_MIN = 500
# 80 rounds of SHA-512, R, A: no multiplication yet.
STEPS_OF_POINTS = 82
ON_MICROPYTHON = """
from protocol.ed25519 import verify
for key, signature, message in {cases}:
    *steps, valid = verify(key, signature, message)
    print(int(valid), len(steps))
"""


def is_valid(key, signature, message):
    """The verdict, behind nothing but None."""
    *steps, verdict = verify(key, signature, message)
    assert set(steps) <= {None}
    assert isinstance(verdict, bool)
    return verdict


def rfc_cases():
    """(key, signature, message) of RFC 8032, section 7.1."""
    return [tuple(bytes.fromhex(row[name]) for name in ("public_key", "signature", "message")) for row in RFC]


def number(value):
    return value.to_bytes(32, "little")


def flipped(data, bit):
    """The bytes with one bit changed."""
    return (int.from_bytes(data, "little") ^ 1 << bit).to_bytes(len(data), "little")


def holding(key, first, nonce, scalar, torsion, rest):
    """A signature for which [S]B = R + [h]A holds, so that a careless verifier believes it: (key, signature, message).

    Args:
        key, first: the 32 bytes of A = [scalar]B + torsion and of R = [nonce]B + rest, canonical or not.
        torsion, rest: points of small order.
    """
    for tries in range(1000):
        message = sha256(b"%d" % tries).digest()
        if add(rest, times(digest(first, key, message) % L, torsion)) == IDENTITY:
            return key, reference.signature_of(first, nonce, scalar, key, message), message
    raise AssertionError("no message within 1000")


def encodings(point):
    """All byte strings that a careless decoder takes for the point: with y + p, and with a sign where x is 0."""
    ys = [y for y in (point[1], point[1] + P) if y < TOP_BIT]
    signs = [0, 1] if point[0] == 0 else [point[0] & 1]
    return [number(y | sign << 255) for y in ys for sign in signs]


def forged_with_weak_keys():
    """Signatures that hold though nobody has a secret: A of small order, in every encoding."""
    first = encoded(times(7, BASE))
    return [holding(key, first, 7, 0, weak, IDENTITY) for weak in SMALL_ORDER for key in encodings(weak)]


def forged_with_weak_firsts():
    """Signatures that hold, with R of small order in every encoding: A is an honest key plus a point of order 8."""
    torsion = SMALL_ORDER[1]
    key = encoded(add(times(SCALAR, BASE), torsion))
    return [holding(key, first, 0, SCALAR, torsion, weak) for weak in SMALL_ORDER for first in encodings(weak)]


def beyond_the_order():
    """The honest signature with S + L, and all further multiples that fit 32 bytes."""
    s = int.from_bytes(SIGNATURE[32:], "little")
    return [(KEY, SIGNATURE[:32] + number(each), MESSAGE) for each in range(s + L, 1 << 256, L)]


def not_canonical():
    """The honest signature with a y of p or more as A and as R."""
    ys = [number(y | sign << 255) for y in range(P, TOP_BIT) for sign in (0, 1)]
    return [(y, SIGNATURE, MESSAGE) for y in ys] + [(KEY, y + SIGNATURE[32:], MESSAGE) for y in ys]


def off_the_curve():
    """The honest signature with a y that no point has as A and as R."""
    ys = [number(y) for y in range(40) if not reference.roots(y)]
    return [(y, SIGNATURE, MESSAGE) for y in ys] + [(KEY, y + SIGNATURE[32:], MESSAGE) for y in ys]


def altered(seed):
    """The honest case with one bit changed: the ends of each part, and some bits between."""
    bits = [0, 7, 8, 254, 255, *random.Random(seed).sample(range(9, 254), 12)]
    cases = [(flipped(KEY, bit), SIGNATURE, MESSAGE) for bit in bits]
    cases += [(KEY, flipped(SIGNATURE, bit + half), MESSAGE) for bit in bits for half in (0, 256)]
    return cases + [(KEY, SIGNATURE, flipped(MESSAGE, bit)) for bit in bits]


def of_wrong_length():
    """The honest case cut, lengthened or empty."""
    keys, signatures = (b"", KEY[:31], KEY + b"\0"), (b"", SIGNATURE[:32], SIGNATURE[:63], SIGNATURE + b"\0")
    cases = [(key, SIGNATURE, MESSAGE) for key in keys] + [(KEY, signature, MESSAGE) for signature in signatures]
    cases += [(KEY, SIGNATURE, message) for message in (b"", MESSAGE[:31], MESSAGE + b"\0")]
    # One byte more to the key and one less to the message leave what is hashed as it was signed.
    return [*cases, (KEY + b"\0", reference.sign(SECRET_KEY, b"\0" + MESSAGE), MESSAGE)]


def with_another_key():
    """The honest signature under somebody else's key, and under its own mirrored."""
    other = reference.public_key(sha256(b"another key").digest())
    return [(other, SIGNATURE, MESSAGE), (encoded((P - 1, 1)), SIGNATURE, MESSAGE)]


def signed(lengths):
    """Honest signatures of messages of these lengths."""
    messages = [bytes(place % 251 for place in range(length)) for length in lengths]
    return [(KEY, reference.sign(SECRET_KEY, message), message) for message in messages]


def with_torsion(holds):
    """A signature under an honest key plus a point of order 8; [S]B = R + [h]A holds, or fails by such a point."""
    torsion = SMALL_ORDER[1]
    rest = IDENTITY if holds else torsion
    key, first = encoded(add(times(SCALAR, BASE), torsion)), encoded(times(7, BASE))
    return [holding(key, first, 7, SCALAR, torsion, rest)]


# Behind 32 bytes of R and 32 of A these end just before and behind the limits of SHA-512's blocks and padding.
LENGTHS = (0, 1, 2, 31, 32, 47, 48, 63, 64, 65, 175, 176, 192)
HOSTILE = {
    "S + L": beyond_the_order,
    "a y of p or more": not_canonical,
    "a point off the curve": off_the_curve,
    "a key of small order": forged_with_weak_keys,
    "an R of small order": forged_with_weak_firsts,
    "a wrong length": of_wrong_length,
    "another key": with_another_key,
    "an equation that holds only when multiplied by 8": lambda: with_torsion(holds=False),
}


@pytest.mark.parametrize("case", rfc_cases(), ids=[row["says"] for row in RFC])
def test_the_vectors_of_rfc_8032_are_valid(case):
    assert is_valid(*case)


def test_the_reference_signs_the_vectors_of_rfc_8032():
    for row in RFC:
        secret_key, message = bytes.fromhex(row["secret_key"]), bytes.fromhex(row["message"])
        assert row["public_key"] == reference.public_key(secret_key).hex()
        assert row["signature"] == reference.sign(secret_key, message).hex()


@pytest.mark.parametrize("case", signed(LENGTHS), ids=LENGTHS)
def test_messages_of_any_length_can_be_signed(case):
    assert is_valid(*case)


@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE)
def test_a_signature_is_refused_that_has(make):
    for case in make():
        assert not is_valid(*case), case


def test_a_signature_is_refused_that_has_one_bit_changed(seed):
    for case in altered(seed):
        assert not is_valid(*case), case


@pytest.mark.parametrize(
    "name", ["a y of p or more", "a point off the curve", "a key of small order", "an R of small order"]
)
def test_no_multiplication_is_spent_on(name):
    for case in HOSTILE[name]():
        assert len(list(verify(*case))) <= STEPS_OF_POINTS, case


def test_what_is_forged_would_convince_a_careless_verifier():
    for key, signature, message in forged_with_weak_keys() + forged_with_weak_firsts():
        s = int.from_bytes(signature[32:], "little")
        h = digest(signature[:32], key, message) % L
        assert times(s, BASE) == add(point(signature[:32]), times(h, point(key)))


def point(data):
    """A point decoded carelessly: y modulo p, a sign where x is 0."""
    code = int.from_bytes(data, "little")
    y = code % TOP_BIT % P
    xs = reference.roots(y)
    return next((x for x in xs if x & 1 == code >> 255), xs[0]), y


def test_a_key_with_a_part_of_small_order_is_judged_without_cofactor():
    assert all(is_valid(*case) for case in with_torsion(holds=True))


def test_bytearrays_and_memoryviews_will_do():
    assert is_valid(bytearray(KEY), bytearray(SIGNATURE), bytearray(MESSAGE))
    assert is_valid(memoryview(KEY), memoryview(SIGNATURE), memoryview(MESSAGE))


def test_a_verification_comes_in_many_steps_and_ends_with_its_verdict():
    steps = verify(KEY, SIGNATURE, MESSAGE)
    for _ in range(STEPS_MIN):
        assert next(steps) is None
    assert [True] == [step for step in steps if step is not None]
    with pytest.raises(StopIteration):
        next(steps)


def test_the_library_of_the_gateway_agrees(seed):
    dice = random.Random(seed)
    for length in range(60):
        key = Ed25519PrivateKey.from_private_bytes(dice.randbytes(32))
        message = dice.randbytes(length)
        assert is_valid(key.public_key().public_bytes_raw(), key.sign(message), message)
    # It takes points of small order where the equation holds; the rest has to be judged alike.
    cases = rfc_cases() + signed(LENGTHS) + altered(seed) + beyond_the_order() + not_canonical() + off_the_curve()
    for case in cases + with_torsion(holds=True) + with_torsion(holds=False):
        assert is_valid(*case) == library_says(*case), case


def library_says(key, signature, message):
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def test_micropython_judges_every_case_as_cpython_does(seed):
    cases = rfc_cases() + signed(LENGTHS) + altered(seed) + with_torsion(holds=True)
    cases += [case for make in HOSTILE.values() for case in make()]
    for start in range(0, len(cases), 50):
        some = cases[start : start + 50]
        printed = [line.split() for line in run(ON_MICROPYTHON.format(cases=some)).splitlines()]
        assert [[str(int(is_valid(*case))), str(len(list(verify(*case))) - 1)] for case in some] == printed
