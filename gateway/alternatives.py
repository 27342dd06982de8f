"""What the alternatives to computing inside the mesh would cost on the same readings, without loss.

Two topologies answer two questions. In the *star* every frame reaches the gateway in one hop, as over MQTT and WiFi.
In the *tree* (gateway/tree.py) frames go hop by hop, and each hop counts. A node without a reading says nothing at
all, nothing is repeated, and relays wake in time for what they hand on: where there is a choice, alternatives are
given the better end, so what beats them here beats them.

    raw_gather              each reading in a frame of its own, as READING has it: header + 2 bytes
    raw_gather_aggregated   tree: what a node's subtree has to say goes on in as few frames as hold it
    deltas                  the same, of one byte a reading: the difference from the node's last one, -127..127 ccel;
                            else -128 and the reading, so the first
    send_on_change          the same as raw_gather_aggregated, of readings alone that moved by more than a threshold
                            since they were last sent
    naive_unicast           R0-16: (k^2 - 1) * nodes * h values of one distributed convolution, each to one neighbour
                            in a frame of its own; nothing of it reaches the gateway yet
    one_frame               a header a cycle: the least for any scheme that says something in each cycle
    changes_only            a STATE from beside the gateway when "abnormal somewhere", by the site's rule, changes: the
                            least for any scheme that is right in each cycle; an oracle, for somebody has to know

In the star nothing can be aggregated: whoever has something to say sends its own frame. In the tree a node names the
nodes whose values it hands on in the cheaper of two ways, and its frames' kind says in which: row and column of each,
or one bit for each node of its subtree in reading order, which the site's file fixes. Names come first, then values in
the same order; this stream is cut to what frames hold, and the header's version, which raw readings do not need,
counts the pieces.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gateway.carried_reports import THRESHOLD_CCEL
from gateway.ledger import AIR_OVERHEAD
from gateway.rule import abnormal
from gateway.site import Site
from gateway.tree import Tree
from protocol.frame import HEADER_SIZE, NODE_FRAME_MAX

READING_SIZE = 2
CELL_SIZE = 2
DELTA_MAX = 127
STATE_SIZE = HEADER_SIZE + 1
# R0-14: what the seed's document counts in R0-16.
SEED_KERNEL_SIDE, SEED_FILTERS = 3, 5

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


class PerNode(NamedTuple):
    """What nodes do a cycle in the mean, float64 [nodes] each, in the order of the site's cells.

    Attributes:
        frames, sizes: sent, and bytes of their payloads.
        heard_frames, heard_sizes: taken in.
    """

    frames: Floats
    sizes: Floats
    heard_frames: Floats
    heard_sizes: Floats

    @property
    def hottest(self) -> int:
        """The place of the node that is on the air longest."""
        return int(np.argmax(self.sizes + AIR_OVERHEAD * self.frames))


class Cost(NamedTuple):
    """What one alternative costs.

    Attributes:
        frames: int64 [cycles], sent by all nodes, relayed ones counted at each hop.
        sizes: int64 [cycles], bytes of their payloads; none is longer than NODE_FRAME_MAX.
        per_node: who sends and hears them.
    """

    frames: Ints
    sizes: Ints
    per_node: PerNode

    @property
    def on_air(self) -> Ints:
        """Bytes on the air, int64 [cycles]."""
        return self.sizes + AIR_OVERHEAD * self.frames


def alternatives(
    site: Site, readings_ccel: NDArray[np.int16], present: Bools, threshold_ccel: int = THRESHOLD_CCEL
) -> dict[str, dict[str, Cost]]:
    """The cost of each alternative, by name and topology, `star` or `tree`.

    Args:
        site: where nodes stand, and which of them next to the gateway.
        readings_ccel: int16 [cycles, rows, cols], at least one cycle, in the order in which they happened.
        present: bool, of the readings' shape: where there is a reading; elsewhere the number is not looked at.
        threshold_ccel: of send_on_change, 0 or more.
    """
    rows, cols = np.transpose(site.cells)
    values, there = readings_ccel[:, rows, cols].astype(np.int64), present[:, rows, cols]
    readings, changed = READING_SIZE * there, READING_SIZE * moved(values, there, threshold_ccel)
    deltas, tree = delta_sizes(values, there), Tree(site)
    gathered = {
        "raw_gather": {"star": _single(readings, None), "tree": _single(readings, tree)},
        "raw_gather_aggregated": {"star": _single(readings, None), "tree": _aggregated(readings, tree)},
        "deltas": {"star": _single(deltas, None), "tree": _aggregated(deltas, tree)},
        "send_on_change": {"star": _single(changed, None), "tree": _aggregated(changed, tree)},
    }
    everybody, entry = np.ones_like(values), np.arange(len(rows)) == site.cells.index(site.next_to_gateway[0])
    says = np.concatenate([[True], np.diff(abnormal(readings_ccel, present & site.mask))])[:, np.newaxis]
    naive = _single(READING_SIZE * everybody, None, times=naive_values(1))
    sent = naive.per_node.frames, naive.per_node.sizes
    one_hop = {
        "naive_unicast": naive._replace(per_node=PerNode(*sent, *sent)),  # each frame is one node's and heard by one
        "one_frame": _frames(everybody * entry, HEADER_SIZE * everybody * entry, None),
        "changes_only": _single((STATE_SIZE - HEADER_SIZE) * (says & entry), None),
    }
    return gathered | {name: {"star": cost, "tree": cost} for name, cost in one_hop.items()}


def naive_values(nodes: int) -> int:
    """How many values a naive distributed convolution moves (R0-16); 17 x 25 nodes: 17,000."""
    return (SEED_KERNEL_SIDE**2 - 1) * nodes * SEED_FILTERS


def delta_sizes(values_ccel: Ints, there: Bools) -> Ints:
    """Bytes that each reading takes as a difference from the node's last: 1, 3 where that does not fit, 0 if none.

    Args:
        values_ccel: int64 [cycles, nodes].
        there: bool, of the same shape: which nodes have a reading.
    """
    cycles = np.arange(len(there))[:, np.newaxis]
    # By cycle and node the last cycle before it that has a reading; -1: none had.
    latest = np.maximum.accumulate(np.where(there, cycles, -1), axis=0)
    before = np.concatenate([np.full((1, there.shape[1]), -1), latest[:-1]])
    last = np.take_along_axis(values_ccel, np.maximum(before, 0), axis=0)
    fits = (before >= 0) & (np.abs(values_ccel - last) <= DELTA_MAX)
    return np.where(there, np.where(fits, 1, 1 + READING_SIZE), 0)


def moved(values_ccel: Ints, there: Bools, threshold_ccel: int) -> Bools:
    """Which readings are sent: the first, and those further than a threshold from the node's last sent.

    Args:
        values_ccel: int64 [cycles, nodes].
        there: bool, of the same shape: which nodes have a reading.
        threshold_ccel: 0 or more.
    """
    sent = np.zeros(there.shape, np.bool_)
    told, said = np.zeros(there.shape[1], np.int64), np.zeros(there.shape[1], np.bool_)
    for cycle, (values, here) in enumerate(zip(values_ccel, there, strict=True)):
        sent[cycle] = here & (~said | (np.abs(values - told) > threshold_ccel))
        told, said = np.where(sent[cycle], values, told), said | sent[cycle]
    return sent


def _single(sizes: Ints, tree: Tree | None, times: int = 1) -> Cost:
    """Each value in a frame of its own: sizes int64 [cycles, nodes], 0 where nothing is said."""
    frames = times * (sizes > 0).astype(np.int64)
    payload = times * sizes + HEADER_SIZE * frames
    return _frames(tree.gathered(frames), tree.gathered(payload), tree) if tree else _frames(frames, payload, tree)


def _aggregated(sizes: Ints, tree: Tree) -> Cost:
    """What each subtree says in as few frames as hold it: sizes int64 [cycles, nodes], 0 where nothing is said."""
    said = tree.gathered((sizes > 0).astype(np.int64))
    names = np.minimum(CELL_SIZE * said, -(-tree.sizes // 8))
    stream = np.where(said > 0, names + tree.gathered(sizes), 0)
    frames = -(-stream // (NODE_FRAME_MAX - HEADER_SIZE))
    return _frames(frames, stream + HEADER_SIZE * frames, tree)


def _frames(frames: Ints, sizes: Ints, tree: Tree | None) -> Cost:
    """Of what nodes send, int64 [cycles, nodes] each; in a tree their parents hear it."""
    sent = frames.mean(axis=0), sizes.mean(axis=0)
    heard = [tree.from_children(values) if tree else np.zeros_like(values) for values in sent]
    return Cost(frames.sum(axis=1), sizes.sum(axis=1), PerNode(*sent, *heard))
