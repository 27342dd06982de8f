"""What a node does once, at start: check its configuration, read its filters, work out its topics and first packets.

This code is loaded, used and forgotten before the first connection, so it costs a node's heap nothing afterwards.
"""

import gc
import json
import os
import sys

from firmware import config, mqtt_session, slots
from firmware.reading import open_sensor
from firmware.stages import TO_GATEWAY
from protocol import filter_set, topic
from protocol.filter_set import CONFIRMED, RETURNED, STAGED, TRIAL
from protocol.frame import WIRE_VERSION
from protocol.grid import SLOTS, neighbour_of, node_name

VERSION = "0.1.0"


def prepare(path: str) -> tuple:
    """Everything that a Link needs, from a node's configuration file; `Link` takes it apart.

    Returns:
        cell: (row, col, mask of the slots that hold a neighbour).
        address: (host, port) of the broker.
        tls: the Tls to connect with (firmware/encryption.py), or None.
        session: (keepalive_s, CONNECT packet, SUBSCRIBE packet, the node's facts as a retained PUBLISH packet).
        topics: bytes: where halo, block and gateway frames go, then how all nodes' begin.
        boot: 32 random bits.
        sensor: an open driver.
        filters: as `prepare_filters` returns it.

    Raises:
        OSError: the file, the filters or the sensor cannot be opened.
        ValueError: one line that names the field, its value and what would be right.
    """
    settings = config.load(path)
    site, row, col, exists = settings["site"], settings["row"], settings["col"], settings["neighbours"]
    filters = prepare_filters(settings["filters"], site, bytes.fromhex(settings["key"]))
    boot = int.from_bytes(os.urandom(4), "little")
    topics = said_topics(site, row, col)
    name, tls, port, word = node_name(row, col), None, settings["port"], "none"
    if settings.get("psk") or settings.get("ca"):
        from firmware import encryption

        tls, port, word = encryption.open_tls(name, settings)
    facts = json.dumps(about(boot, filters[0].version, word))
    password = settings.get("password", "")
    login = (name, password) if password else ()
    waves = [topic.wave(site)] if settings["next_to_gateway"] else []
    session = (
        settings["keepalive_s"],
        mqtt_session.connect(site + "-" + name, topics[3], settings["keepalive_s"], login),
        mqtt_session.subscribe(heard_topics(site, row, col, exists), waves),
        mqtt_session.retained(topics[-1], facts),
    )
    address = settings["host"], port
    names = [name.encode() for name in topics[: TO_GATEWAY + 1] + [topic.nodes(site)]]
    return (row, col, exists), address, tls, session, names, boot, open_sensor(settings["sensor"]), filters


def prepare_filters(path: str, site: str, key: bytes) -> tuple:
    """What lies in the node's filter slots, for firmware.wave.Wave.

    A set that was on trial when the node went down, or is damaged, is given up for the one in the other slot. Where
    that is damaged, the trial is over instead: there is nothing to go back to, and nothing newer was ever confirmed.

    Returns:
        active: FilterSet.
        staged: FilterSet, or None.
        phase: of protocol/filter_set.py.
        highest: the highest version ever held.
        path: of slot 0.
        offers: paths of the active set and of the newest one, each "" unless it came with the wave.
        site, key: the node's site and the public key of its gateway, 32 bytes or none.

    Raises:
        OSError: the filters cannot be read.
        ValueError: neither slot holds a filter set of this site, or nobody knows which of them counts.
    """
    active, phase, highest, digests = slots.read_record(path)
    if highest is None:  # no set ever came, so slot 0 holds what was flashed; a lost record does not tell what it holds
        if _exists(path + ".slots"):
            raise ValueError("filters: " + path + ".slots is damaged; write the filters again")
        filters = _of_site(slots.load(path, digests[0], filter_set.read), site)
        highest = filters.version
    else:
        found, filters = active, None
        for found in (1 - active, active) if phase == TRIAL else (active, 1 - active):
            filters = _load(path, found, digests, site)
            if filters:
                break
        else:
            raise ValueError("filters: both slots of " + path + " are damaged; write the filters again")
        if found != active or phase == TRIAL:  # from now on this slot counts, and the other is free for new sets
            phase = CONFIRMED if found == active else RETURNED
            slots.mark(path, phase, highest)
            active = found
    staged = _load(path, 1 - active, digests, site) if phase == STAGED else None
    if phase == STAGED and staged is None:
        phase = CONFIRMED
    came = [slots.offer(slots.slot_path(path, slot), digests[slot]) for slot in (0, 1)]
    offers = came[active], came[1 - active if staged else active]
    return filters, staged, phase, highest, path, offers, site, key


def _load(path: str, slot: int, digests, site: str):
    """The FilterSet of a slot, None where it is gone, damaged or not the recorded one.

    Raises:
        ValueError: it is another site's.
    """
    try:
        filters = slots.load(slots.slot_path(path, slot), digests[slot], filter_set.read)
    except (OSError, ValueError):
        filters = None
    return filters and _of_site(filters, site)


def _of_site(filters, site: str):
    """The FilterSet, if it is of this site.

    Raises:
        ValueError: it is another site's.
    """
    if filters.site != site:
        raise ValueError("filters: belong to site " + filters.site + ", this node to " + site)
    return filters


def _exists(path: str) -> bool:
    try:
        os.stat(path)
    except OSError:
        return False
    return True


def said_topics(site: str, row: int, col: int) -> list:
    """Where a node publishes: halo, block, up, state, health, wave, about, in this order."""
    topics = [topic.of_node(site, row, col, "halo"), topic.of_member(site, row, col)]
    return topics + [topic.of_node(site, row, col, leaf) for leaf in ("up", "state", "health", "wave", "about")]


def heard_topics(site: str, row: int, col: int, exists: int) -> list:
    """What a node listens to: the beacon, its acknowledgements, its block, and each neighbour's halo."""
    own = [topic.cycle(site), topic.of_node(site, row, col, topic.ACK), topic.of_block(site, row, col)]
    return own + neighbours_topics(site, row, col, exists, "halo")


def neighbours_topics(site: str, row: int, col: int, exists: int, leaf: str) -> list:
    """A topic of each neighbour."""
    cells = [neighbour_of(row, col, slot) for slot in range(SLOTS) if exists >> slot & 1]
    return [topic.of_node(site, other_row, other_col, leaf) for other_row, other_col in cells]


def about(boot: int, filter_version: int, encryption: str = "none") -> dict:
    """A node's facts: what runs here. `heap` is in bytes, None where the runtime has no fixed heap."""
    name = sys.implementation.name
    version = sys.implementation[1] if name == "micropython" else sys.version_info[:3]
    return {
        "runtime": name + " " + ".".join([str(part) for part in version if part]),
        "heap": gc.mem_alloc() + gc.mem_free() if name == "micropython" else None,
        "firmware": VERSION,
        "wire": WIRE_VERSION,
        "boot": boot,
        "filter_version": filter_version,
        "encryption": encryption,
    }
