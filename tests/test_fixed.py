"""Number formats: where readings saturate, how they round, what the first layer stores."""

from decimal import ROUND_FLOOR, Decimal

import pytest

from protocol import fixed


@pytest.mark.parametrize(
    ("value", "nearest"),
    [(-32769, -32768), (-32768, -32768), (-1, -1), (0, 0), (32767, 32767), (32768, 32767), (10**6, 32767)],
)
def test_a_value_beyond_int16_becomes_the_nearest_int16(value, nearest):
    assert nearest == fixed.saturate_int16(value)


@pytest.mark.parametrize(
    ("milli", "ccel"), [(21504, 2150), (21505, 2151), (21514, 2151), (-5, 0), (-6, -1), (-15, -1), (-16, -2), (0, 0)]
)
def test_thousandths_round_half_up(milli, ccel):
    assert ccel == fixed.ccel_from_milli(milli)


def test_rounding_is_the_floor_of_100_x_and_a_half_at_every_thousandth():
    for milli in range(-1005, 1006):
        exact = 100 * Decimal(milli) / 1000 + Decimal("0.5")
        assert int(exact.to_integral_value(ROUND_FLOOR)) == fixed.ccel_from_milli(milli)


@pytest.mark.parametrize(
    ("reading", "reference", "stored"),
    [(2150, 2000, 32918), (2000, 2000, 32768), (-32768, 1, 0), (32767, -1, 65535), (-32768, 0, 0), (32767, 0, 65535)],
)
def test_the_first_layer_stores_the_saturated_difference_from_2_to_the_15(reading, reference, stored):
    assert stored == fixed.centred(reading, reference)


def test_stored_numbers_are_unsigned_and_fit_their_width():
    assert (fixed.READING_MIN + fixed.INPUT_ZERO, fixed.READING_MAX + fixed.INPUT_ZERO) == (0, 2**16 - 1)
    assert (-128 + fixed.WEIGHT_ZERO, 127 + fixed.WEIGHT_ZERO) == (0, 2**8 - 1)
    assert 1 - fixed.BIAS_ZERO + fixed.BIAS_ZERO > 0
    assert 2 * fixed.BIAS_ZERO <= 2**30  # a small integer on a 32-bit board ends there
