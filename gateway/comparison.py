"""The mesh beside its alternatives, all with the same control traffic: on the air in a star and in a tree, and in mJ.

Frames here are those on the air: a health message takes three. In the tree a health message is relayed like a reading,
and every relay repeats the beacon; so it is for the mesh, whose reports, states and word of filters are relayed too.
What neighbours say to each other needs one hop in either. Filter sets pass from neighbour to neighbour and burden the
mesh alone.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gateway import energy
from gateway.alternatives import PerNode, alternatives
from gateway.ledger import AIR_OVERHEAD, Spent, control, raw_gather, sent_of, taken_of
from gateway.site import Site
from gateway.tree import Tree
from protocol import frame
from protocol.grid import node_name
from protocol.health import COUNTERS

# Each board as it would be used: 802.15.4 reaches some ten metres indoors and needs the tree, WiFi reaches a hall.
RADIOS = {
    "nrf52840": (energy.NRF52840, "tree"),
    "esp32_espnow": (energy.ESP32_ESPNOW, "star"),
    "esp32_wifi": (energy.ESP32_WIFI, "star"),
}

# Frames on the air and the bytes of their payloads, a cycle.
_OnAir = tuple[float, float]


class Control(NamedTuple):
    """What mesh and alternatives have in common: frames and bytes of payload a cycle.

    Attributes:
        beacon: the gateway's.
        health: each node's own health messages.
    """

    beacon: _OnAir
    health: _OnAir


def comparison(
    site: Site,
    counted: Spent,
    traffic: Mapping[str, int],
    cycles: int,
    readings_ccel: NDArray[np.int16],
    present: NDArray[np.bool_],
) -> dict[str, Any]:
    """What the cycles cost, and would have cost.

    Args:
        site: where nodes stand.
        counted, traffic, cycles: as for `ledger.ledger`.
        readings_ccel, present: as for `alternatives`, of the same cycles.

    Returns:
        mesh: by topology `frames`, `bytes` and `bytes_on_air` a cycle, and `hottest`, the node that is on the air
        longest, with its `frames`; alternatives: the same for each by name; raw_gather: its frames and bytes, and its
        broker's; energy: by board its `topology`, and for each of these what the `mean` node and the `hottest` one
        need, mJ a day by part.
    """
    rows = control(counted, traffic, cycles)
    beacon, health = (_on_air(row["frames"], row["bytes"]) for row in (rows["beacon"], rows["health"]))
    shared = Control(beacon, (health[0] / len(site.cells), health[1] / len(site.cells)))
    costs, tree = alternatives(site, readings_ccel, present), Tree(site)
    trees = {"star": None, "tree": tree}
    loads = {"mesh": {topology: _mesh(site, one, counted, traffic, cycles) for topology, one in trees.items()}}
    loads |= {name: {topology: cost.per_node for topology, cost in by.items()} for name, by in costs.items()}
    words = loads["mesh"]["star"]
    whole = {
        name: {topology: with_control(load, trees[topology], shared) for topology, load in by.items()}
        for name, by in loads.items()
    }
    waves = _on_air(traffic.get("waves", 0), traffic.get("wave_bytes", 0))
    own = {"mesh": (beacon[0] + waves[0] / cycles, beacon[1] + waves[1] / cycles)}
    bill = {
        name: {topology: _row(site, load, own.get(name, beacon)) for topology, load in by.items()}
        for name, by in whole.items()
    }
    singles = costs["raw_gather"]["star"]
    said = {"frames": float(singles.frames.mean()), "bytes": float(singles.sizes.mean())}
    return {
        "mesh": bill.pop("mesh"),
        "alternatives": bill,
        "raw_gather": raw_gather(site, said, rows),
        "energy": {
            name: {"topology": topology}
            | _energy(board, {what: by[topology] for what, by in whole.items()}, words, beacon, site.cycle_s)
            for name, (board, topology) in RADIOS.items()
        },
    }


def _mesh(site: Site, tree: Tree | None, counted: Spent, traffic: Mapping[str, int], cycles: int) -> PerNode:
    """What nodes counted, without their health messages; filter sets are all nodes' alike."""
    by_place = [counted.by_node.get(cell, np.zeros(COUNTERS, np.int64)) for cell in site.cells]
    sent, heard = (np.array([count(counters) for counters in by_place], np.float64) for count in (sent_of, taken_of))
    news = np.array([sent_of(counters, (frame.FILTERS,)) for counters in by_place], np.float64)
    # Word of filters goes to neighbours too; as much as the gateway heard goes up.
    news *= traffic.get("holdings", 0) / max(news[:, 0].sum(), 1)
    up = news + [sent_of(counters, (frame.REPORT, frame.STATE)) for counters in by_place]
    relayed = tree.gathered(up.T).T - up if tree else np.zeros_like(up)
    copies = np.array(_on_air(traffic.get("copies", 0), traffic.get("copy_bytes", 0))) / len(by_place)
    return PerNode(*((sent + relayed + copies) / cycles).T, *((heard + relayed + copies) / cycles).T)


def with_control(load: PerNode, tree: Tree | None, shared: Control) -> PerNode:
    """The same with each node's health messages, and in a tree with what it relays of beacons and of others' health."""
    frames, size = shared.health
    if tree is None:
        return load._replace(frames=load.frames + frames, sizes=load.sizes + size)
    return PerNode(
        load.frames + tree.sizes * frames + tree.relays * shared.beacon[0],
        load.sizes + tree.sizes * size + tree.relays * shared.beacon[1],
        load.heard_frames + (tree.sizes - 1) * frames,
        load.heard_sizes + (tree.sizes - 1) * size,
    )


def _row(site: Site, load: PerNode, own: _OnAir) -> dict[str, Any]:
    """All that is on the air in a cycle, the gateway's own frames too."""
    frames, size = float(load.frames.sum()) + own[0], float(load.sizes.sum()) + own[1]
    hottest = load.hottest
    return {
        "frames": round(frames, 2),
        "bytes": round(size, 2),
        "bytes_on_air": round(size + AIR_OVERHEAD * frames, 2),
        "hottest": {"node": node_name(*site.cells[hottest]), "frames": round(float(load.frames[hottest]), 2)},
    }


def _energy(
    board: energy.Radio, loads: Mapping[str, PerNode], words: PerNode, beacon: _OnAir, cycle_s: float
) -> dict[str, Any]:
    """By name the mean node and the hottest, mJ a day; the mesh listens in each cycle, or waits for wake tones.

    `words` is what the mesh's nodes say and hear of each other at times that nobody knows.
    """
    days: dict[str, dict[str, Any]] = {}
    for name, load in loads.items():
        everybody, hottest = slice(None), slice(load.hottest, load.hottest + 1)
        for which, nodes in (("mean", everybody), ("hottest", hottest)):
            frames, sizes, heard, heard_sizes = (float(values[nodes].mean()) for values in load)
            node = energy.Load(frames, sizes, heard, heard_sizes, *beacon)
            ways = {name: energy.listening(board, node) if name == "mesh" else node}
            if name == "mesh" and not board.wake_mj:  # who has to boot first samples no channel
                said, told = float(words.frames[nodes].mean()), float(words.heard_frames[nodes].mean())
                ways["mesh_wake_tone"] = energy.with_wake_tone(board, node, said, told)
            for way, one in ways.items():
                parts = energy.energy_mj(board, one, cycle_s)
                days.setdefault(way, {})[which] = {part: round(mj, 2) for part, mj in parts.items()}
    return days


def _on_air(frames: float, size: float) -> _OnAir:
    """Frames of this size altogether, in as many on the air as they need."""
    return frames * math.ceil(size / frames / frame.NODE_FRAME_MAX) if frames else 0.0, size
