"""What lies in each node's flash beside its code: the filter set and its own configuration."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway.site import Cell, Site
from protocol.grid import node_name

FILTERS_NAME = "filters.bin"
KEEPALIVE_S = 60


def write_node_files(
    folder: Path, site: Site, address: tuple[str, int], filters: bytes, sensors: Mapping[Cell, dict[str, Any]]
) -> None:
    """Write `filters.bin` and a `n-RR-CC.json` for each node (firmware/config.py lists the fields).

    Args:
        folder: made when it is missing.
        site: where nodes stand.
        address: host and port of the broker, as the nodes reach it.
        filters: the packed filter set.
        sensors: the `sensor` table of each node's configuration.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILTERS_NAME).write_bytes(filters)
    masks = site.neighbour_masks
    for row, col in site.cells:
        config = {
            "site": site.name,
            "row": row,
            "col": col,
            "neighbours": int(masks[row, col]),
            "host": address[0],
            "port": address[1],
            "keepalive_s": KEEPALIVE_S,
            "filters": FILTERS_NAME,
            "sensor": sensors[row, col],
        }
        (folder / f"{node_name(row, col)}.json").write_text(json.dumps(config))
