"""The ledger: what a cycle costs, counted where it happens, beside what shipping the raw readings would cost.

At the node: frames and their bytes as the protocol defines them. At the broker: MQTT packets with headers and topics,
every delivery counted, because fan-out and not the number of nodes sets a broker's load. Control traffic (the beacon)
stands in a row of its own inside the totals. A cheaper alternative is shown as cheaper.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.site import Cell, Site
from protocol import frame, topic
from protocol.health import (
    FAULTS,
    MALFORMED,
    MQTT_BYTES_IN,
    MQTT_BYTES_OUT,
    MQTT_LOST,
    MQTT_PACKETS_IN,
    MQTT_PACKETS_OUT,
    MQTT_SKIPPED,
    SENT,
    SENT_BYTES,
    WRAP_MASK,
)

Counters = NDArray[np.int64]
# MQTT's fixed header and topic length, for the packets that the gateway itself sends or gets.
_PUBLISH_OVERHEAD = 4
RAW_FRAME_SIZE = frame.HEADER_SIZE + 2


def spent(before: Mapping[Cell, NDArray[np.uint32]], after: Mapping[Cell, NDArray[np.uint32]]) -> Counters:
    """What all nodes counted between two of their health messages, int64 [COUNTERS]; who lacks one is left out."""
    rounds = [after[cell].astype(np.int64) - before[cell] for cell in after if cell in before]
    return (np.array(rounds) & WRAP_MASK).sum(axis=0) if rounds else np.zeros(len(FAULTS) + MALFORMED, np.int64)


def ledger(site: Site, counters: Counters, taken: Mapping[str, int], cycles: int) -> dict[str, Any]:
    """Frames and bytes per cycle.

    Args:
        site: for the number of nodes and the length of its topics.
        counters: what all nodes counted over the cycles (`spent`).
        taken: the gateway's counts over the same cycles: beacons, beacon_bytes, reports, report_bytes.
        cycles: how many.
    """
    nodes = len(site.cells)
    kinds = {
        name: _row(int(counters[SENT + kind]), int(counters[SENT_BYTES + kind]), cycles)
        for kind, name in enumerate(frame.KINDS)
        if kind not in (0, frame.BEACON)
    }
    kinds["beacon"] = _row(taken["beacons"], taken["beacon_bytes"], cycles)
    frames = sum(row["frames"] for row in kinds.values())
    payload = sum(row["bytes"] for row in kinds.values())
    sent = {name: row for name, row in kinds.items() if name != "beacon"}
    per_node = {key: round(sum(row[key] for row in sent.values()) / nodes, 3) for key in ("frames", "bytes")}
    return {
        "kinds": kinds,
        "total": {"frames": round(frames, 2), "bytes": round(payload, 2)},
        "per_node": per_node,
        "broker": _broker(site, counters, taken, cycles),
        "raw_gather": raw_gather(site, taken, cycles),
    }


def raw_gather(site: Site, taken: Mapping[str, int], cycles: int) -> dict[str, Any]:
    """What it would cost if every node just sent its reading to the gateway, with the same beacon."""
    nodes = len(site.cells)
    beacon = _row(taken["beacons"], taken["beacon_bytes"], cycles)
    packet = _PUBLISH_OVERHEAD + len(topic.of_node(site.name, 0, 0, "up")) + RAW_FRAME_SIZE
    beacon_packet = beacon["bytes"] + beacon["frames"] * (_PUBLISH_OVERHEAD + len(topic.cycle(site.name)))
    return {
        "total": {
            "frames": round(nodes + beacon["frames"], 2),
            "bytes": round(nodes * RAW_FRAME_SIZE + beacon["bytes"], 2),
        },
        "broker": {
            "messages_in": round(nodes + beacon["frames"], 2),
            "bytes_in": round(nodes * packet + beacon_packet, 2),
            "messages_out": round(nodes * (1 + beacon["frames"]), 2),
            "bytes_out": round(nodes * (packet + beacon_packet), 2),
        },
    }


def faults(counters: Counters) -> dict[str, int]:
    """What went wrong at the nodes, by kind; kinds that did not happen are left out."""
    found = {name: int(counters[MALFORMED + place]) for place, name in enumerate(FAULTS)}
    found |= {"connection_lost": int(counters[MQTT_LOST]), "packet_too_long": int(counters[MQTT_SKIPPED])}
    return {name: count for name, count in found.items() if count}


def _row(frames: int, size: int, cycles: int) -> dict[str, float]:
    return {"frames": round(frames / cycles, 2), "bytes": round(size / cycles, 2)}


def _broker(site: Site, counters: Counters, taken: Mapping[str, int], cycles: int) -> dict[str, float]:
    """The nodes' own counts, and the gateway's share: beacons in, reports out."""
    up = len(topic.of_node(site.name, 0, 0, "up")) + _PUBLISH_OVERHEAD
    down = len(topic.cycle(site.name)) + _PUBLISH_OVERHEAD
    return {
        "messages_in": round((int(counters[MQTT_PACKETS_OUT]) + taken["beacons"]) / cycles, 2),
        "bytes_in": round(
            (int(counters[MQTT_BYTES_OUT]) + taken["beacon_bytes"] + taken["beacons"] * down) / cycles, 2
        ),
        "messages_out": round((int(counters[MQTT_PACKETS_IN]) + taken["reports"]) / cycles, 2),
        "bytes_out": round((int(counters[MQTT_BYTES_IN]) + taken["report_bytes"] + taken["reports"] * up) / cycles, 2),
    }
