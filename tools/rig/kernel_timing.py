"""One node's arithmetic in a cycle, timed on whichever runtime imports this (CPython and MicroPython subset).

That is the two convolutions of spec seed, and in mode event the zone of spec zone. The numbers of the convolutions are
those of tools/bench_kernel.c, so that all contestants have to come to the same activations.
"""

import binascii
import time
from array import array

CHANNELS = 5
SHIFTS = (9, 10)
TAPS = (9, 45)
MULTIPLY_ADDS = 270


def buffers(layer: int) -> tuple:
    """What the kernel is given for layer 0 or 1: out, x, weights, bias, shape."""
    taps, shift = TAPS[layer], SHIFTS[layer]
    zero = 0 if layer else 32768
    x = array("H", [at * 29 % 256 if layer else at * 37 % 601 - 300 + zero for at in range(taps)])
    weights = bytes([at * 73 % 256 for at in range(CHANNELS * taps)])
    bias = array("I", [(at * 3001) + (1 << 29) for at in range(CHANNELS)])
    return bytearray(CHANNELS), x, weights, bias, array("H", (taps, CHANNELS, shift, zero))


def measure(convolve, calls: int, batches: int) -> tuple:
    """(ns of one pair of calls in the fastest batch, the activations in hexadecimal)."""
    out1, x1, weights1, bias1, shape1 = buffers(0)
    out2, x2, weights2, bias2, shape2 = buffers(1)
    best_ns = 1 << 60
    for _ in range(batches):
        start_ns = time.time_ns()
        for _ in range(calls):
            convolve(out1, x1, weights1, bias1, shape1)
            convolve(out2, x2, weights2, bias2, shape2)
        best_ns = min(best_ns, time.time_ns() - start_ns)
    return best_ns // calls, str(binascii.hexlify(out1 + out2), "ascii")


def zone_buffers() -> tuple:
    """What the zone is worked out from: results, view, readings there, weights, bias; one window is abnormal."""
    view = array("H", [32768 + at * 37 % 61 + (400 if at == 5 else 0) for at in range(9)])
    differences = ((126, -126, 0, 0), (-126, 126, 0, 0), (126, 0, -126, 0), (-126, 0, 126, 0), (63, 63, -63, -63))
    weights = b"".join([bytes((128,) * 4 + (128 + c, 128 + e, 128, 128 + s, 128 + se)) for c, e, s, se in differences])
    bias = array("I", [(1 << 29) - 126 * 300] * len(differences))
    return array("H", (0, 0, 0)), view, 0b111111111, weights, bias


def measure_zone(limits, calls: int, batches: int) -> tuple:
    """(ns of one call in the fastest batch, the results in hexadecimal)."""
    out, view, there, weights, bias = zone_buffers()
    best_ns = 1 << 60
    for _ in range(batches):
        start_ns = time.time_ns()
        for _ in range(calls):
            limits(out, view, there, weights, bias)
        best_ns = min(best_ns, time.time_ns() - start_ns)
    return best_ns // calls, str(binascii.hexlify(bytes(out)), "ascii")
