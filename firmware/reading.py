"""Readings: a sensor driver has `read(cycle)` -> int16 ccel, or None where the sensor gives nothing.

A driver that knows why what came is no measurement raises ValueError(place of that counter in protocol/health.py).
Each driver is a module of its own, loaded only on the nodes that use it; a new one is a file, a row in SETTINGS and a
branch here.
"""

from protocol.fixed import READING_MAX, READING_MIN
from protocol.grid import ROWS_MAX

SEED_MAX = (1 << 31) - 1
CELLS_MAX = ROWS_MAX * ROWS_MAX
PIN_MAX = 99
# Of `offset_ccel`, which every kind may have: whoever is off by more than ten degrees measures something else.
OFFSET_MAX = 1_000
# By kind what the driver needs: a number's range, or its type; firmware/config.py checks it.
SETTINGS: dict = {
    "ds18b20": {"pin": (0, PIN_MAX)},
    "replay": {"path": str, "cells": (1, CELLS_MAX), "index": (0, CELLS_MAX - 1)},
    "simulated": {"seed": (0, SEED_MAX), "mean_ccel": (READING_MIN, READING_MAX)},
}


def open_sensor(settings: dict):
    """The driver that `settings["kind"]` names, opened; the settings are checked by firmware.config.

    Raises:
        ValueError: its device or file cannot be opened; one line that names it.
    """
    driver = _open_driver(settings)
    offset_ccel = settings.get("offset_ccel", 0)
    if not offset_ccel:
        return driver
    from firmware import sensor_offset

    return sensor_offset.Offset(driver, offset_ccel)


def _open_driver(settings: dict):
    kind = settings["kind"]
    try:
        if kind == "replay":
            from firmware import sensor_replay

            return sensor_replay.Replay(settings)
        if kind == "ds18b20":
            from firmware import sensor_ds18b20

            return sensor_ds18b20.Ds18b20(settings)
        from firmware import sensor_simulated

        return sensor_simulated.Simulated(settings)
    except ImportError as error:
        raise ValueError("sensor: kind: %r needs a board (%s); write another kind here" % (kind, error))
    except OSError as error:
        raise ValueError("sensor: path: %r cannot be opened (%s); name a file" % (settings.get("path"), error))
