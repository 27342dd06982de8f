"""Cycles of mode change: blocks are reported when something in them changed, and carried on where nothing was said.

A cycle's features, masks and absence bytes are those of each block's last report in this run, as long as whoever made
it is not known to be lost. Silence is no absence, so a cycle ends when its time is over, or, where the beacon asked
every node for a proof, when all of them came. A proof is the node's own last word: with all of them the view is known,
and every feature can be recomputed from it, carried or not.
"""

import numpy as np
from numpy.typing import NDArray

from gateway.cycles import Assembly, Presence, Record, blocks_with
from gateway.model import Filters
from gateway.site import Cell, Site, block_of
from protocol.frame import STATE_NONE
from protocol.report import Report

# A reading that differs by more from the node's last word is said: 0.25 degrees (docs/change.md).
THRESHOLD_CCEL = 25


class Reports:
    """The last report of each block, by one owner or more; lives from cycle to cycle, as long as filters stay the same.

    Attributes:
        version: of the filters.
    """

    def __init__(self, version: int):
        """Nothing was reported yet."""
        self.version = version
        self._latest: dict[Cell, tuple[int, dict[Cell, Report]]] = {}

    def take(self, owner: Cell, cycle: int, report: Report) -> bool:
        """Note a report made in a cycle; False where its block has a later one."""
        latest, reports = self._latest.get(block_of(owner), (-1, {}))
        if cycle < latest:
            return False
        if cycle > latest:  # in one and the same cycle two may own a block, and both count
            reports = {}
        self._latest[block_of(owner)] = cycle, reports | {owner: report}
        return True

    def by_owner(self) -> list[tuple[Cell, Report]]:
        """Every report that stands."""
        return [pair for _, reports in self._latest.values() for pair in reports.items()]


class ChangeAssembly(Assembly):
    """One cycle of mode change while it is open; what the base class holds is what was said in this very cycle."""

    def __init__(
        self, site: Site, cycle: int, filters: Filters, absent: NDArray[np.bool_], reports: Reports, wants_proof: bool
    ):
        """`absent`: bool [rows, cols], cells known to be offline when the cycle opened."""
        self._sizes = filters.layers[-1].channels_out, filters.exchanges
        super().__init__(site, cycle, *self._sizes, absent)
        self._reports, self._wants_proof = reports, wants_proof
        self._proven = np.zeros(site.mask.shape, np.bool_)
        self._view_ccel = np.zeros(site.mask.shape, np.int16)
        self._present = np.zeros(site.mask.shape, np.bool_)

    @property
    def settled_blocks(self) -> NDArray[np.bool_]:
        """Blocks of which all that was said in this cycle is taken: bool [blocks]."""
        return blocks_with(self.accounted, self._site) & ~self._left_out

    def take(self, owner: Cell, report: Report) -> bool:
        """Take in a report of this cycle."""
        taken = super().take(owner, report)
        if taken:
            self._reports.take(owner, self.cycle, report)
        return taken

    def take_late(self, owner: Cell, cycle: int, version: int, report: Report) -> None:
        """Take in a report of another cycle, with the low half of its filters' version: it stands until a later one."""
        if version == self._reports.version & 0xFFFF and self.fits(owner, report):
            self._reports.take(owner, cycle, report)

    def take_proof(self, cell: Cell, state: int, word_ccel: int) -> None:
        """A node said its last word, because it was asked."""
        self._proven[cell], self._present[cell] = True, state != STATE_NONE
        self._view_ccel[cell] = word_ccel if state != STATE_NONE else 0

    def is_complete(self, awaited: NDArray[np.bool_]) -> bool:
        """Whether there is nothing left to wait for: silence never tells."""
        return self._wants_proof and not (awaited & ~self._proven).any()

    def close(self, presence: Presence) -> Record:
        """What the cycle came to, with what is carried; readings are the proven last words."""
        presence.close_cycle(self._site.mask)
        whole = Assembly(self._site, self.cycle, *self._sizes, self._absent)
        for owner, report in self._reports.by_owner():
            if not self._absent[owner]:
                whole.take(owner, report)
        carried = blocks_with(whole.accounted, self._site) & ~blocks_with(self.accounted, self._site)
        return whole.record()._replace(readings_ccel=self._view_ccel, has_reading=self._present, carried=carried)
