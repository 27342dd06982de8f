"""A node's configuration: one JSON file, checked once at start.

    site        its name: 1..32 of a-z 0-9 - _
    row, col    the node's cell, 0..254 each
    neighbours  mask of the slots that hold a neighbour (protocol/grid.py), 0..255
    host, port  the broker
    keepalive_s 5..3600; the broker calls the node lost after 1.5 times this
    filters     path of the filter set in the node's flash
    sensor      {"kind": "replay", ...} or {"kind": "simulated", ...} (firmware/reading.py)
"""

import json

from protocol.grid import ROWS_MAX
from protocol.topic import check_site

_RANGES = {
    "row": (0, ROWS_MAX - 1),
    "col": (0, ROWS_MAX - 1),
    "neighbours": (0, 255),
    "port": (1, 65535),
    "keepalive_s": (5, 3600),
}
_TYPES = {"site": str, "host": str, "filters": str, "sensor": dict}


def load(path: str) -> dict:
    """Read and check the file.

    Raises:
        OSError: it cannot be read.
        ValueError: one line that names the field, its value and what would be right.
    """
    with open(path) as file:
        return check(json.load(file))


def check(config: dict) -> dict:
    """The configuration itself, when every field is there, of its type and in its range; else ValueError as `load`."""
    for name in list(_RANGES) + list(_TYPES):
        if name not in config:
            raise ValueError("node config: " + name + ": missing")
    for name, limits in _RANGES.items():
        value = config[name]
        if not isinstance(value, int) or isinstance(value, bool) or not limits[0] <= value <= limits[1]:
            raise ValueError("node config: %s: %r is not in %d..%d" % (name, value, limits[0], limits[1]))
    for name, kind in _TYPES.items():
        if not isinstance(config[name], kind):
            raise ValueError("node config: %s: %r is no %s" % (name, config[name], kind.__name__))
    check_site(config["site"])
    return config
