"""Heat sources: how many watts go where in which slot.

Everything here is a power that does not depend on the room's temperature; what exchanges air with the outside is a
sink driven by outdoor minus a nominal indoor temperature. So the balance stays linear in the sources, and one gain in
front of all of them sets how restless the room is (sim/field/lounge.py).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sim.field.parameters import Lounge, Stream
from sim.field.plan import Cells, Plan
from sim.field.weather import Weather, busy

# People stay about two hours, a compressor runs for about one.
SEAT_H = 2.0
MACHINE_H = 1.0


class Sources(NamedTuple):
    """Columns of sources; several may stand in one cell.

    Attributes:
        cells: flat indices, int [slots, sources].
        power_w: what each gives off, negative for a sink, float64 [slots, sources].
    """

    cells: NDArray[np.intp]
    power_w: NDArray[np.float64]


def fixtures(lounge: Lounge, plan: Plan, weather: Weather) -> Sources:
    """All that stands in the room for good: vents, seats, doors, machines, windows."""
    crowd = busy(weather)
    draught_w = lounge.door_w_k * (weather.outdoor_c - lounge.indoor_nominal_c)
    parts = (
        (plan.vents, _vents(lounge, len(plan.vents), weather)),
        (plan.seats, _seats(lounge, len(plan.seats), crowd)),
        (plan.doors, np.outer(draught_w * crowd, np.ones(len(plan.doors)))),
        (plan.machines, _machines(lounge, len(plan.machines), len(crowd))),
        (plan.south_windows, _sun(lounge, plan.south_windows, weather.south_w_m2)),
        (plan.west_windows, _sun(lounge, plan.west_windows, weather.west_w_m2)),
    )
    cells = np.concatenate([cells for cells, _ in parts])
    power_w = np.concatenate([power_w for _, power_w in parts], axis=1)
    return Sources(np.broadcast_to(cells, power_w.shape), power_w)


def _vents(lounge: Lounge, count: int, weather: Weather) -> NDArray[np.float64]:
    """Each vent keeps its own hours on working days and has its own strength."""
    rng = lounge.stream(Stream.VENTS)
    on_h, off_h = rng.uniform(6.5, 9.0, count), rng.uniform(17.0, 22.0, count)
    strength = rng.uniform(0.6, 1.4, count)
    hour = weather.hour[:, np.newaxis]
    runs = (on_h <= hour) & (hour < off_h) & (weather.weekday < 5)[:, np.newaxis]
    demand_w = lounge.vent_w_k * (lounge.vent_neutral_c - weather.outdoor_c)
    return np.outer(np.clip(demand_w, -lounge.vent_w_max, lounge.vent_w_max), strength) * runs


def _seats(lounge: Lounge, count: int, crowd: NDArray[np.float64]) -> NDArray[np.float64]:
    taken = _held(lounge, Stream.SEATS, SEAT_H, (len(crowd), count)) < crowd[:, np.newaxis]
    return np.where(taken, lounge.seat_w, 0.0)


def _machines(lounge: Lounge, count: int, slots: int) -> NDArray[np.float64]:
    runs = _held(lounge, Stream.MACHINES, MACHINE_H, (slots, count)) < 0.5
    return np.where(runs, lounge.machine_w, 0.0)


def _sun(lounge: Lounge, windows: Cells, sun_w_m2: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.outer(lounge.window_aperture_m2 * sun_w_m2, np.ones(len(windows)))


def _held(lounge: Lounge, stream: Stream, held_h: float, shape: tuple[int, int]) -> NDArray[np.float64]:
    """Uniform in 0..1, drawn anew for each column every `held_h` hours: [slots, count]."""
    slots, count = shape
    hold = max(1, round(held_h / lounge.slot_h))
    return np.repeat(lounge.stream(stream).random((-(-slots // hold), count)), hold, axis=0)[:slots]
