"""Mode event: a node of a layer with sign is silent until its reading leaves its zone, or its state changes.

What everybody said last, the view, is kept from cycle to cycle, whatever the cycle in which a word arrives
(firmware/quiet.py); only beacons and the own clock open cycles. In each a node reads, speaks if it has to, goes on
listening, and when the exchange's time is over says its state to the gateway, if that is another one than it said last,
or was not acknowledged. Later words may still change it; then it is said at once.

A word is said again in every HEARTBEAT-th cycle, after a connection was lost, and to a neighbour that asks for it: one
that started, or lost its connection, and does not know what it missed. Only nodes in mode event load this module.
"""

from array import array

from firmware.quiet import Quiet, heartbeat_due
from firmware.stages import COLLECT, DONE, TO_GATEWAY, TO_HALO
from protocol import beacon, frame
from protocol.compat import cold, const, rare
from protocol.filter_set import TRIAL
from protocol.fixed import centred
from protocol.grid import CENTRE, TAPS, tap_of
from protocol.health import STALE

_UNTOLD = const(255)


class Event:
    """What one node knows and does in mode event."""

    def __init__(self, node):
        """Nobody is known yet; neighbours will be asked at the first cycle."""
        self._node = node
        self._quiet = Quiet()
        self._readings = array("h", bytes(2 * TAPS))  # the view in ccel, for filters with another reference
        self._cycles = array("H", bytes(2 * TAPS))  # of the last words, low half
        self._runs = bytearray(TAPS)
        self._run = -1
        self._filters = None
        self._told = _UNTOLD
        self._is_asked = self._is_dirty = False

    @cold
    def begin(self) -> None:
        """A cycle begins, its sensor was read."""
        node = self._node
        if self._filters is not node.wave.active:
            self._change_filters()
        if self._run != node.run:
            self._run = node.run
            self._told = _UNTOLD  # the gateway is another one, or started anew
        self._quiet.start_cycle()
        if node.rejoined:
            node.rejoined = False
            self._told = _UNTOLD
            self._quiet.forget(CENTRE)
            node.send(TO_HALO, node.header(frame.REFRESH))
        self._is_dirty = True

    def feed(self, kind: int, slot: int, data, now_ms: int) -> None:
        """Take in a neighbour's frame."""
        node = self._node
        node.trace.take(kind, len(data))
        if kind != frame.VALUE:
            node.wave.notice(slot, frame.version_of(data), now_ms)
        if kind == frame.REFRESH:
            self._is_asked = True
        elif kind == frame.NO_READING:
            self._take(tap_of(slot), data, None)
        elif kind == frame.READING or kind == frame.VALUE:
            at = frame.HEADER_SIZE if kind == frame.READING else frame.VALUE_READING
            self._take(tap_of(slot), data, frame.i16(data, at))
        else:
            node.trace.fault(STALE)  # of mode always

    def step(self, is_over: bool) -> bool:
        """Say what has to be said; `is_over`: the time for the exchange. False: there is no further step to take."""
        node = self._node
        if self._is_asked:
            self._is_asked = False
            self._repeat()
        if self._is_dirty:
            self._is_dirty = False
            if self._has_to_speak():
                self._speak()
            if node.state == DONE:
                self._tell()
        if is_over and node.state == COLLECT:
            self._close()
        return False

    @rare
    def _change_filters(self) -> None:
        """The same view, seen through other filters."""
        self._filters = self._node.wave.active
        _, weights, bias, _ = self._filters.layers[0]
        self._quiet.use(weights, bias)
        for tap in range(TAPS):
            self._quiet.view[tap] = self._stored(self._readings[tap])
        self._is_dirty = True

    @cold
    def _close(self) -> None:
        """The time for the exchange is over."""
        node = self._node
        node.go(DONE)
        if heartbeat_due(node.row, node.col, node.cycle):
            self._repeat()
        if node.report:
            self._told = _UNTOLD  # not acknowledged
        self._tell()
        if not self._is_current():
            return
        if node.beacon.flags & beacon.WANT_PROOF:
            node.send(TO_GATEWAY, frame.proof(node.header(frame.PROOF), self._state(), node.reading_ccel or 0))
        if node.wave.phase == TRIAL:
            node.wave.completed += 1

    def _take(self, tap: int, data, reading_ccel) -> None:
        """A neighbour's last word, unless a later one is known."""
        run, cycle = frame.run_of(data), frame.u16(data, 4)
        if self._quiet.known >> tap & 1 and run == self._runs[tap] and (cycle - self._cycles[tap]) & 0x8000:
            self._node.trace.fault(STALE)
            return
        self._runs[tap] = run
        self._remember(tap, cycle, reading_ccel)
        self._is_dirty = True

    def _remember(self, tap: int, cycle: int, reading_ccel) -> None:
        self._cycles[tap] = cycle & 0xFFFF
        if reading_ccel is None:
            self._quiet.hear(tap, -1)
        else:
            self._readings[tap] = reading_ccel
            self._quiet.hear(tap, self._stored(reading_ccel))

    def _has_to_speak(self) -> bool:
        """Whether the view does not cover the reading; without the cycle's filters no zone holds."""
        node = self._node
        value = -1 if node.reading_ccel is None else self._stored(node.reading_ccel)
        if self._is_current():
            return self._quiet.has_to_speak(value)
        return not self._quiet.known >> CENTRE & 1 or self._quiet.differs(value)

    @cold
    def _speak(self) -> None:
        """Broadcast the reading, or that there is none."""
        node, reading_ccel = self._node, self._node.reading_ccel
        self._remember(CENTRE, node.cycle, reading_ccel)
        if reading_ccel is None:
            node.send(TO_HALO, node.header(frame.NO_READING))
        else:
            node.send(TO_HALO, frame.value(node.header(frame.VALUE), reading_ccel))

    @cold
    def _repeat(self) -> None:
        """Broadcast the last word again, if there is one; not the reading: the others' views stay as they are.

        What was said in this cycle was heard: whoever asks has been listening since before it began.
        """
        node = self._node
        if not self._quiet.known >> CENTRE & 1 or self._cycles[CENTRE] == node.cycle & 0xFFFF:
            return
        self._cycles[CENTRE] = node.cycle & 0xFFFF
        if self._quiet.there >> CENTRE & 1:
            node.send(TO_HALO, frame.reading(node.header(frame.READING), self._readings[CENTRE]))
        else:
            node.send(TO_HALO, node.header(frame.NO_READING))

    @cold
    def _tell(self) -> None:
        """Say the state to the gateway if it is news."""
        node, state = self._node, self._state()
        if state != self._told and self._is_current():
            self._told = state
            node.report = node.header(frame.STATE) + bytes((state,))
            node.send(TO_GATEWAY, node.report)

    def _is_current(self) -> bool:
        return self._node.version == self._node.wave.active.version

    def _state(self) -> int:
        return frame.STATE_NONE if self._node.reading_ccel is None else self._quiet.state()

    def _stored(self, reading_ccel: int) -> int:
        return centred(reading_ccel, self._node.wave.active.reference_ccel)
