"""The lounge's parameters, in physical units. Defaults are the seed document's lounge: 1,400 m2 as 17 x 25 (R0-12).

What stands in the room is counted for the lounge's 425 cells and scales with the area of other sites.
"""

import math
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from gateway.site import Cell
from protocol.grid import ROWS_MAX

LOUNGE_CELLS = 425
# Shorter slots would give one event thousands of slots; longer ones are longer than a site's cycle may be.
SLOT_S_MIN, SLOT_S_MAX = 60, 86_400
# A longer step of the heat balance would stay stable, but smooth too slowly to be true.
STEP_S_MAX = 900


class Stream(IntEnum):
    """Each thing that is random draws from its own stream, slot after slot: a longer run begins like a shorter one."""

    PLAN = 0
    WALLS = 1
    WEATHER = 2
    CLOUDS = 3
    VENTS = 4
    SEATS = 5
    MACHINES = 6
    EVENTS = 7
    SENSORS = 8
    NOISE = 9


@dataclass(frozen=True)
class Lounge:
    """A simulated site; row 0 lies in the north, column 0 in the west.

    Attributes:
        rows, cols: the grid, 1..255 each.
        holes: cells (row, col) outside the room; nothing stands there and no heat passes.
        seed: 0 or more; another seed is another room with other weather.
        slot_s: seconds from one reading to the next, 60..86400.
        substeps: steps of the heat balance in a slot, 1 or more; a long slot takes more of its own accord.
        abnormal_share: of slots, 0..1; the gain of the heat sources is tuned to it.
        start_day: day of the year of slot 0 (91 is April 1st); slot 0 begins a Monday at 00:00.

    Raises:
        ValueError: a field is out of its range; one line names it.
    """

    rows: int = 17
    cols: int = 25
    holes: frozenset[Cell] = frozenset()
    seed: int = 1
    slot_s: int = 1_800
    substeps: int = 3
    abnormal_share: float = 0.40
    start_day: float = 91.0

    # Heat balance. A screen between seats lets a quarter of the heat through.
    cell_capacity_j_k: float = 36_000.0
    link_w_k: float = 24.0
    link_spread: float = 0.20
    partitions: int = 14
    partition_cells: int = 3
    partition_share: float = 0.25
    slow_capacity_j_k: float = 180_000.0
    slow_w_k: float = 8.0
    south_wall_w_k: float = 1.6
    west_wall_w_k: float = 1.2

    # Central air: holds the setpoint everywhere alike and takes most of the room's mean gain away.
    air_w_k: float = 2.0
    setpoint_day_c: float = 22.0
    setpoint_night_c: float = 19.0
    mean_gain_removed: float = 0.9

    # Weather and sun, about Osaka's.
    latitude_deg: float = 34.8
    outdoor_mean_c: float = 16.5
    outdoor_annual_k: float = 11.5
    outdoor_diurnal_k: float = 4.0
    outdoor_sd_k: float = 2.5
    outdoor_memory_h: float = 48.0
    window_aperture_m2: float = 0.35
    window_share: float = 0.6

    # What stands in the room. A vent heats below and cools above the outdoor temperature that needs neither.
    vents: int = 12
    vent_w_k: float = 25.0
    vent_w_max: float = 240.0
    vent_neutral_c: float = 17.0
    seats: int = 40
    seat_w: float = 130.0
    doors: int = 3
    door_w_k: float = 12.0
    machines: int = 6
    machine_w: float = 165.0
    indoor_nominal_c: float = 22.0

    # Events: one starts now and then, oftener in a busy room (0.02 to 0.06 in a slot of half an hour).
    events_per_h_min: float = 0.04
    events_per_h_max: float = 0.12
    event_h_min: float = 0.5
    event_h_max: float = 3.5
    heater_w: float = 550.0
    cooler_w: float = -400.0
    open_window_w_k: float = 20.0

    # A DS18B20 at each node (datasheet DS18B20 rev. 6: 12 bits, 1/16 degree; -55..125).
    sensor_offset_sd_k: float = 0.15
    sensor_noise_sd_k: float = 0.05
    sensor_drift_sd_k_month: float = 0.02

    def __post_init__(self) -> None:
        """Refuse what cannot be simulated."""
        _check_range("rows", self.rows, 1, ROWS_MAX)
        _check_range("cols", self.cols, 1, ROWS_MAX)
        _check_range("seed", self.seed, 0, 2**63 - 1)
        _check_range("slot_s", self.slot_s, SLOT_S_MIN, SLOT_S_MAX)
        _check_range("substeps", self.substeps, 1, 1_000)
        _check_range("abnormal_share", self.abnormal_share, 0, 1)
        for row, col in sorted(self.holes):
            if not (0 <= row < self.rows and 0 <= col < self.cols):
                raise ValueError(f"holes: ({row}, {col}) lies outside {self.rows} x {self.cols}; leave it out")
        if len(self.holes) == self.rows * self.cols:
            raise ValueError(f"holes: {len(self.holes)} leave no cell; leave one at least")

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Where the room is, bool [rows, cols]."""
        mask = np.ones((self.rows, self.cols), np.bool_)
        for cell in self.holes:
            mask[cell] = False
        return mask

    @property
    def steps(self) -> int:
        """Steps of the heat balance in a slot, none longer than STEP_S_MAX."""
        return max(self.substeps, math.ceil(self.slot_s / STEP_S_MAX))

    @property
    def slot_h(self) -> float:
        """Hours from one reading to the next."""
        return self.slot_s / 3_600

    def stream(self, stream: Stream) -> np.random.Generator:
        """A stream of random numbers from its beginning, the same for the same seed."""
        return np.random.default_rng([self.seed, stream])

    def scaled(self, count: int) -> int:
        """As many of a thing as this site's area has; one at least, none where the lounge has none."""
        cells = self.rows * self.cols - len(self.holes)
        return max(1, round(count * cells / LOUNGE_CELLS)) if count else 0


def _check_range(field: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ValueError(f"{field}: {value} is not in {low}..{high}")
