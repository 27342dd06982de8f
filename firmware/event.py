"""Mode event: a node of a layer with sign is silent until its reading leaves its zone, or its state changes.

What everybody said last, the view, is kept from cycle to cycle, whatever the cycle in which a word arrives
(firmware/quiet.py); only beacons and the own clock open cycles. In each a node reads, speaks if it has to, goes on
listening, and when the exchange's time is over says its state to the gateway, if that is another one than it said last,
or was not acknowledged. Later words may still change it; then it is said at once.

A word is said again in every HEARTBEAT-th cycle, after a connection was lost, and to a neighbour that asks for it: one
that started, or lost its connection, and does not know what it missed. Only nodes in mode event load this module, and
firmware/watch.py only those whose links lose frames, as the beacon tells: it takes two exchanges more.
"""

from array import array

from firmware import ring
from firmware.quiet import Quiet, heartbeat_due
from firmware.stages import COLLECT, DONE, TO_GATEWAY, TO_HALO
from protocol import beacon, frame
from protocol.compat import cold, const, forget, rare
from protocol.filter_set import TRIAL
from protocol.fixed import centred
from protocol.grid import CENTRE, TAPS, tap_of
from protocol.health import STALE

_UNTOLD = const(255)


class Event:
    """What one node knows and does in mode event.

    Attributes:
        node: whose mode this is.
        quiet: what everybody said last, as the present filters see it.
        readings_ccel: the same in ccel, int16 [9], for filters with another reference.
        copies: how often what matters is said, as the beacon asks; 0: nobody watches.
    """

    def __init__(self, node):
        """Nobody is known yet; neighbours will be asked at the first cycle."""
        self.node = node
        self.quiet = Quiet()
        self.readings_ccel = array("h", bytes(2 * TAPS))
        self.copies = 0
        self._watch = None
        self._cycles = array("H", bytes(2 * TAPS))  # of the last words, low half
        self._runs = bytearray(TAPS)
        self._run = -1
        self._filters = None
        self._told = _UNTOLD
        self._is_asked = self._is_dirty = False

    @cold
    def begin(self) -> None:
        """A cycle begins, its sensor was read."""
        node = self.node
        if self._filters is not node.wave.active:
            self._change_filters()
        if self._run != node.run:
            self._run = node.run
            self._told = _UNTOLD  # the gateway is another one, or started anew
        self.quiet.start_cycle()
        self._follow_copies()
        if node.rejoined:
            node.rejoined = False
            self._told = _UNTOLD
            self.quiet.forget(CENTRE)
            self._say(node.header(frame.REFRESH), self._usual())
        self._is_dirty = True

    def feed(self, kind: int, slot: int, data, now_ms: int) -> None:
        """Take in a neighbour's frame."""
        node = self.node
        node.trace.take(kind, len(data))
        if kind != frame.VALUE and kind != frame.CHALLENGE:
            node.wave.notice(slot, frame.version_of(data), now_ms)
        if kind == frame.CHALLENGE:
            self._take_challenge(tap_of(slot), data)
        elif kind == frame.REFRESH:
            self._is_asked = True
        elif kind == frame.NO_READING:
            self.take_word(tap_of(slot), data, None)
        elif kind == frame.READING or kind == frame.VALUE:
            at = frame.HEADER_SIZE if kind == frame.READING else frame.VALUE_READING
            self.take_word(tap_of(slot), data, frame.i16(data, at))
        else:
            node.trace.fault(STALE)  # of mode always

    def step(self, is_over: bool) -> bool:
        """Say what has to be said; `is_over`: the time for the exchange. False: there is no further step to take."""
        node = self.node
        if self._is_asked:
            self._is_asked = False
            self._repeat()
        if self._is_dirty:
            self._is_dirty = False
            if self._has_to_speak():
                self._speak()
            if node.state == DONE:
                self._tell()
        if self._watch and self._watch.is_wrong:
            self._watch.is_wrong = False
            self._say_word(self.copies + 1)
        if not is_over or node.state != COLLECT:
            return False
        if self._watch and node.exchange < beacon.CHALLENGE_EXCHANGES:
            self._challenge()
            return True
        self._close()
        return False

    def _hear(self, tap: int, cycle: int, reading_ccel) -> None:
        """Take in the last word of a node, the own one at CENTRE: what it reads, or None."""
        self._cycles[tap] = cycle & 0xFFFF
        if reading_ccel is None:
            self.quiet.hear(tap, -1)
        else:
            self.readings_ccel[tap] = reading_ccel
            self.quiet.hear(tap, self._stored(reading_ccel))

    @rare
    def _change_filters(self) -> None:
        """The same view, seen through other filters."""
        filters = self.node.wave.active
        _, weights, bias, _ = filters.layers[0]
        self.quiet.use(weights, bias)
        for tap in range(TAPS):
            self.quiet.view[tap] = self._stored(self.readings_ccel[tap])
        self._filters = filters  # once all the rest is there: else the next cycle begins with this again
        self._is_dirty = True

    @cold
    def _follow_copies(self) -> None:
        """The beacon asks for a watch or not."""
        self.copies = min(self.node.beacon.setting, beacon.COPIES_MAX)
        if self.copies:
            if not self._watch:
                self._load_watch()
            self._watch.open_cycle()
        elif self._watch:
            self._drop_watch()

    @rare
    def _drop_watch(self) -> None:
        self._watch = None
        mode, name = self.node.loaded
        self.node.loaded = (mode,)
        forget(name)

    @rare
    def _load_watch(self) -> None:
        from firmware import watch

        self.node.loaded = (self.node.loaded[0], watch.__name__)
        self._watch = watch.Watch(self)

    @cold
    def _take_challenge(self, tap: int, data) -> None:
        """Only those of the own cycle count: what they say is what is true now."""
        node = self.node
        if self._watch and frame.run_of(data) == node.run & 0xFF and frame.u16(data, 4) == node.cycle & 0xFFFF:
            self._watch.take(tap, data)
            self._is_dirty = True
        else:
            node.trace.fault(STALE)

    @cold
    def _challenge(self) -> None:
        """An exchange is over: the corners of windows go first, and whoever heard no challenge one exchange later."""
        node = self.node
        node.exchange += 1
        if self._is_current():
            self._watch.challenge(node.exchange == 1)

    @cold
    def _close(self) -> None:
        """The time for the exchange is over."""
        node = self.node
        node.go(DONE)
        if heartbeat_due(node.row, node.col, node.cycle):
            self._repeat()
        if node.ring and ring.holds(node.ring, frame.STATE):
            self._told = _UNTOLD  # not acknowledged
        self._tell()
        if not self._is_current():
            return
        if node.beacon.flags & beacon.WANT_PROOF:
            node.send(TO_GATEWAY, frame.proof(node.header(frame.PROOF), self._state(), node.reading_ccel or 0))
        if node.wave.phase == TRIAL:
            node.wave.completed += 1

    def take_word(self, tap: int, data, reading_ccel) -> None:
        """A neighbour's last word, unless a later one is known."""
        run, cycle = frame.run_of(data), frame.u16(data, 4)
        if self.quiet.known >> tap & 1 and run == self._runs[tap] and (cycle - self._cycles[tap]) & 0x8000:
            self.node.trace.fault(STALE)
            return
        self._runs[tap] = run
        self._hear(tap, cycle, reading_ccel)
        self._is_dirty = True

    def _has_to_speak(self) -> bool:
        """Whether the view does not cover the reading; without the cycle's filters no zone holds."""
        node = self.node
        value = -1 if node.reading_ccel is None else self._stored(node.reading_ccel)
        if self._is_current():
            return self.quiet.has_to_speak(value)
        return not self.quiet.known >> CENTRE & 1 or self.quiet.differs(value)

    @cold
    def _speak(self) -> None:
        """Broadcast the reading, or that there is none."""
        node = self.node
        abnormal = self.quiet.abnormal() if self._watch else 0
        self._hear(CENTRE, node.cycle, node.reading_ccel)
        is_over = abnormal and abnormal & ~self.quiet.abnormal()
        self._say_word(self.copies if is_over else self._usual())

    def _say(self, data: bytes, times: int) -> None:
        """Broadcast a frame."""
        for _ in range(times):
            self.node.send(TO_HALO, data)

    @cold
    def _say_word(self, times: int) -> None:
        """Broadcast the own last word."""
        node = self.node
        self._cycles[CENTRE] = node.cycle & 0xFFFF
        if self.quiet.there >> CENTRE & 1:
            self._say(frame.value(node.header(frame.VALUE), self.readings_ccel[CENTRE]), times)
        else:
            self._say(node.header(frame.NO_READING), times)

    def _usual(self) -> int:
        """How often a frame is said that matters no more than others."""
        return max(1, self.copies // 2)

    @cold
    def _repeat(self) -> None:
        """Broadcast the last word again, if there is one; not the reading: the others' views stay as they are.

        What was said in this cycle was heard, if nothing is lost: whoever asks listened since before it began.
        """
        node = self.node
        if not self.quiet.known >> CENTRE & 1 or self._cycles[CENTRE] == node.cycle & 0xFFFF:
            return
        self._cycles[CENTRE] = node.cycle & 0xFFFF
        if self.quiet.there >> CENTRE & 1:
            self._say(frame.reading(node.header(frame.READING), self.readings_ccel[CENTRE]), self._usual())
        else:
            self._say(node.header(frame.NO_READING), self._usual())

    @cold
    def _tell(self) -> None:
        """Say the state to the gateway if it is news."""
        node, state = self.node, self._state()
        if state != self._told and self._is_current():
            self._told = state
            node.tell_gateway(node.header(frame.STATE) + bytes((state,)))

    def _is_current(self) -> bool:
        return self.node.version == self.node.wave.active.version

    def _state(self) -> int:
        return frame.STATE_NONE if self.node.reading_ccel is None else self.quiet.abnormal() & 1

    def _stored(self, reading_ccel: int) -> int:
        return centred(reading_ccel, self.node.wave.active.reference_ccel)
