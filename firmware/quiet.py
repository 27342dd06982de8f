"""What a node knows of its neighbourhood from cycle to cycle, and whether it has to speak.

The *view* is what everybody broadcast last, the node itself included; firmware/zone.py says from it how far the own
reading may move in silence. Rules, which hold in every order of messages:

- A reading outside the zone is broadcast, and so is the loss of a reading and its return.
- Once in HEARTBEAT cycles the last word is said again: so a neighbour that says nothing for longer is gone, and all who
  heard its last word give it up in the same cycle.
- Whoever may not know the others' last words, as after a reset, asks for them (a refresh).
"""

from array import array

from firmware.zone import ABNORMAL, DOWN, RESULTS, UP, limits
from protocol.compat import cold, const
from protocol.grid import CENTRE, TAPS

# Cycles; with one of 10 s a node that died is noticed within 8 minutes.
HEARTBEAT = const(48)
# Behind the last word; the one that a living node says at the latest had the whole cycle before to arrive.
GONE = const(48 + 1)
_OWN = const(1 << 4)
NOBODY = const(255)


def turn_of(row: int, col: int) -> int:
    """By how many cycles the turns of a node come before those of (0, 0); neighbours have other heartbeats."""
    return row * 7 + col * 19


def heartbeat_due(row: int, col: int, cycle: int) -> bool:
    """Whether a node says its last word again in this cycle, changed or not."""
    return (cycle + turn_of(row, col)) % HEARTBEAT == 0


class Quiet:
    """The view of one node.

    Attributes:
        view: uint16 [9], last words as the first layer stores readings, taps NW..SE, the own one at C.
        there: bits of the taps whose last word was a reading.
        known: bits of the taps whose last word was heard at all; the own one counts once it was said.
        silent: for how many cycles each tap's node said nothing, NOBODY for longer than anybody counts.
    """

    @cold
    def __init__(self):
        """Nobody is known, not even what the node itself said last."""
        self.view = array("H", bytes(2 * TAPS))
        self.there = self.known = 0
        self.silent = bytearray([NOBODY] * TAPS)
        self._results = array("H", bytes(2 * RESULTS))
        self._weights = self._bias = b""

    def use(self, weights, bias) -> None:
        """Work with other filters from now on: uint8 [filters * 9] weight + 2^7, uint32 [filters] bias + 2^29."""
        self._weights, self._bias = weights, bias

    @cold
    def start_cycle(self) -> None:
        """A cycle begins: those who said nothing for too long are gone."""
        for tap in range(TAPS):
            if self.silent[tap] < NOBODY:
                self.silent[tap] += 1
                if self.silent[tap] >= GONE and tap != CENTRE:
                    self.forget(tap)

    def hear(self, tap: int, value: int) -> None:
        """Take in the last word of a node, the own one at CENTRE: a stored reading, or -1 for none."""
        bit = 1 << tap
        self.silent[tap] = 0
        self.known |= bit
        if value < 0:
            self.there &= ~bit
        else:
            self.there |= bit
            self.view[tap] = value

    def forget(self, tap: int) -> None:
        """What a node said last is not known any more."""
        self.known &= ~(1 << tap)
        self.there &= ~(1 << tap)

    def has_to_speak(self, value: int) -> bool:
        """Whether a reading, stored, or -1 for none, has to be said: the last word does not cover it."""
        if not self.known & _OWN or (value >= 0) != bool(self.there & _OWN):
            return True
        if value < 0:
            return False
        self._work_out()
        moved = value - self.view[CENTRE]
        return moved > self._results[UP] or -moved > self._results[DOWN]

    def abnormal(self) -> int:
        """Which of the node's windows are abnormal by the view, bits in the order of zone.WINDOWS; 0 without a reading.

        Bit 0 is the node's state: that of the window whose corner it is.
        """
        if not self.there & _OWN:
            return 0
        self._work_out()
        return self._results[ABNORMAL]

    def differs(self, value: int) -> bool:
        """Whether somebody took the own last word for another one: a stored reading, or -1 for none."""
        if not self.known & _OWN:
            return False
        own = self.view[CENTRE] if self.there & _OWN else -1
        return own != value

    def _work_out(self) -> None:
        limits(self._results, self.view, self.there, self._weights, self._bias)
