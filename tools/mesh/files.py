"""What lies in each node's flash beside its code: the filter set and its own configuration."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from gateway.files import write_many
from gateway.passwords import psk_of
from gateway.site import Cell, Site
from protocol.grid import node_name

FILTERS_SUFFIX = ".filters"
KEEPALIVE_S = 60
# The broker's listener for keys, above the one that shows a certificate.
PSK_PORT_ABOVE = 1
# In a file's mode: somebody but its owner may do something with it.
OTHERS = 0o077


class Access(NamedTuple):
    """How nodes get to the broker.

    Attributes:
        host, port: where it is, as they reach it.
        passwords: by name, of each node that has one.
        authority: who has signed the broker's certificate, PEM; "": no TLS.
    """

    host: str
    port: int
    passwords: Mapping[str, str] = MappingProxyType({})
    authority: str = ""


def write_node_files(
    folder: Path,
    site: Site,
    access: Access,
    filters: bytes,
    key: str,
    sensors: Mapping[Cell, dict[str, Any]],
) -> None:
    """Write a `n-RR-CC.json` (firmware/config.py lists the fields) and a `n-RR-CC.filters` for each node.

    Filters that are there already stay as they are: newer ones may have come with a wave.

    Args:
        folder: made when it is missing.
        site: where nodes stand.
        access: to the broker.
        filters: the packed filter set that a new node starts with.
        key: the site's public key, 64 hex digits, or "".
        sensors: the `sensor` table of each node's configuration.

    Raises:
        OSError: they cannot be written; then all are as they were.
    """
    folder.mkdir(parents=True, exist_ok=True)
    configs: dict[Path, bytes] = {}
    sets: dict[Path, bytes] = {}
    masks = site.neighbour_masks
    for row, col in site.cells:
        name = node_name(row, col)
        config = {
            "site": site.name,
            "row": row,
            "col": col,
            "neighbours": int(masks[row, col]),
            "host": access.host,
            "port": access.port,
            "keepalive_s": KEEPALIVE_S,
            "filters": name + FILTERS_SUFFIX,
            "key": key,
            "next_to_gateway": (row, col) in site.next_to_gateway,
            "password": access.passwords.get(name, ""),
            "sensor": sensors[row, col],
        }
        if access.authority:  # what a node's runtime can use of the two
            psk = {"psk": psk_of(access.passwords[name]), "psk_port": access.port + PSK_PORT_ABOVE}
            config |= {"ca": access.authority, **psk}
        file, data = folder / f"{name}.json", json.dumps(config).encode()
        if not file.exists() or file.read_bytes() != data or (config["password"] and file.stat().st_mode & OTHERS):
            configs[file] = data
        flashed = folder / (name + FILTERS_SUFFIX)
        if not flashed.exists():
            flashed.with_name(flashed.name + ".slots").unlink(missing_ok=True)  # it speaks of filters that are gone
            sets[flashed] = filters
    write_many(configs, private=bool(access.passwords))
    write_many(sets, private=False)
