"""Cycle assembly: the reports of one cycle become features, and everything that is needed to recompute them.

Rules: where two owners report a block, the element-wise maximum counts, so nodes need not agree on an owner. A cell is
accounted for when some report pooled it or said that it has no reading. A cell unaccounted for in three whole cycles is
gone: it is not waited for and has no reading until it comes back.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gateway.site import Cell, Site, block_of
from gateway.twin import NOTHING, neighbours_where
from protocol.grid import BLOCK_SIDE, CORNERS
from protocol.report import Report

# In the proofs of a record: none came from this node; its connection is known to be lost.
UNPROVEN, OFFLINE = 255, 254
# A block whose owner died is silent for two cycles until its members take the next owner; in the third it is back.
GONE_CYCLES = 3


class Record(NamedTuple):
    """One cycle as it was reported.

    Attributes:
        cycle: its number.
        features: int16 [block rows, block cols, channels], -1 where no report came or nothing was pooled.
        readings_ccel: int16 [rows, cols], 0 where none was reported.
        has_reading: bool [rows, cols], a reading was reported.
        pooled: bool [rows, cols], the unit took part and its absence bytes are known.
        absence: uint8 [exchanges, rows, cols].
        no_reading: bool [rows, cols], said so, or known to be absent before the cycle opened.
        late: values that should have taken part and did not: units not pooled, and neighbours' values replaced although
            the neighbour has a reading.
        carried: bool [block rows, block cols], the feature was reported in an earlier cycle, and nothing since.
        proofs: mode event: uint8 [rows, cols], the state that each node proved, STATE_NONE without a reading, UNPROVEN
            or OFFLINE. `pooled` are then those that said their state in this cycle. None in the other modes.
    """

    cycle: int
    features: NDArray[np.int16]
    readings_ccel: NDArray[np.int16]
    has_reading: NDArray[np.bool_]
    pooled: NDArray[np.bool_]
    absence: NDArray[np.uint8]
    no_reading: NDArray[np.bool_]
    late: int
    carried: NDArray[np.bool_]
    proofs: NDArray[np.uint8] | None = None


class Presence:
    """Who was heard lately; lives from cycle to cycle.

    Attributes:
        offline: bool [rows, cols], cells known to have lost their connection.
    """

    def __init__(self, site: Site):
        """Every cell counts as heard just now, and as connected."""
        self._mask = site.mask
        self.offline = np.zeros(self._mask.shape, np.bool_)
        self._silent = np.zeros(self._mask.shape, np.int64)

    @property
    def gone(self) -> NDArray[np.bool_]:
        """Cells that are not counted on any more, bool [rows, cols]."""
        return self._mask & (self._silent >= GONE_CYCLES)

    def heard(self, cells: list[Cell]) -> None:
        """Count on these cells again: something came from them outside their cycle."""
        for cell in cells:
            self._silent[cell] = 0

    def close_cycle(self, accounted: NDArray[np.bool_]) -> None:
        """Take in who was accounted for in a cycle that is over."""
        self._silent = np.where(accounted, 0, self._silent + 1)


class Assembly:
    """One cycle while its reports come in.

    Attributes:
        cycle: its number.
        doubles: reports that said nothing new.
        misfits: reports that do not fit the site or the model.
    """

    def __init__(self, site: Site, cycle: int, channels: int, exchanges: int, absent: NDArray[np.bool_]):
        """Empty; sized by the site and the filters in force.

        `absent`: bool [rows, cols], cells known to be gone or offline when the cycle opened.
        """
        self.cycle = cycle
        self._absent = absent
        self.doubles = self.misfits = 0
        shape = site.mask.shape
        self._site = site
        self._channels = channels
        self._exchanges = exchanges
        self._features = np.full((*site.block_shape, channels), NOTHING, np.int16)
        self._readings_ccel = np.zeros(shape, np.int16)
        self._has_reading = np.zeros(shape, np.bool_)
        self._pooled = np.zeros(shape, np.bool_)
        self._no_reading = np.zeros(shape, np.bool_)
        self._absence = np.zeros((exchanges, *shape), np.uint8)
        self._left_out = np.zeros(site.block_shape, np.bool_)
        self._owners = np.zeros(shape, np.bool_)

    @property
    def accounted(self) -> NDArray[np.bool_]:
        """Cells that a report spoke of, bool [rows, cols]."""
        return self._pooled | self._no_reading

    @property
    def settled_blocks(self) -> NDArray[np.bool_]:
        """Blocks all of whose reports are taken, for there can be no other: bool [blocks].

        Who is pooled by another node handed over to it and made no report; of all others one has to be there.
        """
        spoken_of = blocks_with(self.accounted, self._site) & ~self._left_out
        return spoken_of & ~blocks_with(self._site.mask & ~self._pooled & ~self._owners, self._site)

    def leave_out(self, owner: Cell) -> None:
        """A report of this cycle is not taken, so its block is not settled, whoever else reports of it."""
        self._left_out[block_of(owner)] = True

    def take(self, owner: Cell, report: Report) -> bool:
        """Merge a report; False where it says nothing new or does not fit, which is counted."""
        members = dict(enumerate(members_of(owner)))
        pooled = [corner for corner in members if report.pooled >> corner & 1]
        silent = [corner for corner in members if report.no_reading >> corner & 1]
        if not self.fits(owner, report):
            self.misfits += 1
            self.leave_out(owner)
            return False
        accounted = self.accounted
        if all(accounted[members[corner]] for corner in pooled + silent):
            self.doubles += 1
            return False
        self._owners[owner] = True
        for corner in silent:
            self._no_reading[members[corner]] = True
        for corner in pooled:
            self._take_unit(members[corner], report.absence[corner], report.readings[corner])
        if pooled:
            block = block_of(owner)
            self._features[block] = np.maximum(self._features[block], list(report.features))
        return True

    def fits(self, owner: Cell, report: Report) -> bool:
        """Whether a report has the form that filters and site give it."""
        members = enumerate(members_of(owner))
        named = [member for corner, member in members if (report.pooled | report.no_reading) >> corner & 1]
        right_size = report.exchanges == self._exchanges and len(report.features) in (0, self._channels)
        return right_size and all(self._is_cell(member) for member in named)

    def is_complete(self, awaited: NDArray[np.bool_]) -> bool:
        """Whether every cell worth waiting for is accounted for."""
        return not (awaited & ~self.accounted).any()

    def close(self, presence: Presence) -> Record:
        """What the cycle came to; presence learns from it."""
        presence.close_cycle(self.accounted)
        return self.record()

    def record(self) -> Record:
        """What the reports so far come to."""
        gone = self._absent & ~self.accounted
        no_reading = self._no_reading & ~self._pooled | gone
        due = self._site.mask & ~no_reading
        late = int((due & ~self._pooled).sum()) + self._replaced(due)
        return Record(
            self.cycle,
            self._features,
            self._readings_ccel,
            self._has_reading,
            self._pooled,
            self._absence,
            no_reading,
            late,
            np.zeros(self._site.block_shape, np.bool_),
        )

    def _is_cell(self, cell: Cell) -> bool:
        return cell[0] < self._site.rows and cell[1] < self._site.cols and bool(self._site.mask[cell])

    def _take_unit(self, cell: Cell, absence: tuple[int, ...], reading_ccel: int | None) -> None:
        self._pooled[cell] = True
        self._absence[:, cell[0], cell[1]] = absence
        if reading_ccel is not None:
            self._has_reading[cell] = True
            self._readings_ccel[cell] = reading_ccel

    def _replaced(self, due: NDArray[np.bool_]) -> int:
        """How many values of neighbours that were due had to be replaced by a unit's own."""
        replaced = self._absence[:, self._pooled] & neighbours_where(due)[self._pooled]
        return int(np.bitwise_count(replaced).sum())


def members_of(owner: Cell) -> list[Cell]:
    """The four places of a node's block, by corner; not all of them need to hold a node."""
    top, left = owner[0] // BLOCK_SIDE * BLOCK_SIDE, owner[1] // BLOCK_SIDE * BLOCK_SIDE
    return [(top + corner // 2, left + corner % 2) for corner in range(CORNERS)]


def blocks_with(cells: NDArray[np.bool_], site: Site) -> NDArray[np.bool_]:
    """Blocks in which a condition holds for some cell."""
    blocks = np.zeros(site.block_shape, np.bool_)
    places = np.argwhere(cells) // BLOCK_SIDE
    blocks[places[:, 0], places[:, 1]] = True
    return blocks
