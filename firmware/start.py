"""What a node does once, at start: check its configuration, read its filters, work out its topics and first packets.

This code is loaded, used and forgotten before the first connection, so it costs a node's heap nothing afterwards.
"""

import gc
import json
import os
import sys

from firmware import config, mqtt_session
from firmware.reading import open_sensor
from protocol import filter_set, topic
from protocol.grid import SLOTS, neighbour_of, node_name

VERSION = "0.1.0"
# 16 channels, 8 layers: no filter set of format 1 is longer.
FILTERS_SIZE_MAX = 24_000

def prepare(path: str) -> tuple:
    """Everything that a Link needs, from a node's configuration file; `Link` takes it apart.

    Returns:
        cell: (row, col, mask of the slots that hold a neighbour).
        address: (host, port) of the broker.
        session: (keepalive_s, CONNECT packet, SUBSCRIBE packet, the node's facts as a retained PUBLISH packet).
        topics: bytes: where halo, block and gateway frames go, then state and health.
        boot: 32 random bits.
        sensor: an open driver.
        filters: protocol.filter_set.FilterSet.

    Raises:
        OSError: the file, the filters or the sensor cannot be opened.
        ValueError: one line that names the field, its value and what would be right.
    """
    settings = config.load(path)
    site, row, col, exists = settings["site"], settings["row"], settings["col"], settings["neighbours"]
    filters = load_filters(settings["filters"], site)
    boot = int.from_bytes(os.urandom(4), "little")
    topics = [topic.of_node(site, row, col, "halo"), topic.of_block(site, row, col)]
    topics += [topic.of_node(site, row, col, leaf) for leaf in ("up", "state", "health")]
    facts = json.dumps(about(boot, filters.version))
    session = (
        settings["keepalive_s"],
        mqtt_session.connect(site + "-" + node_name(row, col), topics[3], settings["keepalive_s"]),
        mqtt_session.subscribe(heard_topics(site, row, col, exists)),
        mqtt_session.retained(topic.of_node(site, row, col, "about"), facts),
    )
    address = settings["host"], settings["port"]
    names = [name.encode() for name in topics]
    return (row, col, exists), address, session, names, boot, open_sensor(settings["sensor"]), filters


def load_filters(path: str, site: str):
    """Read the filter set from the node's own flash.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no filter set, could overflow, or belongs to another site.
    """
    size = os.stat(path)[6]
    if size > FILTERS_SIZE_MAX:
        raise ValueError("filters: %d bytes, no set is longer than %d" % (size, FILTERS_SIZE_MAX))
    with open(path, "rb") as file:
        filters = filter_set.unpack(file.read(size))
    if filters.site != site:
        raise ValueError("filters: belong to site " + filters.site + ", this node to " + site)
    return filters


def heard_topics(site: str, row: int, col: int, exists: int) -> list:
    """What a node listens to: the beacon, its block, and each neighbour's halo."""
    topics = [topic.cycle(site), topic.of_block(site, row, col)]
    for slot in range(SLOTS):
        if exists >> slot & 1:
            other_row, other_col = neighbour_of(row, col, slot)
            topics.append(topic.of_node(site, other_row, other_col, "halo"))
    return topics


def about(boot: int, filter_version: int) -> dict:
    """A node's facts: what runs here. `heap` is in bytes, None where the runtime has no fixed heap."""
    name = sys.implementation.name
    version = sys.implementation[1] if name == "micropython" else sys.version_info
    return {
        "runtime": name + " " + ".".join([str(part) for part in version[:3]]),
        "heap": gc.mem_alloc() + gc.mem_free() if name == "micropython" else None,
        "firmware": VERSION,
        "boot": boot,
        "filter_version": filter_version,
    }
