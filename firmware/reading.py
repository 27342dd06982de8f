"""Readings: a sensor driver has `read(cycle)` -> int16 ccel, or None where the sensor gives nothing.

Each driver is a module of its own, loaded only on the nodes that use it; a new one is a file and a branch here.
"""

KINDS = ("replay", "simulated")


def open_sensor(settings: dict):
    """The driver that `settings["kind"]` names, opened with the settings it needs.

    Raises:
        ValueError: an unknown kind, or a setting is missing.
        OSError: its device or file cannot be opened.
    """
    kind = settings.get("kind")
    try:
        if kind == "replay":
            from firmware import sensor_replay

            return sensor_replay.Replay(settings)
        if kind == "simulated":
            from firmware import sensor_simulated

            return sensor_simulated.Simulated(settings)
    except KeyError as error:
        raise ValueError("node config: sensor: %s is missing" % error)
    raise ValueError("node config: sensor: kind: %r is not one of %s" % (kind, ", ".join(KINDS)))
