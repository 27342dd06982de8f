"""The ledger: what a cycle costs, counted where it happens, beside what shipping the raw readings would cost.

At the node: frames and their bytes as the protocol defines them. At the broker: MQTT packets with headers and topics,
every delivery counted, because fan-out and not the number of nodes sets a broker's load. On the air: the same frames in
802.15.4. The same frames stand by kind, by what they are for (LAYERS), and by node. Control traffic is inside the
totals: beacons and acknowledgements, the health messages that are asked for, and all that has to do with filters.
States and facts that nodes retain at the broker are not: they are said at the start, before anything is counted. Nor
are the proofs of mode event, which stand beside: nobody needs them but who checks. A cheaper alternative is shown as
cheaper (gateway/comparison.py).
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gateway.site import Cell, Site
from protocol import frame, topic
from protocol.grid import node_name
from protocol.health import (
    COUNTERS,
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
    TAKEN,
    TAKEN_BYTES,
    WRAP_MASK,
)

Counters = NDArray[np.int64]
# What nodes send, by kind, but for what nobody needs who does not check.
NODE_KINDS = {kind: name for kind, name in enumerate(frame.KINDS) if kind not in (0, frame.BEACON, frame.PROOF)}
HEALTH_SIZE = 4 * COUNTERS
# What an 802.15.4 frame adds to its payload.
AIR_OVERHEAD = 21
# What frames are for, by kind: what the first layer of the nodes reads of neighbours, what later ones read (counters
# tell kinds apart, not exchanges; no spec has more than two), what goes up to owner and gateway, and control.
LAYERS = {
    "halo_1": ("reading", "no_reading", "value", "challenge"),
    "halo_2": ("activations",),
    "upward": ("member", "report", "state"),
    "control": ("beacon", "ack", "health", "filters", "refresh", "wave"),
}
# A line of problems names so many nodes.
_NAMES_MAX = 5


class Health(NamedTuple):
    """A node's health message, and which of its starts counted: counters begin at 0 with each.

    Attributes:
        boot: as the node's facts say it; None when they never came.
        counters: uint32 [COUNTERS].
    """

    boot: int | None
    counters: NDArray[np.uint32]


class Spent(NamedTuple):
    """What nodes counted between two of their health messages.

    Attributes:
        by_node: of each node counted int64 [COUNTERS]; each sent one health message meanwhile, the first.
        silent: cells that did not answer twice, so they are in no sum.
        restarted: cells whose node started anew in between, so what it had counted is unknown.
    """

    by_node: Mapping[Cell, Counters]
    silent: tuple[Cell, ...]
    restarted: tuple[Cell, ...]

    @property
    def counters(self) -> Counters:
        """The sum over the nodes counted, int64 [COUNTERS]."""
        return sum(self.by_node.values(), np.zeros(COUNTERS, np.int64))

    @property
    def nodes(self) -> int:
        """How many were counted."""
        return len(self.by_node)

    def problems(self) -> list[str]:
        """A line for each reason why nodes are not in the sums."""
        reasons = {"did not say what they had counted": self.silent, "started anew meanwhile": self.restarted}
        return [
            f"ledger: without {len(cells)} nodes that {reason}: {_names(cells)}"
            for reason, cells in reasons.items()
            if cells
        ]


def spent(cells: Iterable[Cell], before: Mapping[Cell, Health], after: Mapping[Cell, Health]) -> Spent:
    """What the nodes of a site counted from one of their health messages to the next; counters wrap at 2^30."""
    silent, restarted, by_node = [], [], {}
    for cell in cells:
        if cell not in before or cell not in after:
            silent.append(cell)
        elif before[cell].boot != after[cell].boot:
            restarted.append(cell)
        else:
            by_node[cell] = (after[cell].counters.astype(np.int64) - before[cell].counters) & WRAP_MASK
    return Spent(by_node, tuple(silent), tuple(restarted))


def ledger(site: Site, counted: Spent, traffic: Mapping[str, int], cycles: int) -> dict[str, Any]:
    """Frames and bytes per cycle.

    Args:
        site: for the number of nodes and the length of its topics.
        counted: what its nodes spent on the cycles.
        traffic: the gateway's counts over the same cycles: frames of `beacons`, `acks`, `waves`, `reports`, `states`,
            `holdings`, and of `copies`, the filter sets that nodes published for their neighbours; and their bytes as
            `beacon_bytes` and so on, `copy_bytes`. What is left out did not happen.
        cycles: how many.
    """
    counters = counted.counters
    kinds = {name: _row(*sent_of(counters, (kind,)), cycles) for kind, name in NODE_KINDS.items()}
    kinds |= control(counted, traffic, cycles)
    kinds["ack"] = _row(traffic.get("acks", 0), traffic.get("ack_bytes", 0), cycles)
    copies = traffic.get("copies", 0), traffic.get("copy_bytes", 0)
    kinds["wave"] = _row(traffic.get("waves", 0) + copies[0], traffic.get("wave_bytes", 0) + copies[1], cycles)
    return {
        "kinds": kinds,
        "layers": {layer: total([kinds[name] for name in names]) for layer, names in LAYERS.items()},
        "total": total(kinds.values()),
        "proof": _row(*sent_of(counters, (frame.PROOF,)), cycles),
        "per_node": _per_node(counted, copies, cycles),
        "broker": _broker(site, counted, traffic, cycles),
    }


def sent_of(counters: Counters, kinds: Iterable[int] = NODE_KINDS) -> tuple[int, int]:
    """Frames of these kinds that were sent, and their bytes."""
    places = list(kinds)
    return int(counters[SENT:SENT_BYTES][places].sum()), int(counters[SENT_BYTES:TAKEN][places].sum())


def taken_of(counters: Counters, kinds: Iterable[int] = NODE_KINDS) -> tuple[int, int]:
    """Frames of these kinds that were taken in, and their bytes."""
    places = list(kinds)
    return int(counters[TAKEN:TAKEN_BYTES][places].sum()), int(counters[TAKEN_BYTES:MQTT_PACKETS_IN][places].sum())


def control(counted: Spent, traffic: Mapping[str, int], cycles: int) -> dict[str, dict[str, float]]:
    """The control traffic that any alternative needs too: frames and bytes per cycle."""
    return {
        "beacon": _row(traffic["beacons"], traffic["beacon_bytes"], cycles),
        "health": _row(counted.nodes, counted.nodes * HEALTH_SIZE, cycles),
    }


def raw_gather(site: Site, readings: Mapping[str, float], control: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """What a cycle would cost if every node just sent its reading to the gateway, over the same broker.

    Args:
        site: for the number of nodes and the length of its topics.
        readings: frames and bytes per cycle.
        control: the same control traffic, by kind (beacon, health): frames and bytes per cycle.
    """
    nodes = len(site.cells)
    beacon, health = control["beacon"], control["health"]
    said = _on_mqtt(_up(site), readings["frames"], readings["bytes"])
    beacons = _on_mqtt(topic.cycle(site.name), beacon["frames"], beacon["bytes"])
    healths = _on_mqtt(_health(site), health["frames"], health["bytes"])
    return {
        "total": total([readings, beacon, health]),
        "broker": {
            "messages_in": round(readings["frames"] + beacon["frames"] + health["frames"], 2),
            "bytes_in": round(said + beacons + healths, 2),
            "messages_out": round(readings["frames"] + nodes * beacon["frames"] + health["frames"], 2),
            "bytes_out": round(said + nodes * beacons + healths, 2),
        },
    }


def faults(counters: Counters) -> dict[str, int]:
    """What went wrong at the nodes, by kind; kinds that did not happen are left out."""
    found = {name: int(counters[MALFORMED + place]) for place, name in enumerate(FAULTS)}
    found |= {"connection_lost": int(counters[MQTT_LOST]), "packet_too_long": int(counters[MQTT_SKIPPED])}
    return {name: count for name, count in found.items() if count}


def total(rows: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """The sum of rows; a long frame goes over the air in as many as it needs."""
    rows = [row for row in rows if row["frames"]]
    frames, size = (sum(row[key] for row in rows) for key in ("frames", "bytes"))
    on_air = sum(row["frames"] * math.ceil(row["bytes"] / row["frames"] / frame.NODE_FRAME_MAX) for row in rows)
    return {
        "frames": round(frames, 2),
        "bytes": round(size, 2),
        "bytes_on_air": round(size + on_air * AIR_OVERHEAD, 2),
    }


def _row(frames: int, size: int, cycles: int) -> dict[str, float]:
    return {"frames": round(frames / cycles, 2), "bytes": round(size / cycles, 2)}


def _per_node(counted: Spent, copies: tuple[int, int], cycles: int) -> dict[str, Any]:
    """Per cycle what a node sends in the mean, and the one that sends most; filter sets are all nodes' alike."""
    if not counted.by_node:
        return {"frames": 0.0, "bytes": 0.0, "hottest": None}
    sent = {cell: np.array(sent_of(counters)) for cell, counters in counted.by_node.items()}
    hottest = max(sent, key=lambda cell: tuple(sent[cell]))
    same = np.array(copies) / counted.nodes + (1, HEALTH_SIZE)
    mean = sum(sent.values()) / counted.nodes
    rows = [
        dict(zip(("frames", "bytes"), np.round((row + same) / cycles, 3).tolist(), strict=True))
        for row in (mean, sent[hottest])
    ]
    return rows[0] | {"hottest": {"node": node_name(*hottest)} | rows[1]}


def _broker(site: Site, counted: Spent, traffic: Mapping[str, int], cycles: int) -> dict[str, float]:
    """The nodes' own counts, and the gateway's share: what it says in; reports, states, FILTERS and health out."""
    counters = counted.counters
    beacons = _on_mqtt(topic.cycle(site.name), traffic["beacons"], traffic["beacon_bytes"])
    reports = _on_mqtt(_up(site), traffic["reports"], traffic["report_bytes"])
    acks, ack_bytes = traffic.get("acks", 0), traffic.get("ack_bytes", 0)
    waves = _on_mqtt(topic.wave(site.name), traffic.get("waves", 0), traffic.get("wave_bytes", 0))
    states = _on_mqtt(_up(site), traffic.get("states", 0), traffic.get("state_bytes", 0))
    proved = int(counters[SENT + frame.PROOF])
    proofs = _on_mqtt(_up(site), proved, int(counters[SENT_BYTES + frame.PROOF]))
    holdings = _on_mqtt(_up(site), traffic.get("holdings", 0), traffic.get("holding_bytes", 0))
    healths = _on_mqtt(_health(site), counted.nodes, counted.nodes * HEALTH_SIZE)
    gave = traffic["beacons"] + acks + traffic.get("waves", 0)
    told = beacons + waves + _on_mqtt(topic.of_node(site.name, 0, 0, topic.ACK), acks, ack_bytes)
    took = traffic["reports"] + traffic.get("states", 0) + traffic.get("holdings", 0) + counted.nodes
    return {
        "messages_in": round((int(counters[MQTT_PACKETS_OUT]) - proved + gave) / cycles, 2),
        "bytes_in": round((int(counters[MQTT_BYTES_OUT]) - proofs + told) / cycles, 2),
        "messages_out": round((int(counters[MQTT_PACKETS_IN]) + took) / cycles, 2),
        "bytes_out": round((int(counters[MQTT_BYTES_IN]) + reports + states + holdings + healths) / cycles, 2),
    }


def _on_mqtt(name: str, count: float, size: float) -> float:
    """Bytes of `count` PUBLISH packets of QoS 0 whose payloads, all about as long, have `size` bytes altogether.

    Each adds its type, its remaining length (one byte up to 127, else two) and its topic.
    """
    behind = 2 + len(name) + size / max(count, 1)
    return size + count * (2 + len(name) + (2 if behind < 128 else 3))


def _up(site: Site) -> str:
    return topic.of_node(site.name, 0, 0, "up")


def _health(site: Site) -> str:
    return topic.of_node(site.name, 0, 0, "health")


def _names(cells: tuple[Cell, ...]) -> str:
    more = len(cells) - _NAMES_MAX
    names = ", ".join(node_name(*cell) for cell in cells[:_NAMES_MAX])
    return f"{names} and {more} more" if more > 0 else names
