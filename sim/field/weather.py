"""Outdoor temperature, sun and hours of the day, one value a slot, taken in the middle of the slot.

The outdoor temperature is a yearly and a daily sine plus an AR(1) process. The sun's path is that of any solar energy
textbook (declination 23.45 degrees; J. A. Duffie, W. A. Beckman, Solar Engineering of Thermal Processes, chapter 1).
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sim.field.parameters import Lounge, Stream

YEAR_DAYS = 365.25
COLDEST_DAY = 25.0
WARMEST_HOUR = 14.5
SOLSTICE_DAY = 355.0
DECLINATION_MAX_RAD = math.radians(23.45)
# Direct beam outside the air, and what one atmosphere takes of it on a clear day.
BEAM_W_M2 = 1_100.0
CLEAR_EXTINCTION = 0.3
CLOUD_MEMORY_H = 12.0

Series = NDArray[np.float64]


class Weather(NamedTuple):
    """float64 [slots] each.

    Attributes:
        hour: of the day, 0..24.
        weekday: 0 Monday .. 6 Sunday.
        outdoor_c: degrees Celsius.
        south_w_m2, west_w_m2: the sun's power on the two walls with windows, 0 or more.
    """

    hour: Series
    weekday: Series
    outdoor_c: Series
    south_w_m2: Series
    west_w_m2: Series


def weather(lounge: Lounge, slots: int) -> Weather:
    """The weather of the first `slots` slots."""
    days = (np.arange(slots) + 0.5) * lounge.slot_s / 86_400
    hour, date = days % 1 * 24, lounge.start_day + days
    yearly = -lounge.outdoor_annual_k * np.cos(2 * np.pi * (date - COLDEST_DAY) / YEAR_DAYS)
    daily = lounge.outdoor_diurnal_k * np.cos(2 * np.pi * (hour - WARMEST_HOUR) / 24)
    spells = lounge.outdoor_sd_k * _ar1(lounge, Stream.WEATHER, lounge.outdoor_memory_h, slots)
    # The logistic function: mostly clear or mostly overcast, seldom between.
    clear = 1 / (1 + np.exp(-2 * _ar1(lounge, Stream.CLOUDS, CLOUD_MEMORY_H, slots)))
    south, west = _sun_on_walls(lounge, hour, date)
    outdoor_c = lounge.outdoor_mean_c + yearly + daily + spells
    return Weather(hour, np.floor(days) % 7, outdoor_c, clear * south, clear * west)


def busy(weather: Weather) -> Series:
    """How busy the room is, 0..1: a working day has a morning, a lunch and an afternoon, a weekend a third of it."""
    humps = sum(
        height * np.exp(-(((weather.hour - centre) / width) ** 2))
        for height, centre, width in ((0.6, 10.0, 1.8), (0.9, 12.7, 1.2), (0.7, 16.0, 2.4))
    )
    return np.clip(humps, 0, 1) * np.where(weather.weekday < 5, 1.0, 0.33)


def _sun_on_walls(lounge: Lounge, hour: Series, date: Series) -> tuple[Series, Series]:
    """Clear-sky power on a south and on a west wall, W/m2; none below the horizon or behind the wall."""
    latitude = math.radians(lounge.latitude_deg)
    declination = -DECLINATION_MAX_RAD * np.cos(2 * np.pi * (date - SOLSTICE_DAY) / YEAR_DAYS)
    angle = np.pi * (hour - 12) / 12
    up = math.sin(latitude) * np.sin(declination) + math.cos(latitude) * np.cos(declination) * np.cos(angle)
    south = math.sin(latitude) * np.cos(declination) * np.cos(angle) - math.cos(latitude) * np.sin(declination)
    west = np.cos(declination) * np.sin(angle)
    beam = np.where(up > 0, BEAM_W_M2 * np.exp(-CLEAR_EXTINCTION / np.maximum(up, 0.01)), 0.0)
    return beam * np.maximum(south, 0), beam * np.maximum(west, 0)


def _ar1(lounge: Lounge, stream: Stream, memory_h: float, slots: int) -> Series:
    """A first-order autoregressive process with mean 0 and standard deviation 1."""
    keep = math.exp(-lounge.slot_h / memory_h)
    fresh = math.sqrt(1 - keep * keep)
    shocks = lounge.stream(stream).standard_normal(slots)
    values = np.empty(slots)
    value = 0.0
    for slot, shock in enumerate(shocks.tolist()):
        value = keep * value + fresh * shock
        values[slot] = value
    return values
