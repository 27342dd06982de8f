"""What a scheme costs when everybody carries the same control traffic: on the air in a star and in a tree, in energy.

The rules are those of gateway/comparison.py, which starts from what nodes counted; here they are put on what was
simulated. What neighbours say to each other takes one hop in either topology. In the tree reports and states go up hop
by hop, and so do health messages; every relay repeats the beacon.

    beacon    one a cycle, and one more with which the gateway asks for health
    health    one message of each node in HEALTH_EVERY cycles, in as many frames as it needs
"""

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gateway import energy
from gateway.alternatives import PerNode
from gateway.comparison import RADIOS, Control, with_control
from gateway.ledger import AIR_OVERHEAD, HEALTH_SIZE
from gateway.site import Site, block_of
from gateway.tree import Tree
from protocol import beacon, frame
from protocol.grid import SLOTS, neighbour_of
from sim.change import owners

# Nobody but the demo asks so far: once in a day of half hours.
HEALTH_EVERY = 48
HEALTH_FRAMES = math.ceil(HEALTH_SIZE / frame.NODE_FRAME_MAX)
UPWARD = ("report", "state")

Floats = NDArray[np.float64]


class Said(NamedTuple):
    """Frames of one kind, a cycle in the mean, float64 [nodes] each, in the order of the site's cells.

    Attributes:
        kind: its name in protocol/frame.py.
        frames, sizes: sent by each node, and bytes of their payloads.
    """

    kind: str
    frames: Floats
    sizes: Floats


class Bill(NamedTuple):
    """One scheme in one topology.

    Attributes:
        own: bytes a cycle on the air of the scheme alone.
        total: with the control traffic, the gateway's beacons included.
        hottest: frames a cycle of the node that is on the air longest, control traffic included.
        load: what each node does, control traffic included.
    """

    own: float
    total: float
    hottest: float
    load: PerNode


def said(kind: str, sizes: NDArray[np.integer], site: Site) -> Said:
    """The mean over cycles of what was sent.

    Args:
        kind: of frame.
        sizes: [cycles, rows, cols], bytes of the one that a node sent in a cycle; 0: it sent none.
        site: where nodes stand.
    """
    rows, cols = np.transpose(site.cells)
    by_node = sizes[:, rows, cols].astype(np.float64)
    return Said(kind, (by_node > 0).mean(axis=0), by_node.mean(axis=0))


def load(everything: Iterable[Said], site: Site, tree: Tree | None) -> PerNode:
    """What nodes send and hear; in a tree (None: the star) relays hand on what goes up."""
    nodes = len(site.cells)
    found = PerNode(*np.zeros((4, nodes)))
    for kind, *sent in everything:
        relayed = [tree.gathered(each) - each if tree and kind in UPWARD else np.zeros(nodes) for each in sent]
        heard = [_heard(kind, each, site) for each in sent]
        parts = [*(each + more for each, more in zip(sent, relayed, strict=True))]
        parts += [each + more for each, more in zip(heard, relayed, strict=True)]
        found = PerNode(*(before + part for before, part in zip(found, parts, strict=True)))
    return found


def bill(node: PerNode, site: Site, tree: Tree | None) -> Bill:
    """Charge a scheme with the control traffic; `tree` None: in the star."""
    control = Control(_beacon(site), (HEALTH_FRAMES / HEALTH_EVERY, HEALTH_SIZE / HEALTH_EVERY))
    whole = with_control(node, tree, control)
    frames, sizes = control.beacon
    total = _on_air(whole) + sizes + AIR_OVERHEAD * frames
    return Bill(_on_air(node), total, float(whole.frames[whole.hottest]), whole)


def energy_mj(site: Site, bills: Mapping[str, Bill], words: PerNode | None) -> dict[str, float]:
    """What a node needs, mJ a day, by board and `mean` or `hottest`, like "nrf52840 mean".

    Args:
        site: for the length of its cycles.
        bills: by topology, `star` and `tree`.
        words: what nodes say and hear at times that nobody knows, so that all have to listen; "nrf52840 wake tone" is
            the mean of nodes that are woken instead. None: everybody knows when to listen, and for whom.
    """
    found = {}
    for name, (board, topology) in RADIOS.items():
        whole = bills[topology].load
        hottest = slice(whole.hottest, whole.hottest + 1)
        for which, nodes in (("mean", slice(None)), ("hottest", hottest)):
            frames, sizes, taken, taken_sizes = (float(values[nodes].mean()) for values in whole)
            one = energy.Load(frames, sizes, taken, taken_sizes, *_beacon(site))
            heard = energy.listening(board, one) if words else one
            found[f"{name} {which}"] = energy.energy_mj(board, heard, site.cycle_s)["total"]
            if words and which == "mean" and not board.wake_mj:  # who has to boot first samples no channel
                woken = energy.with_wake_tone(board, one, float(words.frames.mean()), float(words.heard_frames.mean()))
                found[f"{name} wake tone"] = energy.energy_mj(board, woken, site.cycle_s)["total"]
    return found


def _beacon(site: Site) -> tuple[float, float]:
    """Frames and bytes of payload a cycle."""
    frames = 1 + 1 / HEALTH_EVERY
    size = beacon.SIZE + math.ceil(math.prod(site.block_shape) / 8)
    return frames * math.ceil(size / frame.NODE_FRAME_MAX), frames * size


def _on_air(node: PerNode) -> float:
    return float(node.sizes.sum() + AIR_OVERHEAD * node.frames.sum())


def _heard(kind: str, sent: Floats, site: Site) -> Floats:
    """What each node takes in of frames: its members', its neighbours', or none that go to the gateway."""
    if kind in UPWARD:
        return np.zeros(len(site.cells))
    whole, owner = dict(zip(site.cells, sent.tolist(), strict=True)), owners(site)
    if kind == "member":
        blocks: dict[tuple[int, int], float] = {}
        for cell, frames in whole.items():
            blocks[block_of(cell)] = blocks.get(block_of(cell), 0.0) + frames
        return np.array([blocks[block_of(cell)] if owner[cell] else 0.0 for cell in site.cells])
    return np.array([sum(whole.get(neighbour_of(*cell, slot), 0.0) for slot in range(SLOTS)) for cell in site.cells])
