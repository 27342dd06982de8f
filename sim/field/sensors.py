"""What a DS18B20 in each cell makes of the true temperature: offset, drift, noise, steps of 1/16 degree."""

import numpy as np
from numpy.typing import NDArray

from sim.field.parameters import Lounge, Stream

MONTH_S = 30.44 * 86_400
# Datasheet DS18B20 rev. 6, "Operation - Measuring Temperature": 12 bits, range -55..125 degrees.
STEPS_PER_K = 16
RANGE_C = (-55, 125)


def errors_k(lounge: Lounge, slots: int) -> NDArray[np.float32]:
    """What the sensors add to the truth, float32 [slots, rows, cols]."""
    shape = (lounge.rows, lounge.cols)
    each = lounge.stream(Stream.SENSORS)
    offset = lounge.sensor_offset_sd_k * each.standard_normal(shape, np.float32)
    drift = lounge.sensor_drift_sd_k_month * each.standard_normal(shape, np.float32)
    months = (np.arange(slots, dtype=np.float32) * (lounge.slot_s / MONTH_S))[:, np.newaxis, np.newaxis]
    errors = lounge.stream(Stream.NOISE).standard_normal((slots, *shape), np.float32)
    errors *= lounge.sensor_noise_sd_k
    errors += offset + drift * months
    return errors


def readings_ccel(measured_c: NDArray[np.float32]) -> NDArray[np.int16]:
    """Degrees with the sensors' errors -> readings, int16 ccel; 21.07 is step 337, 21.0625 degrees, 2106 ccel."""
    steps = np.rint(np.clip(measured_c, *RANGE_C) * STEPS_PER_K).astype(np.int16)
    # floor(100 steps / 16 + 0.5) without a float; 25 * 125 * 16 fits int32, not int16.
    return ((25 * steps.astype(np.int32) + 2) >> 2).astype(np.int16)
