"""Readings: a sensor driver has `read(cycle)` -> int16 ccel, or None where the sensor gives nothing.

Each driver is a module of its own, loaded only on the nodes that use it; a new one is a file, a row in SETTINGS and a
branch here.
"""

from protocol.fixed import READING_MAX, READING_MIN
from protocol.grid import ROWS_MAX

SEED_MAX = (1 << 31) - 1
CELLS_MAX = ROWS_MAX * ROWS_MAX
# By kind what the driver needs: a number's range, or its type; firmware/config.py checks it.
SETTINGS: dict = {
    "replay": {"path": str, "cells": (1, CELLS_MAX), "index": (0, CELLS_MAX - 1)},
    "simulated": {"seed": (0, SEED_MAX), "mean_ccel": (READING_MIN, READING_MAX)},
}


def open_sensor(settings: dict):
    """The driver that `settings["kind"]` names, opened; the settings are checked by firmware.config.

    Raises:
        ValueError: its device or file cannot be opened; one line that names it.
    """
    try:
        if settings["kind"] == "replay":
            from firmware import sensor_replay

            return sensor_replay.Replay(settings)
        from firmware import sensor_simulated

        return sensor_simulated.Simulated(settings)
    except OSError as error:
        raise ValueError("sensor: path: %r cannot be opened (%s); name a file" % (settings.get("path"), error))
