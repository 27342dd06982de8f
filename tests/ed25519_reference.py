"""Ed25519 as RFC 8032 writes it down, in affine coordinates and CPython's integers: slow, short, and able to forge.

The tests sign with it, and make the signatures that a careless verifier takes for right.
"""

import hashlib
from itertools import count

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
IDENTITY = (0, 1)


def add(first, second):
    """The sum of two points (x, y)."""
    (x, y), (u, v) = first, second
    k = D * x * u * y * v
    return (x * v + y * u) * pow(1 + k, -1, P) % P, (y * v + x * u) * pow(1 - k, -1, P) % P


def times(scalar, point):
    """A point, added to itself: scalar >= 0."""
    result = IDENTITY
    for bit in f"{scalar:b}":
        result = add(result, result)
        if bit == "1":
            result = add(result, point)
    return result


def roots(y):
    """Every x, 0 <= x < P, for which (x, y) lies on the curve: none, one or two."""
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    candidates = {root for x in (x, x * pow(2, (P - 1) // 4, P) % P) for root in (x, -x % P)}
    return sorted(root for root in candidates if root * root % P == square)


def encoded(point):
    """32 bytes of a point: y, and the lowest bit of x on top."""
    return (point[1] | (point[0] & 1) << 255).to_bytes(32, "little")


BASE_Y = 4 * pow(5, -1, P) % P
BASE = (min(roots(BASE_Y), key=lambda x: x % 2), BASE_Y)


def small_order():
    """The eight points whose order divides 8, the identity first."""
    points = ((x, y) for y in count() for x in roots(y))
    generator = next(point for point in (times(L, each) for each in points) if times(4, point) != IDENTITY)
    return [times(n, generator) for n in range(8)]


def digest(*parts):
    """SHA-512 as an integer."""
    return int.from_bytes(hashlib.sha512(b"".join(parts)).digest(), "little")


def secret_scalar(secret_key):
    """(scalar, prefix) of a secret key, RFC 8032 section 5.1.5."""
    expanded = hashlib.sha512(secret_key).digest()
    return int.from_bytes(expanded[:32], "little") & (1 << 254) - 8 | 1 << 254, expanded[32:]


def public_key(secret_key):
    """32 bytes."""
    return encoded(times(secret_scalar(secret_key)[0], BASE))


def sign(secret_key, message):
    """64 bytes."""
    scalar, prefix = secret_scalar(secret_key)
    r = digest(prefix, message) % L
    return signature_of(encoded(times(r, BASE)), r, scalar, public_key(secret_key), message)


def signature_of(point, r, scalar, key, message):
    """The signature with R = `point`, whatever that is, and S = r + h * scalar."""
    return point + ((r + digest(point, key, message) * scalar) % L).to_bytes(32, "little")
