"""The whole node without I/O: frames and time in, frames and the next wake-up out.

A cycle is entered on the beacon, on a neighbour's first frame of the next cycles, or by the own clock after two missed
beacons. Then filters are switched if the cycle asks for staged ones, the sensor is read, and the mode that the beacon
asks for does the rest: firmware/layerwise.py, change.py or event.py, of which a node loads the one it needs. Reports to
the gateway are kept in a ring until they are acknowledged, by a beacon for all or by a word to this node alone, and
said again at each beacon, the oldest first.
"""

import gc

from firmware import ring
from firmware.stages import COLLECT, DONE, GATHER, IDLE, TO_GATEWAY, TO_HALO
from firmware.trace import Trace
from firmware.wave import EVERYBODY, NEIGHBOURS, STRAY_CYCLES, Wave
from protocol import beacon, frame, grid, report
from protocol.compat import cold, const, forget, rare, ticks_add, ticks_diff
from protocol.filter_set import RETURNED, STAGED
from protocol.fixed import READING_MAX, READING_MIN
from protocol.health import (
    ABANDONED,
    MALFORMED,
    OWN_CLOCK,
    REPEATED,
    SENSOR_CRC,
    SENSOR_FAULT,
    SENSOR_POWER_ON,
    SENSOR_RANGE,
    SENSOR_STUCK,
    STALE,
    STRANGER,
)

# By kind, the first mode that knows it, from VALUE on: STATE, REFRESH, PROOF, CHALLENGE.
_LEAST_MODE = bytes(frame.VALUE) + bytes(
    (beacon.MODE_EVENT, beacon.MODE_EVENT, beacon.MODE_CHANGE, beacon.MODE_EVENT, beacon.MODE_EVENT)
)
# What may follow each state, a mask of states.
_MAY_FOLLOW = (
    1 << COLLECT,
    1 << COLLECT | 1 << GATHER | 1 << DONE,
    1 << COLLECT | 1 << DONE,
    1 << COLLECT,
)

# After so many periods without a beacon the node goes on by its own clock: two beacons were missed.
MISSED_PERIODS = const(3)
# So many reports are said again in a cycle, beside its own one.
REPEATS_MAX = const(2)
# With nothing to wait for, look again after this long.
IDLE_WAKE_MS = const(60_000)


class Node:
    """One node of the mesh.

    Attributes:
        row, col: its cell.
        boot: 32 random bits of this start.
        state: IDLE, COLLECT, GATHER or DONE.
        run, cycle: of the cycle entered, u32.
        exchange: the one whose halo is collected, 0..3.
        trace: counters and latest faults.
        wave: its filters, and what it does about newer ones.
        beacon: the latest believed, None before the first.
        version: of the filters that the cycle is computed with.
        reading_ccel: of this cycle, None where the sensor gives nothing.
        seq: how many reports it made.
        rejoined: others may have spoken, or not have heard, while it was away; link sets this, the mode clears it.
        ring: reports, and the latest state of mode event, that nobody acknowledged yet (firmware/ring.py).
        exists: slots that hold a neighbour, a mask.
        loaded: names of the modules that the mode consists of.
        mode: the Layerwise, Change or Event that carries out its cycles.
        health_wanted: a beacon asked for a health message; whoever publishes it clears this.
    """

    @cold
    def __init__(self, row: int, col: int, exists: int, filters: tuple, sensor, boot: int):
        """Build a node that waits for its first beacon.

        Args:
            row, col: its cell.
            exists: mask of the slots that hold a neighbour.
            filters: what firmware.start.prepare_filters returned.
            sensor: has `read(cycle)` -> int16 ccel or None.
            boot: 32 random bits of this start.
        """
        self.row, self.col = row, col
        self.boot = boot
        self.trace = Trace()
        self.health_wanted = False
        self.run = self.cycle = self.exchange = self.seq = 0
        self.state = IDLE
        self.wave = Wave(filters, self.trace)
        self.exists = exists
        self.mode: object = None
        self.rejoined = True
        # Until a beacon tells; main.py loaded what that takes.
        self._in_mode = beacon.MODE_EVENT if self.wave.active.has_sign() else beacon.MODE_ALWAYS
        self.loaded: tuple[str, ...] = ()
        self._early = {}  # by slot, words for a mode event that is still to begin
        self._sensor = sensor
        self.reading_ccel = None
        self._entered_ms = 0
        self._free_running = False
        self._told_cycle = 0  # of the latest beacon, believed or not
        self.beacon: beacon.Beacon = None
        self.version = 0
        self.ring = []
        self._out = []
        self._open_mode()

    def enter(self, run: int, cycle: int, version: int, now_ms: int) -> None:
        """Enter a cycle, after a first beacon; `version` (its low half) is of the filters that compute it."""
        if self.wave.staged:
            if self.wave.take_staged(version):
                self.version = self.wave.active.version  # a neighbour's frame may come before the beacon
            self.wave.news |= NEIGHBOURS  # those that missed it may hear of it now
        elif self.wave.stray >= STRAY_CYCLES:
            self.wave.go_back()
        try:
            self._start_cycle(run, cycle, now_ms)
            self.mode.begin()
        except MemoryError:
            # Half begun, the old set's values would bear the new one's version: from any state, wait for a beacon.
            self.state = IDLE
            raise
        if self._early:
            self._feed_early(now_ms)

    @cold
    def _start_cycle(self, run: int, cycle: int, now_ms: int) -> None:
        """Read the sensor; the mode says what comes of it."""
        if self.state in (COLLECT, GATHER):
            self.trace.fault(ABANDONED)
        self.run, self.cycle = run, cycle
        self._entered_ms = now_ms
        self._free_running = False
        self.exchange = 0
        self.go(COLLECT)
        self.reading_ccel = self._read()
        self._follow_mode()

    def _follow_mode(self) -> None:
        """The beacon asks for a mode; mode event only of filters that can do it."""
        mode = self.beacon.flags & beacon.MODE_MASK
        if mode == beacon.MODE_EVENT and not self.wave.active.has_sign():
            mode = beacon.MODE_ALWAYS
        if mode != self._in_mode or not self.mode:
            self._in_mode = mode
            self._open_mode()

    @rare
    def _open_mode(self) -> None:
        """Load what carries out the cycles from now on, and first drop what did until now: both do not fit."""
        if self.mode:
            self.rejoined = True  # the next one knows nothing of what this one knew
            ring.let_go_all(self.ring, frame.STATE)
            self.mode = None
        for name in self.loaded:
            forget(name)
        self.loaded = ()
        if self._in_mode == beacon.MODE_EVENT:
            from firmware import event

            make, name = event.Event, event.__name__
        elif self._in_mode == beacon.MODE_CHANGE:
            from firmware import change

            make, name = change.Change, change.__name__
        else:
            from firmware import layerwise

            make, name = layerwise.Layerwise, layerwise.__name__
        self.loaded = (name,)
        gc.collect()  # loading left holes; small objects shall go there first
        self.mode = make(self)

    @rare
    def _feed_early(self, now_ms: int) -> None:
        """The cycle is one of mode event, or those who spoke were wrong."""
        early, self._early = self._early, {}
        if self._in_mode == beacon.MODE_EVENT:
            for slot in early:
                self.mode.feed(frame.VALUE, slot, early[slot], now_ms)

    @rare
    def _hear_early(self, kind: int, slot: int, data) -> None:
        """Keep a word that comes before the beacon that asks for mode event: it is not said again. All else is late."""
        if kind == frame.VALUE and self.wave.active.has_sign():
            self._early[slot] = bytes(data)
        else:
            self.trace.fault(STALE)

    def on_frame(self, data, now_ms: int) -> None:
        """Take in a frame from any topic: bytes, bytearray or memoryview. Never raises for what others sent."""
        kind = frame.kind_of(data)
        if kind == frame.BEACON:
            # One after the other, for a node has no room for the code of both at once, nor for both beacons further on.
            latest = self.beacon
            is_new_cycle = self._on_beacon(data, now_ms)
            if self.ring and latest is not self.beacon:
                self._go_through_ring(data)
            latest = self.beacon
            if is_new_cycle:
                self.enter(latest.run, latest.cycle, latest.version, now_ms)
        elif kind == 0 or kind == frame.REPORT:
            self.trace.fault(MALFORMED)
        else:
            self._on_neighbour(kind, data, now_ms)

    def poll(self, now_ms: int) -> tuple:
        """Do what is due. Returns ([(destination, frame), ...], ms until the next poll is needed at the latest)."""
        if self.state == DONE and self._due_ms(now_ms) <= 0:
            self._start_by_own_clock(now_ms)
        while self.state != IDLE and self.mode.step(self._due_ms(now_ms) <= 0):
            pass
        # A wave is worked on between cycles, not within one.
        busy = self.state in (IDLE, DONE) and self.wave.step(now_ms)
        if self.wave.news and self.state != IDLE:
            self._tell_filters()
        out, self._out = self._out, []
        return out, 0 if busy else max(0, self._due_ms(now_ms))

    # Frames in

    @cold
    def _on_beacon(self, data, now_ms: int) -> bool:
        """Take in a beacon; True if its cycle is to be entered."""
        latest = beacon.unpack(data)
        if latest is None:
            self.trace.fault(MALFORMED)
            return False
        self.trace.take(frame.BEACON, len(data))
        if latest.flags & beacon.WANT_HEALTH:
            self.health_wanted = True
        if latest.flags & beacon.WANT_FILTERS:
            self.wave.news = EVERYBODY
        if latest.flags & beacon.OPENS_NOTHING:
            return False
        before, self.beacon = self.beacon, latest
        last_version, self.version = self.version, latest.version
        last_cycle, self._told_cycle = self._told_cycle, latest.cycle
        if before is None or before.run != latest.run:
            self.wave.stray = 0
            return True
        if latest.cycle <= before.cycle and latest.cycle <= last_cycle:
            # Said again, or late; two that count up show that the one believed was not real.
            self.beacon, self.version = before, last_version
            return False
        self.wave.told(latest.version)
        if latest.cycle != self.cycle or self.state == IDLE:
            return True
        self._free_running = False
        self._entered_ms = now_ms
        self.abstain_unless_current()
        return False

    def _on_neighbour(self, kind: int, data, now_ms: int) -> None:
        row, col = frame.row_of(data), frame.col_of(data)
        if row == self.row and col == self.col:
            return  # a broker sends a node's own block frames back to it
        slot = grid.slot_of(self.row, self.col, row, col)
        if slot < 0 or not self.exists >> slot & 1:
            self.trace.fault(STRANGER)
        elif kind == frame.FILTERS:  # true in whichever cycle it comes
            self.trace.take(kind, len(data))
            if frame.phase_of(data) != RETURNED:
                self.wave.notice(slot, frame.highest_of(data), now_ms)
        elif self.state == IDLE or (kind > frame.FILTERS and self._in_mode < _LEAST_MODE[kind]):
            self._hear_early(kind, slot, data)
        else:
            self.mode.feed(kind, slot, data, now_ms)

    @cold
    def _tell_filters(self) -> None:
        """Say which filters this node holds: to the gateway, and to neighbours that may pull them."""
        wave = self.wave
        news, wave.news = wave.news, 0
        data = frame.filters(self.header(frame.FILTERS), wave.highest, wave.phase, wave.refused)
        if wave.phase == STAGED:  # else the header of every frame says it
            self.send(TO_HALO, data)
        if news == EVERYBODY:
            self.send(TO_GATEWAY, data)

    @cold
    def _go_through_ring(self, data) -> None:
        """Drop what this beacon confirms; say the oldest again, but none of the open cycle: it cannot speak of that."""
        latest, repeats, has_older = self.beacon, REPEATS_MAX, False
        is_acked = beacon.acknowledged(data, self.row // grid.BLOCK_SIDE, self.col // grid.BLOCK_SIDE)
        kept = []
        for told in self.ring:
            cycle, is_report = frame.cycle_of(told, latest.acked_cycle), frame.kind_of(told) == frame.REPORT
            is_of_run = frame.run_of(told) == latest.run & 0xFF
            is_spoken_of = is_of_run and cycle == latest.acked_cycle
            if is_acked and is_spoken_of and not (is_report and report.has_mark(told, report.NO_BEACON)):
                is_acked = not is_report  # of two reports of one cycle it confirms the first
            elif is_of_run or is_report:  # nobody asks for another run's states
                is_open = is_of_run and latest.acked_cycle < cycle <= latest.cycle
                if is_report and repeats and not is_open:  # a mode tells its state anew itself
                    repeats -= 1
                    self.trace.fault(REPEATED)
                    self.send(TO_GATEWAY, report.marked(told, report.HAS_OLDER, has_older))
                has_older |= is_report
                kept.append(told)
        self.ring = kept  # nothing is lost where memory ran out before

    @rare
    def on_acknowledgement(self, data) -> None:
        """Take in what the gateway says to this node alone: these reports are kept."""
        if not report.is_ack(data):
            self.trace.fault(MALFORMED)
            return
        kept = []
        for told in self.ring:
            if frame.kind_of(told) != frame.REPORT or not report.is_acknowledged(data, told):
                kept.append(told)
        self.ring = kept

    @cold
    def _start_by_own_clock(self, now_ms: int) -> None:
        """Go on without the gateway, in step with the numbers it would have given."""
        self.trace.fault(OWN_CLOCK)
        cycle = self.cycle + (1 if self._free_running else MISSED_PERIODS)
        self.enter(self.run, cycle, self.wave.active.version, now_ms)
        self._free_running = True

    @cold
    def _read(self):
        """The sensor's int16 or None; whatever a driver raises or returns instead is a counted fault."""
        try:
            reading_ccel = self._sensor.read(self.cycle)
            if reading_ccel is None or READING_MIN <= reading_ccel <= READING_MAX:
                return reading_ccel
            fault = SENSOR_RANGE
        except ValueError as error:  # it may say why
            fault = SENSOR_FAULT
            for place in (SENSOR_CRC, SENSOR_POWER_ON, SENSOR_RANGE, SENSOR_STUCK):
                if error.args == (place,):
                    fault = place
        except Exception:  # a driver is somebody else's code
            fault = SENSOR_FAULT
        self.trace.fault(fault)
        return None

    def _due_ms(self, now_ms: int) -> int:
        """Ms until the current state's time is over."""
        if self.state == IDLE:
            return IDLE_WAKE_MS
        latest = self.beacon
        if self.state == COLLECT:
            wait_ms = latest.exchange_ms * (self.exchange + 1)
        elif self.state == GATHER:
            wait_ms = latest.exchange_ms * len(self.wave.active.exchanges) + latest.gather_ms
        else:
            wait_ms = latest.period_ms * (1 if self._free_running else MISSED_PERIODS)
        return ticks_diff(ticks_add(self._entered_ms, wait_ms), now_ms)

    # What the modes ask

    def abstain_unless_current(self) -> None:
        """Without the cycle's filter version a node gives its reading and nothing else."""
        if self.version != self.wave.active.version and self.state != DONE:
            self.go(DONE)

    def header(self, kind: int) -> bytes:
        """The header of a frame of this cycle."""
        return frame.header(kind, self.row, self.col, self.run, self.cycle, self.wave.active.version)

    @cold
    def tell_gateway(self, data: bytes) -> None:
        """Send a report, or a state of mode event, and keep it until it is acknowledged."""
        if frame.kind_of(data) == frame.REPORT:
            data = report.marked(data, report.HAS_OLDER, ring.holds(self.ring, frame.REPORT))
            # The gateway may still give this number to another cycle, and its bit speaks of that one.
            data = report.marked(data, report.NO_BEACON, self.cycle != self.beacon.cycle)
        ring.hold(self.ring, data)
        self.send(TO_GATEWAY, data)

    def send(self, destination: int, data: bytes) -> None:
        """Count a frame and put it among those that go out."""
        self.trace.send(data[0] & 0x0F, len(data))
        self._out.append((destination, data))

    def go(self, state: int) -> None:
        """Enter a state that may follow the present one."""
        if not _MAY_FOLLOW[self.state] >> state & 1:
            raise RuntimeError("node: no way from state %d to %d" % (self.state, state))
        self.state = state
