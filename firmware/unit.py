"""The kernel: one node's unit of one layer, in integers (number formats: protocol/fixed.py).

Rules of this file: nothing is allocated, every loop counts machine words, every length is checked by the caller
(`Layer` sizes the buffers it hands in). Boards without viper get this same file with the decorator line left out.
Names are spelt out literally, for viper knows its decorator and its pointer types only by name.
"""

from protocol.compat import micropython, ptr8, ptr16, ptr32


@micropython.viper
def convolve(out, x, weights, bias, shape):
    """Compute every channel of one unit: clamp((sum of products + bias + half) >> shift, 0, 255).

    |sum of products| < 2^26 and |bias| < 2^29 (protocol/filter_set.py), so each sum fits int32 and a small integer.

    Args:
        out: uint8 [channels out], written.
        x: uint16 [taps], the stored inputs, channel by channel, taps NW..SE within a channel.
        weights: uint8 [channels out * taps], weight + 2^7.
        bias: uint32 [channels out], bias + 2^29.
        shape: uint16 (taps, channels out, shift, zero of the stored input).
    """
    to = ptr8(out)
    inputs = ptr16(x)
    w = ptr8(weights)
    b = ptr32(bias)
    s = ptr16(shape)
    taps = int(s[0])
    channels = int(s[1])
    shift = int(s[2])
    zero = int(s[3])
    half = 1 << (shift - 1)
    at = 0
    channel = 0
    while channel < channels:
        total = int(b[channel]) - 536870912 + half
        tap = 0
        while tap < taps:
            total += (int(inputs[tap]) - zero) * (int(w[at]) - 128)
            tap += 1
            at += 1
        total >>= shift
        if total < 0:
            total = 0
        if total > 255:
            total = 255
        to[channel] = total
        channel += 1
