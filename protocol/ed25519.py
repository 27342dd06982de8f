"""Whether an Ed25519 signature is valid: RFC 8032, PureEdDSA, with the SHA-512 that it needs (FIPS 180-4).

Only public numbers come in, so nothing here takes care to run in constant time: never sign with it.

It is loaded for one signature and forgotten, first the hash, then the curve, on a node that has some 5 KB of heap left.
So it is written for little memory first: few functions and constants, and names that are used again instead of new
ones, for whatever a name still holds stays in the heap. Integers are as long as they come, `pow` takes a modulus, and
`x % p | 0` is x % p without the spare digits that MicroPython's remainder carries along. The machine is little-endian.

The curve is -x^2 + y^2 = 1 + d x^2 y^2 modulo p = 2^255 - 19 with d = -121665/121666. Points are projective: (x, y, z)
stands for x/z, y/z. All formulas are multiplied by 121666, so that d is never needed. As d is no square, the one for
the sum has no exceptions (Bernstein and Lange, "Faster addition and doubling on elliptic curves").
"""

from array import array

from protocol.compat import rare


def verify(public_key: bytes, signature: bytes, message: bytes):
    """Judge a signature in steps: iterate, each `next` does a bounded piece of work, the longest two powers modulo p.

    Valid is [S]B = R + [h]A, without the cofactor 8: so says OpenSSL, which signs at the gateway, and an honest
    signature is valid either way. Refused are S >= L, a y >= p, points off the curve, and A and R of an order that
    divides 8, in whatever encoding; nothing that comes in raises.

    Args:
        public_key: 32 bytes, A.
        signature: 64 bytes, R and S. A bytearray or memoryview will do as well; nothing may change meanwhile.
        message: any length; up to 47 bytes are hashed in one block.

    Yields:
        None while there is more to do, some 590 times; at last, once, whether the signature is valid.
    """
    scalar = yield from _digest(bytes(signature[:32]) + public_key + message)
    yield (yield from _holds(public_key, signature, scalar))


@rare
def _holds(public_key, signature, scalar):
    """Whether [S]B = R + [h]A, in steps of an addition and a doubling: to be used with `yield from`.

    Args:
        public_key, signature: as for `verify`.
        scalar: h, a digest of 512 bits.
    """
    p = pow(2, 255) - 19
    t = (p + 19 >> 3) + 27742317777372353535851937790883648493  # L, the order of B: p + 19 is 2^255
    s = int.from_bytes(signature, "little")
    scalar %= t
    x, y = _point(s, p)
    z = 1
    if len(public_key) != 32 or len(signature) != 64 or s >> 256 >= t or not x:
        return False
    v = int.from_bytes(public_key, "little")
    for _ in range(2):  # R + [h]A, then - [S]B
        yield
        u = w = r = s = t = 1  # room for what follows
        u, v = _point(v, p)
        if not u:
            return False
        while scalar:  # from its lowest bit: (u, v, w) is doubled
            yield
            if scalar & 1:  # (x, y, z) += (u, v, w)
                z = _times(z, w, p)
                t = _times(121666, z, p)
                z = _times(z, t, p)
                r = _times(x, u, p)
                s = _times(y, v, p)
                x = _times(_times(x, v, p) + _times(y, u, p), t, p)
                y = _times(r + s, t, p)
                t = _times(_times(r, s, p), 121665, p)
                x = _times(x, z + t, p)
                y = _times(y, z - t, p)
                z = _times(z + t, z - t, p)
            t = _times(u + v, u - v, p)
            w = t + 2 * _times(w, w, p)
            s = _times(_times(u, u, p) + _times(v, v, p), t, p)
            u = _times(-2 * _times(u, v, p), w, p)
            v = s
            w = _times(t, w, p)
            scalar >>= 1
        scalar = int.from_bytes(signature, "little") >> 256
        v = (p + 11) // 5 * 9  # -B: y = 4/5, x odd; that is 4 (p + 1) / 5 + 2^255
    return not (y - z) % p  # y = 1: the identity, for no other point has it


def _point(code, p):
    """An encoded point: x and y modulo p (x may be below 0); x is 0 when the point is refused.

    x^2 = u/v with u = y^2 - 1 and v = d y^2 + 1, both times 121666. Where that is a square, r = (u v)^((p - 5)/8) has
    r^2 u v = 1 or -1, so u r is x, or is it when multiplied by a root of -1, up to the sign.

    Args:
        code: y in 255 bits, the lowest bit of x above them; what lies higher is left out.
        p: 2^255 - 19.
    """
    y = code % (p + 19) | 0
    t = _times(y, y, p)
    u = _times(121666, t - 1, p)
    v = t - u
    x = _times(pow(_times(u, v, p), p >> 3, p), u, p)
    t = _times(_times(x, x, p), v, p)
    if (t - u) % p:
        v = pow(2, p >> 2, p)
        x = _times(x, v, p)
        t = -t
    # Twice a point whose order divides 8 has x or y = 0, so the point itself has x or y or x^2 + y^2 = 0.
    if (t - u) % p or y >= p or not _times(y, _times(x, x, p) + _times(y, y, p), p):
        x = 0
    if (x ^ code >> 255) & 1:
        x = -x
    return x, y


def _times(x, y, p):
    return x * y % p | 0


@rare
def _digest(data):
    """SHA-512 of the data as a little-endian integer, in steps of a round: to be used with `yield from`.

    The words of the state stand as h, g, ... a: read backwards they are the digest's bytes. The schedule's 16 words
    stand backwards too, in a ring. A product with 2^64 + 1 is a word twice, so that shifts rotate it. The constants of
    the rounds are computed: first bits behind the point of the cube roots of the first 80 primes, by Newton's method.
    """
    size = len(data)
    padding = (111 - size) % 128 + 17
    data = (int.from_bytes(data, "big") * 2 + 1 << 8 * padding - 1 | 8 * size).to_bytes(size + padding, "little")
    mask = pow(2, 64) - 1
    state = array(
        "Q",
        b"\x79\x21\x7e\x13\x19\xcd\xe0\x5b\x6b\xbd\x41\xfb\xab\xd9\x83\x1f"
        b"\x1f\x6c\x3e\x2b\x8c\x68\x05\x9b\xd1\x82\xe6\xad\x7f\x52\x0e\x51"
        b"\xf1\x36\x1d\x5f\x3a\xf5\x4f\xa5\x2b\xf8\x94\xfe\x72\xf3\x6e\x3c"
        b"\x3b\xa7\xca\x84\x85\xae\x67\xbb\x08\xc9\xbc\xf3\x67\xe6\x09\x6a",
    )
    while data:
        schedule = array("Q", data[-128:])
        data = data[:-128]
        words = state
        prime = 1
        root = mask
        for i in range(15, -65, -1):
            prime = _next_prime(prime)
            root = _cube_root(prime << 192, root + mask)  # the roots of neighbours differ by less than 1
            words = _round(words, schedule, i, root, mask)
            yield
        for i in range(8):
            state[i] = state[i] + words[i] & mask
    return int.from_bytes(state, "big")


def _round(words, schedule, i, constant, mask):
    """The next words of the state; the oldest word of the schedule, in place `i` of the ring, becomes its next one."""
    a = words[3] * (mask + 2)
    t = (words[1] ^ a & (words[2] ^ words[1])) + (a >> 14 ^ a >> 18 ^ a >> 41)
    t += words[0] + schedule[i & 15] + constant
    a = words[7] * (mask + 2)
    words = words[1:]
    words[3] = words[3] + t & mask
    t += (a & words[5] | words[4] & (a | words[5])) + (a >> 28 ^ a >> 34 ^ a >> 39)
    words += array("Q", (t & mask,))
    a = schedule[i - 1 & 15] * (mask + 2)
    t = schedule[i & 15] + schedule[i - 9 & 15] + (a >> 1 ^ a >> 8 ^ (a & mask) >> 7)
    a = schedule[i - 14 & 15] * (mask + 2)
    schedule[i & 15] = t + (a >> 19 ^ a >> 61 ^ (a & mask) >> 6) & mask
    return words


def _next_prime(n):
    """The prime after n, up to 409: 10103 tells those primes from all other numbers (Fermat's test)."""
    n += 1
    while pow(10103, n, n) != 10103 % n:
        n += 1
    return n


def _cube_root(n, root):
    """The cube root of n, rounded down, by Newton's method.

    Args:
        n: what to take the root of.
        root: some number not below it.
    """
    while root**3 > n:
        root = (2 * root + n // root**2) // 3
    return root
