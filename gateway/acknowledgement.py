"""What nodes are told of their reports: the bits of the next beacon, each for a block, and words to single nodes.

A bit speaks to every node that owned its block in the cycle. So it is set only where no other report of the block can
be on its way, and all others that are kept are told by name.
"""

import numpy as np

from gateway.carried import EventAssembly
from gateway.cycles import Assembly
from gateway.received import Arrivals, Received
from gateway.site import Cell, Site, block_of


class Acknowledgement:
    """What is acknowledged of the cycle decided last, and of all that came late.

    Attributes:
        cycle: the one that the bits speak of.
    """

    def __init__(self, site: Site):
        """Nothing is acknowledged."""
        self.cycle = 0
        self._blocks = np.zeros(site.block_shape, np.bool_)
        self._accounted = np.zeros(site.mask.shape, np.bool_)
        self._starts: set[tuple[Cell, int]] = set()

    def close(self, assembly: Assembly | EventAssembly) -> None:
        """A cycle ends: its settled blocks are acknowledged, unless something turns up."""
        self.cycle, self._blocks, self._accounted = assembly.cycle, assembly.settled_blocks, assembly.accounted

    def settle(self, arrivals: Arrivals, received: Received) -> None:
        """What came by the end of the cycle is kept, as `received` knows by now."""
        for cell in received.lacking():  # one of the very same cycle, perhaps, though another node pooled it since
            self._blocks[block_of(cell)] = False
        self._starts.update(late.key[:2] for late in arrivals.late)
        self._starts.update(key[:2] for key in arrivals.in_cycle if not self._blocks[block_of(key.cell)])

    def drop(self) -> None:
        """Nothing of the cycle is kept."""
        self._blocks = np.zeros_like(self._blocks)

    def on_late_report(self, cell: Cell, cycle: int) -> None:
        """A report is not kept yet: no bit may be taken for its acknowledgement."""
        if cycle == self.cycle:
            self._blocks[block_of(cell)] = False

    def on_late_state(self, cell: Cell, cycle: int) -> None:
        """A state is not kept yet, unless the same one was there in time."""
        if cycle == self.cycle and not self._accounted[cell]:
            self._blocks[block_of(cell)] = False

    def tell(self, cell: Cell, boot: int) -> None:
        """A node is told what of its start is kept, whatever the bits say."""
        self._starts.add((cell, boot))

    def words(self, received: Received) -> list[tuple[Cell, bytes]]:
        """What single nodes are told before the next beacon, once."""
        starts, self._starts = self._starts, set()
        words = [(cell, received.acknowledgement(cell, boot)) for cell, boot in sorted(starts)]
        return [(cell, data) for cell, data in words if data]

    def bitmap(self) -> bytes:
        """The bits as a beacon carries them."""
        return np.packbits(self._blocks, bitorder="little").tobytes()
