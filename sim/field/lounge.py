"""The lounge: readings of a whole site over time, 40 % of them abnormal.

Plan and weather give the sources, the heat balance turns them into temperatures, the sensors into readings. Since the
balance is linear, a room of any restlessness is T = calm + gain x stirred, where `calm` knows weather, walls and
central air only and `stirred` the sources only: both are simulated once, and the gain is found by bisection on them.
The first TUNING_SLOTS slots are what it is tuned on, however many are asked for, so a longer run begins exactly like a
shorter one.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gateway.rule import abnormal
from sim.field.events import events
from sim.field.heat import HeatBalance, losses
from sim.field.parameters import Lounge
from sim.field.plan import plan
from sim.field.sensors import errors_k, readings_ccel
from sim.field.sources import Sources, fixtures
from sim.field.weather import weather

__all__ = ["Lounge", "simulate"]

# 60 days of half hours: nearly all of the seed document's 2,961 slots, so its share holds there too.
TUNING_SLOTS = 2_880
# Beyond, sensors would read what no room has.
GAIN_MAX = 6.0
GAIN_STEPS = 12
PROGRESS_EVERY = 48

Progress = Callable[[int, int], None]


class Response(NamedTuple):
    """The two parts of the temperature, and the sensors' errors; float32 [slots, rows, cols] each."""

    calm_c: NDArray[np.float32]
    stirred_k: NDArray[np.float32]
    errors_k: NDArray[np.float32]


def simulate(lounge: Lounge, slots: int, progress: Progress | None = None) -> NDArray[np.int16]:
    """Readings of the first `slots` slots: the same for the same lounge, and the beginning of every longer run.

    Args:
        lounge: the site.
        slots: 0 or more.
        progress: called with (slots done, slots to do); the latter is TUNING_SLOTS at least.

    Returns:
        int16 [slots, rows, cols], 0.01 degrees Celsius, 0 in holes. Over the first TUNING_SLOTS slots
        `abnormal_share` of them are abnormal by gateway/rule.py, if a gain up to GAIN_MAX reaches that.

    Raises:
        ValueError: slots is negative.
    """
    if slots < 0:
        raise ValueError(f"slots: {slots} is negative; ask for 0 or more")
    response = _respond(lounge, max(slots, TUNING_SLOTS), progress)
    gain = _tuned_gain(lounge, Response(*(part[:TUNING_SLOTS] for part in response)))
    return _readings(Response(*(part[:slots] for part in response)), gain) * lounge.mask


def _readings(response: Response, gain: float) -> NDArray[np.int16]:
    return readings_ccel(response.calm_c + np.float32(gain) * response.stirred_k + response.errors_k)


def _tuned_gain(lounge: Lounge, response: Response) -> float:
    """The gain at which the share of abnormal slots is the lounge's, by bisection; 1 where none reaches it."""

    def too_calm(gain: float) -> bool:
        return bool(abnormal(_readings(response, gain), lounge.mask).mean() < lounge.abnormal_share)

    low, high = 0.0, GAIN_MAX
    if too_calm(high):  # without neighbours, for one
        return 1.0
    for _ in range(GAIN_STEPS):
        gain = (low + high) / 2
        if too_calm(gain):
            low = gain
        else:
            high = gain
    return (low + high) / 2


def _respond(lounge: Lounge, slots: int, progress: Progress | None) -> Response:
    """Simulate both parts side by side."""
    room, sky = plan(lounge), weather(lounge, slots)
    walls_w_k, air_w_k = losses(lounge, room)
    daytime = (sky.hour >= 7) & (sky.hour < 21)
    setpoint_c = np.where(daytime, lounge.setpoint_day_c, lounge.setpoint_night_c)
    sources = (fixtures(lounge, room, sky), events(lounge, room, sky))
    balance = HeatBalance(lounge, walls_w_k + air_w_k, np.array([lounge.setpoint_night_c, 0.0]))
    calm, stirred = np.empty((2, slots, lounge.rows, lounge.cols), np.float32)
    power_w = np.empty((lounge.rows, lounge.cols, 2))
    for slot in range(slots):
        power_w[..., 0] = walls_w_k * sky.outdoor_c[slot] + air_w_k * setpoint_c[slot]
        power_w[..., 1] = _stir(lounge, sources, slot)
        for _ in range(lounge.steps):
            balance.step(power_w)
        calm[slot], stirred[slot] = balance.temperature[..., 0], balance.temperature[..., 1]
        if progress and ((slot + 1) % PROGRESS_EVERY == 0 or slot + 1 == slots):
            progress(slot + 1, slots)
    return Response(calm, stirred, errors_k(lounge, slots))


def _stir(lounge: Lounge, sources: tuple[Sources, ...], slot: int) -> NDArray[np.float64]:
    """What the sources give off in a slot, W [rows, cols], less what the central air takes of their mean."""
    cells = lounge.rows * lounge.cols
    power_w = sum(np.bincount(part.cells[slot], part.power_w[slot], cells) for part in sources)
    taken_w = lounge.mean_gain_removed * np.sum(power_w) / (cells - len(lounge.holes))
    return np.reshape(power_w - taken_w, (lounge.rows, lounge.cols))
