"""A node's configuration: one JSON file, checked once at start.

    site        its name: 1..32 of a-z 0-9 - _
    row, col    the node's cell, 0..254 each
    neighbours  mask of the slots that hold a neighbour (protocol/grid.py), 0..255
    host, port  the broker; host is an address, or a name in parts of 1..63 ASCII characters
    keepalive_s 5..3600; the broker calls the node lost after 1.5 times this
    filters     path of the filter set in the node's flash
    key         public key of the gateway, 64 hex digits, or "": then no filters are taken from the wave
    next_to_gateway  true where the gateway hands its filter sets to this node
    password    at the broker, where the node's name is its user name: up to 64 printable ASCII characters without
                spaces; "" or no such field: the node connects without
    ca          certificate, in PEM, that has to have signed the broker's, for TLS on CPython
    psk         64 hex digits: a key that the broker shares with this node alone, for TLS on MicroPython
    psk_port    the broker's port for that; without `ca` and `psk` the node connects without TLS
    sensor      {"kind": ..., and what that driver needs: SETTINGS of firmware/reading.py}; "offset_ccel", -1000..1000,
                is added to each reading, 0 where it is not there
"""

import json

from firmware.reading import OFFSET_MAX, SETTINGS
from protocol.grid import ROWS_MAX
from protocol.topic import check_site

KEY_DIGITS = 64
PASSWORD_MAX = 64
# Of a name's part between two dots (RFC 1035, clause 2.3.4).
HOST_PART_MAX = 63
# Each field's range, or its type where it is no number.
_FIELDS = {
    "site": str,
    "row": (0, ROWS_MAX - 1),
    "col": (0, ROWS_MAX - 1),
    "neighbours": (0, 255),
    "host": str,
    "port": (1, 65535),
    "keepalive_s": (5, 3600),
    "filters": str,
    "key": str,
    "next_to_gateway": bool,
    "sensor": dict,
}
_WORDS = {str: "a text in quotes", bool: "true or false", dict: "a table like {...}"}


def load(path: str) -> dict:
    """Read and check the file.

    Raises:
        OSError: it cannot be read.
        ValueError: one line that names the field, its value and what would be right.
    """
    try:
        with open(path) as file:
            return check(json.load(file))
    except (ValueError, RuntimeError) as error:  # RuntimeError: a table within a table within ...
        raise ValueError(path + ": " + str(error))


def check(config: dict) -> dict:
    """The configuration itself, when every field is there, of its type and in its range; else ValueError as `load`."""
    if not isinstance(config, dict):
        raise ValueError("is no JSON object; write {...} with " + ", ".join(list(_FIELDS)))
    _check_fields(config, _FIELDS, "")
    check_site(config["site"])
    _check_host(config["host"])
    if not _is_key(config["key"]):
        raise ValueError("key: %r is not 64 hex digits; copy it from `thermesh keys`" % config["key"])
    _check_password(config.get("password", ""))
    _check_tls(config)
    _check_sensor(config["sensor"])
    return config


def _check_password(password) -> None:
    """The value is a secret: the error does not show it."""
    if not isinstance(password, str):
        raise ValueError("password: is not " + _WORDS[str])
    if len(password) > PASSWORD_MAX or any(not 33 <= c <= 126 for c in password.encode()):
        wanted = "up to %d printable ASCII characters without spaces" % PASSWORD_MAX
        raise ValueError("password: is not %s; copy it from the gateway's state folder" % wanted)


def _check_tls(config: dict) -> None:
    """Keys are secrets: the error does not show them."""
    for name in ("ca", "psk"):
        if not isinstance(config.get(name, ""), str):
            raise ValueError(name + ": is not " + _WORDS[str])
    if not _is_key(config.get("psk", "")):
        raise ValueError("psk: is not 64 hex digits; copy it from the gateway's file")
    if config.get("psk"):
        _check_fields(config, {"psk_port": _FIELDS["port"]}, "")


def _is_key(text: str) -> bool:
    """Whether it is "" or 32 bytes in hex."""
    return len(text) in (0, KEY_DIGITS) and all(c in b"0123456789abcdef" for c in text.encode())


def _check_host(host: str) -> None:
    for part in host.split("."):
        if not 0 < len(part) <= HOST_PART_MAX or any(not 33 <= c <= 126 for c in part.encode()):
            wanted = "parts of 1..%d ASCII letters, digits or -, like 10.0.0.1" % HOST_PART_MAX
            raise ValueError("host: %r is no address or name; write %s" % (host, wanted))


def _check_sensor(sensor: dict) -> None:
    kind = sensor.get("kind")
    if not isinstance(kind, str) or kind not in SETTINGS:
        raise ValueError("sensor: kind: %r is not one of %s" % (kind, ", ".join(sorted(SETTINGS))))
    _check_fields(sensor, SETTINGS[kind], "sensor: ")
    if "offset_ccel" in sensor:
        _check_fields(sensor, {"offset_ccel": (-OFFSET_MAX, OFFSET_MAX)}, "sensor: ")
    if kind == "replay" and sensor["index"] >= sensor["cells"]:
        raise ValueError("sensor: index: %d is not below cells, %d" % (sensor["index"], sensor["cells"]))


def _check_fields(table: dict, fields: dict, place: str) -> None:
    for name, right in fields.items():
        is_number = isinstance(right, tuple)
        wanted = "a whole number in %d..%d" % right if is_number else _WORDS[right]
        if name not in table:
            raise ValueError(place + name + ": is missing; write " + wanted)
        value = table[name]
        # Python takes True for 1.
        fits = isinstance(value, int if is_number else right) and (right is bool or not isinstance(value, bool))
        if not fits or (is_number and not right[0] <= value <= right[1]):
            raise ValueError("%s%s: %r is not %s" % (place, name, value, wanted))
