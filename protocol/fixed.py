"""Number formats of the node layers, the same on every runtime.

    reading       int16   0.01 degrees Celsius (ccel)
    conv input    int16   reading - reference_ccel, saturated (first layer); uint8 activations (later layers)
    weight        int8    any scale; cross-correlation
    bias, sum     int32   |bias| < 2^29
    activation    uint8   clamp((sum + bias + 2^(shift - 1)) >> shift, 0, 255): round half up, then ReLU and saturate
    sign          uint8   in its place, one for all filters: 1 where sum + bias >= 0 in any of them, else 0; no shift

Layers hold everything unsigned, because viper's narrow loads are unsigned on every board and its 32-bit loads are
signed on some: inputs of the first layer as x + 2^15, weights as w + 2^7, biases as b + 2^29.
"""

from protocol.compat import const

READING_MIN = const(-32768)
READING_MAX = const(32767)
ACTIVATION_MAX = const(255)
INPUT_ZERO = const(32768)
WEIGHT_ZERO = const(128)
BIAS_ZERO = const(1 << 29)
SHIFT_MIN = const(1)
SHIFT_MAX = const(24)


def saturate_int16(value: int) -> int:
    """The nearest int16."""
    return READING_MIN if value < READING_MIN else READING_MAX if value > READING_MAX else value


def ccel_from_milli(milli_celsius: int) -> int:
    """Round 0.001 degrees Celsius half up to ccel: floor(100 x + 0.5) without a float; 21505 -> 2151."""
    return (milli_celsius + 5) // 10


def centred(reading_ccel: int, reference_ccel: int) -> int:
    """The first layer's stored input, uint16: saturated (reading - reference) + 2^15; (2150, 2000) -> 32918."""
    return saturate_int16(reading_ccel - reference_ccel) + INPUT_ZERO
