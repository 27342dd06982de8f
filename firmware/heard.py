"""What a node in mode change knows of its neighbours: what each of them said last.

It stays known from cycle to cycle, activations and what was handed over while the filters stay the same, until a later
word takes its place or nobody said it again for GONE cycles. Frames may come late and overtake each other, so each
carries its age: how many cycles ago it was sent. Who says that it has no reading is known to have none; all it said
before is forgotten. All of it lies in buffers that are as old as the filters: what lasts and comes while code is loaded
for a call would leave holes in the heap.
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
        self._ages = bytearray(grid.SLOTS)  # of words, then by exchange of activations, then by corner of `members`
        self._members = bytearray()  # by corner the absence bytes and activations that it handed over
        self._handed = 0  # corners that did

    @rare
    def use_filters(self, filters) -> None:
        """Words stay; all else is of other filters, and will be said anew by everybody."""
        around = self.around
        around.use([filters.inputs[k] for k in filters.exchanges])
        around.other_version = 0
        around.arrived[0] = self._slots & ~around.no_reading
        for slot in range(grid.SLOTS):
            around.inputs[0][grid.tap_of(slot)] = centred(self._words_ccel[slot], filters.reference_ccel)
        exchanges = len(filters.exchanges)
        self._ages = self._ages[: grid.SLOTS] + bytes(grid.SLOTS * (exchanges - 1) + grid.CORNERS)
        self._members = bytearray(grid.CORNERS * (exchanges + len(filters.values[-1])))
        self._handed = 0

    @cold
    def grow_old(self) -> None:
        """A cycle begins: what nobody said again for too long is not known any more."""
        ages, arrived = self._ages, self.around.arrived
        for at in range(len(ages)):
            if ages[at] < GONE:
                ages[at] += 1
            if ages[at] == GONE:
                exchange, bit = at // grid.SLOTS, 1 << at % grid.SLOTS
                if exchange == len(arrived):
                    self._handed &= ~bit
                elif exchange:
                    arrived[exchange] &= ~bit
                else:
                    self._slots &= ~bit
                    self._forget(at)

    @rare
    def take_word(self, slot: int, data, age: int, reference_ccel: int) -> bool:
        """Take in a READING or NO_READING; False where a later one is known."""
        bit = 1 << slot
        if self._slots & bit and age > self._ages[slot]:
            return False
        self._slots |= bit
        self._ages[slot] = age
        if len(data) == frame.HEADER_SIZE:
            self._forget(slot)
            self.around.no_reading |= bit
        else:
            self._words_ccel[slot] = frame.i16(data, frame.HEADER_SIZE)
            self._put(0, slot, (centred(self._words_ccel[slot], reference_ccel),), 0, 1)
        return True

    @rare
    def take_activations(self, slot: int, data, age: int) -> bool:
        """Take in those of a neighbour with the same filters; False where they are too old, None if none fit."""
        around, exchange = self.around, data[frame.HEADER_SIZE]
        channels = len(data) - frame.HEADER_SIZE - 1
        if not 0 < exchange < len(around.inputs) or channels * grid.TAPS != len(around.inputs[exchange]):
            return None
        at = exchange * grid.SLOTS + slot
        if (around.arrived[exchange] >> slot & 1 and age > self._ages[at]) or self._came_before_loss(slot, age):
            return False
        self._ages[at] = age
        self._put(exchange, slot, data, frame.HEADER_SIZE + 1, channels)
        return True

    @rare
    def take_member(self, slot: int, data, age: int, filters) -> bool:
        """Take in what a block-mate with the same filters hands over; everybody may turn out to be the owner.

        False where it is too old, None if it does not fit.
        """
        if slot not in self._corner_slots:
            return True
        if not member_fits(data, len(filters.values[-1]), len(filters.exchanges)):
            return None
        corner, exchanges = self._corner_slots.index(slot), len(filters.exchanges)
        at = grid.SLOTS * exchanges + corner
        if (self._handed >> corner & 1 and age > self._ages[at]) or self._came_before_loss(slot, age):
            return False
        self._ages[at] = age
        self._handed |= 1 << corner
        size = exchanges + len(filters.values[-1])
        has_absence = data[frame.HEADER_SIZE] & frame.HAS_ABSENCE
        for k in range(size):
            at = frame.HEADER_SIZE + 1 + k if k < exchanges else frame.member_activations(data) + k - exchanges
            self._members[corner * size + k] = data[at] if has_absence or k >= exchanges else 0
        return True

    @cold
    def is_owner(self) -> bool:
        """Whether no block-mate before this node was heard of, with the same filters."""
        heard = self._slots & ~self.around.other_version
        return all(not (slot >= 0 and heard >> slot & 1) for slot in self._corner_slots[: self._corner])

    @cold
    def gather(self, filters, has_reading: bool) -> Block:
        """The block as its members handed it over last, with the own values of this cycle; None if it is another's."""
        if not self.is_owner():
            return None
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
            elif self._handed >> corner & 1:
                at = len(self._members) // grid.CORNERS * corner
                behind = at + block.exchanges
                block.put(corner, self._members[behind:], self._members[at:behind], None)
        return block

    @cold
    def _came_before_loss(self, slot: int, age: int) -> bool:
        """Whether a neighbour said later that it has no reading."""
        return self.around.no_reading >> slot & 1 and age >= self._ages[slot]

    @cold
    def _put(self, exchange: int, slot: int, values, at: int, channels: int) -> None:
        """Store what a neighbour said in place of what it said before; who says values has a reading."""
        self.around.arrived[exchange] &= ~(1 << slot)
        self.around.no_reading &= ~(1 << slot)
        self.around.put(exchange, slot, values, at, channels)

    @cold
    def _forget(self, slot: int) -> None:
        """A neighbour's values are not known any more, nor that it has none."""
        around = self.around
        around.no_reading &= ~(1 << slot)
        for exchange in range(len(around.arrived)):
            around.arrived[exchange] &= ~(1 << slot)
        if slot in self._corner_slots:
            self._handed &= ~(1 << self._corner_slots.index(slot))
