"""The kernel: one node's unit of one layer, in integers (number formats: protocol/fixed.py).

Rules of this file: nothing is allocated, every loop counts machine words, every length is checked by the caller
(`Layer` sizes the buffers it hands in). Boards without viper get this same file with the decorator line left out.
Names are spelt out literally, for viper knows its decorator and its pointer types only by name.
"""

from protocol.compat import micropython, ptr8, ptr16, ptr32


@micropython.viper
def convolve(out, x, weights, bias, shape):
    """Compute every channel of one unit: clamp((sum of products + bias + half) >> shift, 0, 255).

    Shift 0 stands for the sign: one channel, 1 where any filter's sum + bias >= 0, else 0.

    |sum of products| < 2^26 and |bias| < 2^29 (protocol/filter_set.py), so each sum fits int32 and a small integer.

    Args:
        out: uint8 [channels out], written.
        x: uint16 [taps], the stored inputs, channel by channel, taps NW..SE within a channel.
        weights: uint8 [filters * taps], weight + 2^7.
        bias: uint32 [filters], bias + 2^29.
        shape: uint16 (taps, filters, shift, zero of the stored input).
    """
    to = ptr8(out)
    inputs = ptr16(x)
    w = ptr8(weights)
    b = ptr32(bias)
    s = ptr16(shape)
    taps = int(s[0])
    filters = int(s[1])
    shift = int(s[2])
    zero = int(s[3])
    half = (1 << shift) >> 1
    to[0] = 0
    at = 0
    index = 0
    while index < filters:
        total = int(b[index]) - 536870912 + half
        tap = 0
        while tap < taps:
            total += (int(inputs[tap]) - zero) * (int(w[at]) - 128)
            tap += 1
            at += 1
        total >>= shift
        if shift == 0:
            if total >= 0:
                to[0] = 1
        else:
            if total < 0:
                total = 0
            if total > 255:
                total = 255
            to[index] = total
        index += 1
