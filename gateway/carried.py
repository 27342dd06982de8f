"""Cycles of mode event: nodes say their state when it changes, and what nobody spoke of is carried on.

Silence is no absence here: a node counts as there until its connection is known to be lost. A cycle ends when its time
is over, or, where the beacon asked every node for a proof, when all of them came. A proof is the node's own state and
reading: it costs what mode event saves, and is asked for by whoever wants to see that nothing was lost by silence.
"""

import numpy as np
from numpy.typing import NDArray

from gateway import twin
from gateway.cycles import OFFLINE, UNPROVEN, Presence, Record, blocks_with
from gateway.site import Cell, Site, block_of
from protocol.frame import STATE_NONE

UNKNOWN = 255


class States:
    """The state that each node said last; lives from cycle to cycle.

    Attributes:
        latest: uint8 [rows, cols]: 0, 1, STATE_NONE, or UNKNOWN where nothing was said in this run.
    """

    def __init__(self, site: Site):
        """Nothing was said yet."""
        self.latest = np.full(site.mask.shape, UNKNOWN, np.uint8)
        self._cycles = np.full(site.mask.shape, -1, np.int64)
        self._mask = site.mask

    def take(self, cell: Cell, cycle: int, state: int) -> bool:
        """Note a state said in a cycle; False where a later one is known."""
        if cycle < self._cycles[cell]:
            return False
        self._cycles[cell], self.latest[cell] = cycle, state
        return True

    def features(self, absent: NDArray[np.bool_]) -> NDArray[np.int16]:
        """Per block whether any node that is there is abnormal: int16 [block rows, block cols, 1], -1 unknown."""
        known = self._mask & ~absent & (self.latest < STATE_NONE)
        return twin.pool(self.latest[..., np.newaxis], known)


class EventAssembly:
    """One cycle of mode event while it is open.

    Attributes:
        cycle: its number.
        doubles, misfits: as in gateway.cycles.Assembly; here always 0.
        accounted: bool [rows, cols], nodes that said their state in this cycle.
    """

    def __init__(self, site: Site, cycle: int, states: States, absent: NDArray[np.bool_], wants_proof: bool):
        """`absent`: bool [rows, cols], cells known to be offline when the cycle opened."""
        self.cycle = cycle
        self.doubles = self.misfits = 0
        shape = site.mask.shape
        self.accounted = np.zeros(shape, np.bool_)
        self._site, self._states, self._absent, self._wants_proof = site, states, absent, wants_proof
        self._left_out = np.zeros(site.block_shape, np.bool_)
        self._proofs = np.full(shape, UNPROVEN, np.uint8)
        self._readings_ccel = np.zeros(shape, np.int16)

    @property
    def settled_blocks(self) -> NDArray[np.bool_]:
        """Blocks of which all that was said in this cycle is taken: bool [blocks]."""
        return blocks_with(self.accounted, self._site) & ~self._left_out

    def leave_out(self, cell: Cell) -> None:
        """What a node said in this cycle is not taken, so its block is not settled."""
        self._left_out[block_of(cell)] = True

    def take_state(self, cell: Cell, state: int) -> None:
        """A node said its state in this cycle."""
        if self._states.take(cell, self.cycle, state):
            self.accounted[cell] = True

    def take_proof(self, cell: Cell, state: int, reading_ccel: int) -> None:
        """A node said what it knows, because it was asked."""
        self._proofs[cell], self._readings_ccel[cell] = state, reading_ccel

    def is_complete(self, awaited: NDArray[np.bool_]) -> bool:
        """Whether there is nothing left to wait for: silence never tells."""
        return self._wants_proof and not (awaited & (self._proofs == UNPROVEN)).any()

    def close(self, presence: Presence) -> Record:
        """What the cycle came to; a block of which no node is `pooled` carries its feature from an earlier one."""
        offline = self._absent & ~self.accounted & (self._proofs == UNPROVEN)
        latest, there = self._states.latest, self._site.mask & ~offline
        features, pooled = self._states.features(offline), self.accounted & (latest < STATE_NONE)
        presence.close_cycle(self._site.mask)
        return Record(
            self.cycle,
            features,
            self._readings_ccel,
            self._proofs < STATE_NONE,
            pooled,
            np.zeros((1, *self._site.mask.shape), np.uint8),
            there & (latest == STATE_NONE) | self._site.mask & offline,
            int((there & (latest == UNKNOWN)).sum()),
            (features[..., 0] != twin.NOTHING) & ~blocks_with(pooled, self._site),
            np.where(offline, np.uint8(OFFLINE), self._proofs),
        )
