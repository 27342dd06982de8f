"""Events: a heater somebody brought, a cooler, a window left open, a vent that sticks.

At most one starts in a slot, and none lasts longer than a fixed number of slots, so that as many lanes hold all that
go on at once; an event is a source that occupies its lane for its time.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sim.field.parameters import Lounge, Stream
from sim.field.plan import Plan
from sim.field.sources import Sources
from sim.field.weather import Weather, busy

KINDS = 4
HEATER, COOLER, WINDOW, VENT = range(KINDS)


class Starts(NamedTuple):
    """One possible event a slot, [slots] each.

    Attributes:
        slots: how long it lasts; 0 where none starts.
        kind: HEATER, COOLER, WINDOW or VENT.
        cell: flat index.
        strength: 0.7..1.3 of its kind's power.
    """

    slots: NDArray[np.int64]
    kind: NDArray[np.int64]
    cell: NDArray[np.intp]
    strength: NDArray[np.float64]


def events(lounge: Lounge, plan: Plan, weather: Weather) -> Sources:
    """The events of all slots as sources, one column a lane."""
    starts = _starts(lounge, plan, busy(weather))
    power_w = np.stack(  # of each kind in each slot, in the order of the kinds
        [
            np.full_like(weather.outdoor_c, lounge.heater_w),
            np.full_like(weather.outdoor_c, lounge.cooler_w),
            lounge.open_window_w_k * (weather.outdoor_c - lounge.indoor_nominal_c),
            # It sticks fully open: heats when it should rest or cool, and cools when it should heat.
            np.where(weather.outdoor_c < lounge.vent_neutral_c, -2.0, 2.0) * lounge.vent_w_max,
        ]
    )
    lanes = math.ceil(lounge.event_h_max / lounge.slot_h) + 1
    total = len(weather.outdoor_c)
    columns = Sources(np.zeros((total, lanes), np.intp), np.zeros((total, lanes)))
    for start in np.flatnonzero(starts.slots):
        during = slice(start, start + starts.slots[start])
        columns.cells[during, start % lanes] = starts.cell[start]
        columns.power_w[during, start % lanes] = starts.strength[start] * power_w[starts.kind[start], during]
    return columns


def _starts(lounge: Lounge, plan: Plan, crowd: NDArray[np.float64]) -> Starts:
    """What may start in each slot; every slot draws the same amount, so a longer run begins like a shorter one."""
    begins, kind, place, length, strength = lounge.stream(Stream.EVENTS).random((len(crowd), 5)).T
    per_h = lounge.events_per_h_min + (lounge.events_per_h_max - lounge.events_per_h_min) * crowd
    hours = lounge.event_h_min + (lounge.event_h_max - lounge.event_h_min) * length
    slots = np.maximum(1, np.rint(hours / lounge.slot_h)).astype(np.int64)
    kinds = (kind * KINDS).astype(np.int64)
    windows = np.union1d(plan.south_windows, plan.west_windows)
    vents = plan.vents if len(plan.vents) else plan.room
    places = [plan.room, plan.room, windows, vents]
    cells = np.choose(kinds, [cells[(place * len(cells)).astype(np.intp)] for cells in places])
    return Starts(np.where(begins < per_h * lounge.slot_h, slots, 0), kinds, cells, 0.7 + 0.6 * strength)
