"""A recipe for kernel inputs that every runtime cooks alike: all edge values and a thousand random units.

`python -m tools.rig.kernel_recipe`, or the same file on a node, prints one digest of everything that firmware/unit.py
computes from it. Written in the subset of CPython and MicroPython; no number exceeds 31 bits, and one unit at a time
is in memory.
"""

import binascii
import hashlib
from array import array
from collections import namedtuple

RANDOM_UNITS = 1000
SIGN_UNITS = 200
SEED = 1
CHANNELS_MAX = 16
TAPS = 9
SHIFT_MAX = 24
BIAS_MAX = (1 << 29) - 1
INPUT_LIMITS = ((0, 255), (-32768, 32767))  # of later layers, of the first layer

Unit = namedtuple("Unit", ("first", "inputs", "weights", "bias", "shift"))
"""One unit in signed numbers.

first: whether it is of the first layer, whose inputs are int16 and not uint8; inputs: list [taps]; weights: int8 array
[filters * taps]; bias: int32 array [filters]; shift: 1..24, or 0 for the sign.
"""


class Draws:
    """Whole numbers drawn by two small linear congruential generators (Wichmann and Hill, AS 183, 1982)."""

    def __init__(self, seed: int):
        """`seed`: 1..30000."""
        self._x = self._y = seed

    def between(self, low: int, high: int) -> int:
        """A number in low..high, the span at most 2^29.7."""
        self._x = 171 * self._x % 30269
        self._y = 172 * self._y % 30307
        return low + (self._x * 30307 + self._y) % (high - low + 1)


def units():
    """Yield every Unit of the recipe: signs, largest sums, places where the result steps, random ones."""
    draws = Draws(SEED + 1)
    for _ in range(SIGN_UNITS):
        yield _sign(draws)
    for shift in range(1, SHIFT_MAX + 1):
        yield _steps(shift)
        for first in (0, 1):
            for value in INPUT_LIMITS[first]:
                yield _largest(first, value, shift)
    draws = Draws(SEED)
    for _ in range(RANDOM_UNITS):
        yield _random(draws)


def _largest(first: int, value: int, shift: int) -> Unit:
    """As many inputs as there can be, all the same, under all extreme weights and biases."""
    taps = TAPS if first else TAPS * CHANNELS_MAX
    biases = (-BIAS_MAX, 0, BIAS_MAX)
    weights = array("b", [weight for weight in (-128, 127) for _ in range(3 * taps)])
    return Unit(first, [value] * taps, weights, array("i", biases + biases), shift)


def _steps(shift: int) -> Unit:
    """Sums on both sides of the steps to 0, 1, 2, 254, 255 and beyond: an upper one is a tie, which rounds up."""
    half = 1 << (shift - 1)
    steps = [(at << shift) - half for at in (0, 1, 2, 254, 255, 256) if at << shift <= BIAS_MAX]
    bias = array("i", [step + below + 1 for step in steps for below in (-1, 0)])
    # The one product is -1, so that a sum starts negative too.
    return Unit(0, [1], array("b", [-1 for _ in bias]), bias, shift)


def _sign(draws: Draws) -> Unit:
    """Filters whose largest sum is -1, 0 or 1; the others' lie below, or just as high."""
    filters = draws.between(1, CHANNELS_MAX)
    low, high = INPUT_LIMITS[1]
    inputs = [draws.between(low, high) for _ in range(TAPS)]
    if draws.between(0, 3) == 0:
        inputs = [INPUT_LIMITS[1][draws.between(0, 1)]] * TAPS
    weights = array("b", [draws.between(-128, 127) for _ in range(filters * TAPS)])
    largest, winner = draws.between(-1, 1), draws.between(0, filters - 1)
    bias = array("i", [0 for _ in range(filters)])
    for index in range(filters):
        products = sum([inputs[tap] * weights[index * TAPS + tap] for tap in range(TAPS)])
        bias[index] = largest - products - (0 if index == winner else draws.between(0, 1) * draws.between(0, 1 << 20))
    return Unit(1, inputs, weights, bias, 0)


def _random(draws: Draws) -> Unit:
    """Sizes, magnitudes and signs at random; the bias is of the order that leaves some results unclamped."""
    first = draws.between(0, 1)
    taps = TAPS if first else (1, TAPS)[draws.between(0, 1)] * draws.between(1, CHANNELS_MAX)
    channels = draws.between(1, CHANNELS_MAX)
    shift = draws.between(1, SHIFT_MAX)
    weight_max = (1 << draws.between(0, 7)) - 1
    bias_max = min(1 << (shift + 8), BIAS_MAX >> 1)
    low, high = INPUT_LIMITS[first]
    scale = draws.between(0, 6)
    inputs = [draws.between(low, high) >> scale for _ in range(taps)]
    weights = array("b", (draws.between(-weight_max - 1, weight_max) for _ in range(channels * taps)))
    bias = array("i", (draws.between(-bias_max, bias_max) for _ in range(channels)))
    return Unit(first, inputs, weights, bias, shift)


def stored(unit: Unit) -> tuple:
    """The unit as the kernel wants it: out, x, weights, bias, shape (firmware/unit.py)."""
    zero = 32768 if unit.first else 0
    filters = len(unit.bias)
    x = array("H", [value + zero for value in unit.inputs])
    weights = bytes([weight + 128 for weight in unit.weights])
    bias = array("I", [value + (1 << 29) for value in unit.bias])
    out = bytearray(filters if unit.shift else 1)
    return out, x, weights, bias, array("H", (len(x), filters, unit.shift, zero))


def digest(compute) -> str:
    """SHA-256 of all activations, in hexadecimal; `compute` takes a Unit and gives its activations in bytes."""
    total = hashlib.sha256()
    for unit in units():
        total.update(compute(unit))
    return str(binascii.hexlify(total.digest()), "ascii")


def kernel_digest(convolve) -> str:
    """The digest of a kernel with the arguments of firmware/unit.py."""

    def compute(unit):
        buffers = stored(unit)
        convolve(*buffers)
        return buffers[0]

    return digest(compute)


def main() -> None:
    """Print the digest of the kernel that this runtime imports."""
    from firmware.unit import convolve

    print(kernel_digest(convolve))


if __name__ == "__main__":
    main()
