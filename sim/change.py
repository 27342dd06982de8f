"""Mode change (send-on-change), without loss: what is said in each cycle, and what everybody knows by it.

A *word* is a reading said to the neighbours, or that there is none; the *view* holds everybody's last word. Who says
what, in this order within a cycle:

    READING, NO_READING   a node whose reading differs from its last word by more than the threshold, that lost or
                          regained its reading, or whose heartbeat is due. It says its reading of this cycle.
    ACTIVATIONS           before each further conv3x3 layer, a node with a reading whose activations are not those that
                          it said last, that has just regained its reading, or whose heartbeat is due
    MEMBER                a node with a reading that is not its block's owner: when its last activations or its absence
                          byte changed, when it has just regained its reading, or when its heartbeat is due
    REPORT                a block's owner, with or without a reading: when anything in it but `seq` changed - features,
                          members pooled, members without a reading, their absence bytes -, or when its heartbeat is due

Units convolve when the time of an exchange is over, for silence never completes a neighbourhood. All that a node
computes, its own value at C included, it computes from last words; so features are those of the twin for the view, and
can be recomputed. A neighbour whose last word is that it has no reading is absent, as in mode always: its activations
are forgotten by all who hear that word, the owner included, and nothing is handed over in its place. Activations have
no threshold: whoever heard the last ones knows the present ones.

In the first cycle everybody says everything. In the first cycle of other filters everybody says everything but words:
the view knows no filters. The owner is the lowest corner that exists, for nobody dies here (firmware/node.py).
Mode always is the same with everything said in each cycle, so both are counted here.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from firmware.pool import Block
from firmware.quiet import HEARTBEAT, heartbeat_due
from gateway import twin
from gateway.ledger import AIR_OVERHEAD
from gateway.model import CONV3X3, Filters
from gateway.site import Site, block_of
from protocol import frame, report
from protocol.grid import BLOCK_SIDE, CORNERS

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Sizes = NDArray[np.uint8]
Number = TypeVar("Number", bound=np.generic)

_HEAD = bytes(frame.HEADER_SIZE)


class Words(NamedTuple):
    """What nodes said of their readings, and what is known by it at each cycle's end; [cycles, rows, cols] each.

    Attributes:
        view_ccel: int16, last words; anything where none is a reading.
        present: bool, whose last word is a reading.
        said: bool, who said a word in this cycle.
        due: bool, who says everything anew: a heartbeat, or the first cycle.
    """

    view_ccel: NDArray[np.int16]
    present: Bools
    said: Bools
    due: Bools

    def part(self, where: slice) -> "Words":
        """Some cycles of them, in a row."""
        return Words(self.view_ccel[where], self.present[where], self.said[where], self.due[where])


class Frames(NamedTuple):
    """Frames of one kind.

    Attributes:
        kind: its name in protocol/frame.py.
        sizes: uint8 [cycles, rows, cols], bytes of the one that a node sent in a cycle; 0: it sent none.
    """

    kind: str
    sizes: Sizes


class Traffic(NamedTuple):
    """What was sent, and what it came to.

    Attributes:
        sent: kind by kind in the order of a cycle; activations once for each exchange that takes them in.
        features: int16 [cycles, block rows, block cols, channels], as the gateway knows them at each cycle's end.
    """

    sent: tuple[Frames, ...]
    features: NDArray[np.int16]

    def frames(self) -> dict[str, Ints]:
        """How many in each cycle, by kind: int64 [cycles] each."""
        found: dict[str, Ints] = {}
        for kind, sizes in self.sent:
            found[kind] = found.get(kind, np.zeros(len(sizes), np.int64)) + (sizes > 0).sum(axis=(1, 2))
        return found

    def bytes_on_air(self) -> Ints:
        """Of each cycle, int64 [cycles]; all frames are shorter than what one 802.15.4 frame holds."""
        found: Ints = np.sum([_on_air(sizes).sum(axis=(1, 2)) for _, sizes in self.sent], axis=0)
        return found

    def frames_by_node(self) -> Ints:
        """How many each node sent in each cycle, int64 [cycles, rows, cols]."""
        found: Ints = np.sum([sizes > 0 for _, sizes in self.sent], axis=0)
        return found


def words(
    readings_ccel: NDArray[np.int16], present: Bools, site: Site, threshold_ccel: int, heartbeats: bool = True
) -> Words:
    """What nodes say of their readings in mode change.

    Args:
        readings_ccel: int16 [cycles, rows, cols], in the order in which they happened, from the run's cycle 0 on.
        present: bool, of the readings' shape: which nodes have one.
        site: where nodes stand.
        threshold_ccel: a reading that differs by more from the last word is said; 0: any change is, -1: every reading.
        heartbeats: whether nodes say everything anew once in HEARTBEAT cycles.
    """
    present = present & site.mask
    due = _heartbeats(site, len(readings_ccel)) if heartbeats else np.zeros(present.shape, np.bool_)
    due[:1] = site.mask
    said, views = np.empty_like(due), np.empty(readings_ccel.shape, np.int16)
    view, had = np.zeros(site.mask.shape, np.int16), np.zeros_like(site.mask)
    for cycle, (values, here) in enumerate(zip(readings_ccel, present, strict=True)):
        moved = np.abs(values.astype(np.int32) - view) > threshold_ccel
        said[cycle] = due[cycle] | (here & moved) | (here != had)
        view, had = np.where(said[cycle] & here, values, view), here
        views[cycle] = view
    return Words(views, present, said, due)


def always(readings_ccel: NDArray[np.int16], present: Bools, site: Site) -> Words:
    """What nodes say in mode always, in the terms of mode change: everything in each cycle; arguments as above."""
    everybody = np.broadcast_to(site.mask, present.shape)
    return Words(readings_ccel, present & site.mask, everybody, everybody)


def traffic(filters: Filters, heard: Words, site: Site) -> Traffic:
    """Everything that is said from these words on.

    Args:
        filters: what all nodes compute with; the first cycle is the first one with them.
        heard: words of one cycle or more; a part of them where filters changed.
        site: where nodes stand.
    """
    said, here = heard.said, heard.present
    due = heard.due.copy()
    due[0] = site.mask
    absent = site.neighbour_masks & ~twin.neighbours_where(here)
    anew = here & (due | _changed(here))
    sent = [
        _frames(frame.READING, said & here, len(frame.reading(_HEAD, 0))),
        _frames(frame.NO_READING, said & ~here, len(_HEAD)),
    ]
    for values in _exchanged(filters, heard, site):
        size = len(frame.activations(_HEAD, 1, bytes(values.shape[-1])))
        sent.append(_frames(frame.ACTIVATIONS, anew | here & _changed(values).any(axis=-1), size))
    last = twin.activations(filters, heard.view_ccel, here, site)
    features = twin.pool(last, here)
    news = here & (_changed(last).any(axis=-1) | _changed(absent))
    sent.append(_frames(frame.MEMBER, (anew | news) & ~owners(site), _member_sizes(filters, absent)))
    # Members are neighbours of each other: who came or went stands in the others' absence bytes, without others in the
    # features.
    rests_on = _by_block(here & _changed(absent)) > 0
    renewed = due | _spread(rests_on | _changed(features).any(axis=-1), site)
    sent.append(_frames(frame.REPORT, renewed & owners(site), _report_sizes(filters, here, absent, site)))
    return Traffic(tuple(sent), features)


def owners(site: Site) -> Bools:
    """The lowest corner of each block, bool [rows, cols]."""
    found = np.zeros_like(site.mask)
    for cell in {block_of(cell): cell for cell in reversed(site.cells)}.values():
        found[cell] = True
    return found


def _heartbeats(site: Site, cycles: int) -> Bools:
    """Whose heartbeat is due, bool [cycles, rows, cols]: with the nodes' own phases."""
    found = np.zeros((cycles, *site.mask.shape), np.bool_)
    for cell in site.cells:
        first = next(cycle for cycle in range(HEARTBEAT) if heartbeat_due(*cell, cycle))
        found[(slice(first, None, HEARTBEAT), *cell)] = True
    return found


def _exchanged(filters: Filters, heard: Words, site: Site) -> Iterator[NDArray[np.uint8]]:
    """What each exchange but the first takes in: uint8 [cycles, rows, cols, channels]."""
    for index, layer in enumerate(filters.layers[1:], 1):
        if layer.kind == CONV3X3:
            before = replace(filters, layers=filters.layers[:index])
            yield twin.activations(before, heard.view_ccel, heard.present, site)


def _frames(kind: int, sent: Bools, size: Sizes | int) -> Frames:
    return Frames(frame.KINDS[kind], np.where(sent, size, 0).astype(np.uint8))


def _member_sizes(filters: Filters, absent: Sizes) -> Sizes:
    """Bytes of every node's MEMBER frame, if it sends one."""
    values = bytes(filters.layers[-1].channels_out)
    whole, gaps = (len(frame.member(_HEAD, bytes([byte] * filters.exchanges), None, values)) for byte in (0, 1))
    return np.where(absent > 0, gaps, whole).astype(np.uint8)


def _report_sizes(filters: Filters, here: Bools, absent: Sizes, site: Site) -> Sizes:
    """Bytes of every block's REPORT, at each of its nodes."""
    by_gaps = np.array([_report_size(filters, gaps) for gaps in range(CORNERS + 1)], np.uint8)
    nothing = len(report.pack(_HEAD, 0, 0, Block(1, filters.exchanges), b""))
    pooled, gaps = _by_block(here), _by_block(here & (absent > 0))
    return _spread(np.where(pooled > 0, by_gaps[gaps], nothing), site).astype(np.uint8)


def _report_size(filters: Filters, gaps: int) -> int:
    """Bytes of a REPORT in which so many members have absence bytes."""
    block = Block(filters.layers[-1].channels_out, filters.exchanges)
    for corner in range(CORNERS):
        byte = int(corner < gaps)
        block.put(corner, block.maximum, bytes([byte] * filters.exchanges), None)
    return len(report.pack(_HEAD, 0, 0, block, block.features()))


def _changed(values: NDArray[np.generic]) -> Bools:
    """Where a value is not that of the cycle before; nowhere in the first cycle."""
    found: Bools = np.zeros(values.shape, np.bool_)
    found[1:] = values[1:] != values[:-1]
    return found


def _by_block(nodes: Bools) -> Ints:
    """How many of each block's nodes: bool [cycles, rows, cols] -> int64 [cycles, block rows, block cols]."""
    cycles, rows, cols = nodes.shape
    padded = np.pad(nodes, ((0, 0), (0, rows % BLOCK_SIDE), (0, cols % BLOCK_SIDE)))
    by_side = padded.reshape(cycles, -(-rows // BLOCK_SIDE), BLOCK_SIDE, -1, BLOCK_SIDE)
    found: Ints = by_side.sum(axis=(2, 4))
    return found


def _spread(blocks: NDArray[Number], site: Site) -> NDArray[Number]:
    """Every block's value at each of its nodes: [cycles, block rows, block cols] -> [cycles, rows, cols]."""
    return blocks.repeat(BLOCK_SIDE, axis=1).repeat(BLOCK_SIDE, axis=2)[:, : site.rows, : site.cols]


def _on_air(sizes: Sizes) -> Ints:
    return np.where(sizes > 0, sizes.astype(np.int64) + AIR_OVERHEAD, 0)
