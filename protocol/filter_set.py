"""A filter set: all that a node needs to compute its units. Little-endian.

     0  u8[2] 'T' 'F'
     2  u8    format 1
     3  u8    number of node layers, 1..8
     4  u32   version; a site's versions only rise
     8  i16   reference_ccel: what the first layer subtracts from a reading
    10  u8    pool: side of a block, 2
    11  u8    number of self-tests, 0..4; a set without any is only taken as the first one of a node
    12  u8    length of the site's name, then the name in ASCII
     -        the layers, one after the other
                u8     kind: 1 conv3x3, 2 conv1x1, 3 conv3x3 with sign
                u8     channels in, 1..16
                u8     filters, 1..16; each gives a channel out
                u8     shift, 1..24; 0 in kind 3
                i32[]  bias, one per filter
                i8[]   weights [filter][in][9 or 1], taps NW N NE W C E SW S SE
     -        the self-tests, one after the other
                u16    seed of the inputs (`next_input`)
                u8[]   per layer the activations that these inputs give, one per channel out
     -  u8[64] Ed25519 signature of the set's digest, SHA-256 of everything before it; all zero in an unsigned set

Kind 3 gives one channel for all its filters, their sign (protocol/fixed.py): the state of the 2x2 window whose corner
the node is. It stands alone in its set; its weights are 0 outside the taps C E S SE and add up to 0 in each filter, so
that only differences within the window count. Its members all hear each other (docs/protocol.md).

A node's filters are in one of four phases: CONFIRMED; STAGED, another set is held beside the active one; TRIAL, the
active set was never confirmed yet; RETURNED, a set failed its trial and the one before it is active.
"""

import io
import struct
from array import array
from collections import namedtuple

from protocol.compat import const, rare
from protocol.fixed import BIAS_ZERO, INPUT_ZERO, SHIFT_MAX, SHIFT_MIN, WEIGHT_ZERO
from protocol.frame import CHANNELS_MAX, EXCHANGES_MAX
from protocol.grid import BLOCK_SIDE, TAPS

CONV3X3 = const(1)
CONV1X1 = const(2)
CONV3X3_SIGN = const(3)
KIND_NAMES = {CONV3X3: "conv3x3", CONV1X1: "conv1x1", CONV3X3_SIGN: "conv3x3"}
# The taps of a 2x2 window, its corner first: C E S SE.
WINDOW_TAPS = (4, 5, 7, 8)
FORMAT = const(1)
LAYERS_MAX = const(8)
SIGNATURE_SIZE = const(64)
# So much of a set has to be there to tell its version.
OPENING_SIZE = const(8)
TESTS_MAX = const(4)
# Four conv3x3 and four conv1x1 layers of 16 channels, and four self-tests, are shorter.
SIZE_MAX = const(11_000)

CONFIRMED = const(0)
TRIAL = const(1)
STAGED = const(2)
RETURNED = const(3)
PHASES = ("confirmed", "trial", "staged", "returned")

_HEAD = "<2sBBIhBBB"
_HEAD_SIZE = const(13)
_LAYER_SIZE = const(4)


Layer = namedtuple("Layer", ("kind", "weights", "bias", "shape"))
"""One node layer, ready for the kernel.

kind: CONV3X3, CONV1X1 or CONV3X3_SIGN; weights: uint8 [filters * taps], weight + 2^7; bias: uint32 array [filters],
bias + 2^29; shape: uint16 array (taps per filter, filters, shift, zero of the stored input), taps: channels in, times 9
in a conv3x3.
"""

FilterSet = namedtuple("FilterSet", ("version", "site", "reference_ccel", "layers", "tests", "signature"))
"""A filter set taken apart: version u32, name of the site, int16, list of Layer, self-tests as they came, 64 bytes."""


def unpack(data) -> FilterSet:
    """Take a whole filter set apart, as `read` does."""
    return read(io.BytesIO(data))


def read(file) -> FilterSet:
    """Take a filter set apart and check it, piece by piece: it never lies in memory as a whole.

    Args:
        file: a binary stream that ends with the set.

    Raises:
        ValueError: it is malformed, or a sum could overflow.
    """
    magic, form, count, version, reference_ccel, pool, tests, size = struct.unpack(_HEAD, _take(file, _HEAD_SIZE))
    if magic != b"TF" or form != FORMAT:
        raise ValueError("no filter set of format 1")
    if not 0 < count <= LAYERS_MAX or pool != BLOCK_SIDE or tests > TESTS_MAX:
        raise ValueError("filter set with layers, pool or self-tests that this format does not know")
    site = str(_take(file, size), "ascii")
    layers = []
    channels = 1
    for index in range(count):
        layers.append(_read_layer(file, index == 0, channels))
        channels = channels_of(layers[-1])
    if sum([layer.kind == CONV3X3 for layer in layers]) > EXCHANGES_MAX:
        raise ValueError("filter set with more than 4 exchanges")
    if layers[0].kind == CONV3X3_SIGN:
        _check_sign(layers)
    found = _take(file, tests * (2 + sum([channels_of(layer) for layer in layers])))
    signature = _take(file, SIGNATURE_SIZE)
    if file.read(1):
        raise ValueError("filter set of a wrong length")
    return FilterSet(version, site, reference_ccel, layers, found, signature)


def _take(file, size: int) -> bytes:
    data = file.read(size)
    if len(data) != size:
        raise ValueError("filter set cut short")
    return data


def channels_of(layer: Layer) -> int:
    """How many channels a layer gives."""
    return 1 if layer.kind == CONV3X3_SIGN else layer.shape[1]


@rare
def _check_sign(layers) -> None:
    """What kind 3 asks of a set beyond its ranges."""
    if len(layers) > 1:
        raise ValueError("layer kind: a conv3x3 with sign is not the only layer")
    weights = layers[0].weights
    for start in range(0, len(weights), TAPS):
        total = 0
        for tap in range(TAPS):
            weight = weights[start + tap] - WEIGHT_ZERO
            if weight and tap not in WINDOW_TAPS:
                raise ValueError("layer weights: with a sign not 0 outside the taps C E S SE")
            total += weight
        if total:
            raise ValueError("layer weights: with a sign they do not add up to 0 in each filter")


def _read_layer(file, first: bool, channels: int) -> Layer:
    kind, channels_in, filters, shift = _take(file, _LAYER_SIZE)
    if kind != CONV3X3 and kind != (CONV3X3_SIGN if first else CONV1X1):
        raise ValueError("layer kind: neither conv3x3 nor, as the first, one with sign, nor, behind it, conv1x1")
    if channels_in != channels or not 0 < filters <= CHANNELS_MAX:
        raise ValueError("layer channels: not in 1..16, or other than the layer before gives")
    if shift if kind == CONV3X3_SIGN else not SHIFT_MIN <= shift <= SHIFT_MAX:
        raise ValueError("layer shift: not in 1..24, or, with a sign, not 0")
    taps = channels_in * (1 if kind == CONV1X1 else TAPS)
    shape = array("H", (taps, filters, shift, INPUT_ZERO if first else 0))
    bias = array("I", [_read_bias(file) for _ in range(filters)])
    weights = bytearray(filters * taps)
    if file.readinto(weights) != len(weights):
        raise ValueError("filter set cut short")
    for place in range(len(weights)):
        weights[place] ^= WEIGHT_ZERO  # flips the sign bit: int8 w becomes w + 2^7
    return Layer(kind, weights, bias, shape)


def _read_bias(file) -> int:
    """A stored bias, uint32.

    Products add up to at most 9 * 2^15 * 2^7 < 2^26 in the first layer and 144 * 255 * 2^7 < 2^23 in the others; with
    |bias| < 2^29 and half of 2^24 for rounding every sum stays below 2^30: inside int32, and inside the 31-bit small
    integers of a board. So only a bias can make a set overflow.
    """
    bias = struct.unpack("<i", _take(file, 4))[0]
    if not -BIAS_ZERO < bias < BIAS_ZERO:
        raise ValueError("could overflow: a bias of 2^29 or more")
    return bias + BIAS_ZERO


def pack(version: int, site: str, reference_ccel: int, layers, tests=()) -> bytes:
    """A filter set in bytes, with its signature still all zero.

    Args:
        version: u32.
        site: name of the site.
        reference_ccel: int16.
        layers: (kind, channels_in, filters, shift, bias, weights) each; bias a list of int32, weights a flat list of
            int8 in the order of the format.
        tests: (seed, activations of all layers in one bytes) each.
    """
    name = site.encode()
    counts = BLOCK_SIDE, len(tests), len(name)
    data = struct.pack(_HEAD, b"TF", FORMAT, len(layers), version, reference_ccel, *counts) + name
    for kind, channels_in, filters, shift, bias, weights in layers:
        data += bytes((kind, channels_in, filters, shift))
        data += struct.pack("<%di" % len(bias), *bias)
        data += struct.pack("<%db" % len(weights), *weights)
    for seed, activations in tests:
        data += struct.pack("<H", seed) + activations
    return data + bytes(SIGNATURE_SIZE)


def next_input(state: int) -> int:
    """The self-tests' inputs, one after the other, 0..65535; the first layer takes all of it, the others its high byte.

    A linear congruential sequence of the full period 2^16; no product reaches 2^28, for small integers on every board.
    """
    return (state * 2053 + 13849) & 0xFFFF
