"""The halo: what the eight neighbours said this cycle, and whom it is worth waiting for.

Rules: a neighbour unheard for two cycles is not waited for. What has not come when a unit is computed is replaced by
the node's own value of that layer, and its bit is set in that exchange's absence byte. Nothing outlives the cycle but
the count of silent cycles.
"""

from protocol import grid
from protocol.compat import cold, const

# A neighbour's frame opens a cycle at most so far ahead: further off only a beacon is believed.
AHEAD_MAX = const(3)
# Counted at cycle start: 1 = heard in the cycle before, 3 = unheard for two whole cycles.
WAITED_FOR = const(2)
RECENT = const(1)


class Neighbours:
    """The neighbourhood of one node over one cycle.

    Attributes:
        exists: slots that hold a node of the site, a mask.
        no_reading: slots that said so this cycle.
        other_version: slots whose latest frame carried another filter version than ours; kept from cycle to cycle.
        inputs: per exchange the stored inputs of its layer, uint16 [channels * 9].
        arrived: per exchange the slots whose values lie in `inputs`.
        absence: per exchange the slots that had to be replaced, once its unit is computed.
    """

    @cold
    def __init__(self, exists: int):
        """`exists`: slots that hold a node, a mask."""
        self.exists = exists
        self._silent = bytearray(grid.SLOTS)  # everybody counts as heard just before the first cycle
        self.no_reading = self.other_version = 0

    @cold
    def use(self, inputs) -> None:
        """Store from now on into these buffers, one per exchange, from which its layer computes."""
        self.inputs = inputs
        self.arrived = bytearray(len(inputs))
        self.absence = bytearray(len(inputs))

    @cold
    def start_cycle(self) -> None:
        """Forget the values of the last cycle."""
        for slot in range(grid.SLOTS):
            if self._silent[slot] < 255:
                self._silent[slot] += 1
        for exchange in range(len(self.arrived)):
            self.arrived[exchange] = self.absence[exchange] = 0
        self.no_reading = 0

    def hear(self, slot: int, same_version: bool) -> None:
        """Note that a neighbour lives."""
        self._silent[slot] = 0
        self.other_version &= ~(1 << slot)
        if not same_version:
            self.other_version |= 1 << slot

    def deny(self, slot: int) -> bool:
        """Note that a neighbour has no reading; False if it spoke of its reading before."""
        bit = 1 << slot
        if (self.no_reading | self.arrived[0]) & bit:
            return False
        self.no_reading |= bit
        return True

    def put(self, exchange: int, slot: int, values, at: int, channels: int) -> bool:
        """Store a neighbour's values, one per channel from `values[at]`; False if it spoke of them before."""
        bit = 1 << slot
        if (self.arrived[exchange] | self.no_reading) & bit:
            return False
        inputs = self.inputs[exchange]
        tap = grid.tap_of(slot)
        for channel in range(channels):
            inputs[channel * grid.TAPS + tap] = values[at + channel]
        self.arrived[exchange] |= bit
        return True

    def within(self, cycles: int) -> int:
        """Slots heard this cycle or in the `cycles` before it, a mask."""
        mask = 0
        for slot in range(grid.SLOTS):
            if self.exists >> slot & 1 and self._silent[slot] <= cycles:
                mask |= 1 << slot
        return mask

    def awaited(self, exchange: int) -> int:
        """Slots whose values for an exchange may still come."""
        mask = self.within(WAITED_FOR) & ~self.no_reading & ~self.arrived[exchange]
        return mask & ~self.other_version if exchange else mask

    @cold
    def fill(self, exchange: int, own) -> None:
        """Put the node's own values, one per channel, at the centre and wherever a neighbour's are missing."""
        arrived = self.arrived[exchange]
        inputs = self.inputs[exchange]
        for channel in range(len(inputs) // grid.TAPS):
            at = channel * grid.TAPS
            inputs[at + grid.CENTRE] = own[channel]
            for slot in range(grid.SLOTS):
                if not arrived >> slot & 1:
                    inputs[at + grid.tap_of(slot)] = own[channel]
        self.absence[exchange] = self.exists & ~arrived
