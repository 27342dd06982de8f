"""What a node in mode change knows of its neighbours: what each of them said last.

It stays known from cycle to cycle, activations and what was handed over while the filters stay the same, until a later
word takes its place or nobody said it again for GONE cycles. Frames may come late and overtake each other, so each
carries its age: how many cycles ago it was sent. Who says that it has no reading is known to have none; all it said
before is forgotten.
"""

from array import array

from firmware.neighbours import Neighbours
from firmware.pool import Block, member_fits
from firmware.quiet import GONE
from protocol import frame, grid
from protocol.compat import cold, rare
from protocol.fixed import centred


class Heard:
    """The last words of one node's neighbours.

    Attributes:
        around: what units are computed from; its `arrived` and `no_reading` stay from cycle to cycle.
    """

    @cold
    def __init__(self, row: int, col: int, exists: int):
        """Nobody is known yet."""
        self.around = Neighbours(exists)
        self._corner = grid.corner_of(row, col)
        self._corner_slots = grid.corner_slots(row, col)
        self._slots = 0  # those whose last word is known
        self._words_ccel = array("h", bytes(2 * grid.SLOTS))  # for filters with another reference
        self._ages = bytearray(grid.SLOTS)  # of words, behind them exchange by exchange those of activations
        self._members = []  # by corner its last MEMBER frame

    @rare
    def use_filters(self, filters) -> None:
        """Words stay; all else is of other filters, and will be said anew by everybody."""
        around = self.around
        around.use([filters.inputs[k] for k in filters.exchanges])
        around.other_version = 0
        around.arrived[0] = self._slots & ~around.no_reading
        for slot in range(grid.SLOTS):
            around.inputs[0][grid.tap_of(slot)] = centred(self._words_ccel[slot], filters.reference_ccel)
        self._ages = self._ages[: grid.SLOTS] + bytes(grid.SLOTS * (len(filters.exchanges) - 1))
        self._members = [b""] * grid.CORNERS

    @cold
    def grow_old(self) -> None:
        """A cycle begins: what nobody said again for too long is not known any more."""
        ages = self._ages
        for at in range(len(ages)):
            if ages[at] < GONE:
                ages[at] += 1
            if ages[at] == GONE:
                slot = at % grid.SLOTS
                if at == slot:
                    self._slots &= ~(1 << slot)
                    self._forget(slot)
                else:
                    self.around.arrived[at // grid.SLOTS] &= ~(1 << slot)

    @rare
    def take_in(self, kind: int, slot: int, data, age: int, filters) -> bool:
        """Take in a frame with the same filters, or a word; False where it is too old, None if it does not fit them."""
        if kind == frame.READING or kind == frame.NO_READING:
            return self._take_word(kind, slot, data, age, filters)
        if self.around.no_reading >> slot & 1 and age >= self._ages[slot]:
            return False
        if kind == frame.ACTIVATIONS:
            return self._take_activations(slot, data, age)
        if slot not in self._corner_slots:
            return True
        if not member_fits(data, len(filters.values[-1]), len(filters.exchanges)):
            return None
        return self._take_member(self._corner_slots.index(slot), data)

    @cold
    def is_owner(self) -> bool:
        """Whether no block-mate before this node was heard of, with the same filters."""
        heard = self._slots & ~self.around.other_version
        return all(not (slot >= 0 and heard >> slot & 1) for slot in self._corner_slots[: self._corner])

    @cold
    def gather(self, filters, has_reading: bool) -> Block:
        """The block as its members handed it over last, with the node's own values of this cycle."""
        around = self.around
        block = Block(len(filters.values[-1]), len(filters.exchanges))
        if has_reading:
            block.put(self._corner, filters.values[-1], around.absence, None)
        else:
            block.no_reading |= 1 << self._corner
        for corner in range(grid.CORNERS):
            slot = self._corner_slots[corner]
            if slot >= 0 and around.no_reading >> slot & 1:
                block.no_reading |= 1 << corner
            elif self._members[corner]:
                block.put_frame(corner, self._members[corner])
        return block

    @cold
    def _take_word(self, kind: int, slot: int, data, age: int, filters) -> bool:
        around, bit = self.around, 1 << slot
        if self._slots & bit and age > self._ages[slot]:
            return False
        self._slots |= bit
        self._ages[slot] = age
        if kind == frame.NO_READING:
            self._forget(slot)
            around.no_reading |= bit
        else:
            self._words_ccel[slot] = frame.i16(data, frame.HEADER_SIZE)
            self._put(0, slot, (centred(self._words_ccel[slot], filters.reference_ccel),), 0, 1)
        return True

    @cold
    def _take_activations(self, slot: int, data, age: int) -> bool:
        around, exchange = self.around, data[frame.HEADER_SIZE]
        channels = len(data) - frame.HEADER_SIZE - 1
        if not 0 < exchange < len(around.inputs) or channels * grid.TAPS != len(around.inputs[exchange]):
            return None
        at = exchange * grid.SLOTS + slot
        if around.arrived[exchange] >> slot & 1 and age > self._ages[at]:
            return False
        self._ages[at] = age
        self._put(exchange, slot, data, frame.HEADER_SIZE + 1, channels)
        return True

    @cold
    def _put(self, exchange: int, slot: int, values, at: int, channels: int) -> None:
        """Store what a neighbour said in place of what it said before; who says values has a reading."""
        self.around.arrived[exchange] &= ~(1 << slot)
        self.around.no_reading &= ~(1 << slot)
        self.around.put(exchange, slot, values, at, channels)

    @cold
    def _take_member(self, corner: int, data) -> bool:
        """What a block-mate hands over; everybody keeps it, for anybody may turn out to be the owner."""
        known = self._members[corner]
        if known and frame.run_of(known) == frame.run_of(data) and frame.u16(data, 4) - frame.u16(known, 4) & 0x8000:
            return False
        self._members[corner] = bytes(data)
        return True

    @cold
    def _forget(self, slot: int) -> None:
        """A neighbour's values are not known any more, nor that it has none."""
        around = self.around
        around.no_reading &= ~(1 << slot)
        for exchange in range(len(around.arrived)):
            around.arrived[exchange] &= ~(1 << slot)
        if slot in self._corner_slots:
            self._members[self._corner_slots.index(slot)] = b""
