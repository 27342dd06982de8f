"""The whole node without I/O: frames and time in, frames and the next wake-up out.

Plan of a cycle: enter it (on the beacon, on a neighbour's first frame of the next cycles, or by the own clock after two
missed beacons), switch filters if the cycle asks for staged ones, publish the reading, then for each exchange wait
until the neighbourhood is complete or its time is over, compute, publish. The last activations go to the block's owner;
the owner gathers, reports and keeps the report until a beacon acknowledges it.

Rules: nothing said twice within a cycle; a frame of another run or of an earlier cycle changes nothing; whatever is
missing when a unit is computed is replaced by the node's own value and its bit set (firmware/neighbours.py).
"""

from array import array

from firmware.neighbours import RECENT, WAITED_FOR, Neighbours
from firmware.pool import Block
from firmware.stages import COLLECT, DONE, GATHER, IDLE, TO_BLOCK, TO_GATEWAY, TO_HALO
from firmware.trace import Trace
from firmware.wave import STRAY_CYCLES, Wave
from protocol import beacon, frame, grid, report
from protocol.compat import cold, const, rare, ticks_add, ticks_diff
from protocol.filter_set import RETURNED, STAGED, TRIAL
from protocol.fixed import READING_MAX, READING_MIN, centred
from protocol.health import (
    ABANDONED,
    DEADLINE,
    DOUBLE,
    MALFORMED,
    OTHER_SHAPE,
    OWN_CLOCK,
    REPEATED,
    SENSOR_FAULT,
    STALE,
    STRANGER,
)

# What may follow each state, a mask of states.
_MAY_FOLLOW = (
    1 << COLLECT,
    1 << COLLECT | 1 << GATHER | 1 << DONE,
    1 << COLLECT | 1 << DONE,
    1 << COLLECT,
)

# A neighbour's frame opens a cycle at most so far ahead: further off only a beacon is believed.
AHEAD_MAX = const(3)
# After so many periods without a beacon the node goes on by its own clock: two beacons were missed.
MISSED_PERIODS = const(3)
# With nothing to wait for, look again after this long.
IDLE_WAKE_MS = const(60_000)


class Node:
    """One node of the mesh.

    Attributes:
        row, col: its cell.
        state: IDLE, COLLECT, GATHER or DONE.
        run, cycle: of the cycle entered, u32.
        trace: counters and latest faults.
        wave: its filters, and what it does about newer ones.
        beacon: the latest believed, None before the first.
        version: of the filters that the cycle is computed with.
        reading_ccel: of this cycle, None where the sensor gives nothing.
        report: the latest, as long as no beacon acknowledged it.
        event: what it knows and does in mode event; None before that, and in mode always.
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
        self.trace = Trace()
        self.health_wanted = False
        self.run = self.cycle = 0
        self.state = IDLE
        self.wave = Wave(filters, self.trace)
        self._leave_event()
        self._sensor = sensor
        self._boot = boot
        self._seq = 0
        self._neighbours = Neighbours(row, col, exists)
        self._use_active_filters()
        self._corner = grid.corner_of(row, col)
        self._corner_slots = grid.corner_slots(row, col)
        self.reading_ccel = None
        self._own = array("H", (0,))
        self._exchange = 0
        self._entered_ms = 0
        self._free_running = False
        self._told_cycle = 0  # of the latest beacon, believed or not
        self.beacon: beacon.Beacon = None
        self.version = 0  # of the filters that the cycle is computed with
        self.report = b""
        self._out = []

    def enter(self, run: int, cycle: int, version: int, now_ms: int) -> None:
        """Enter a cycle, after a first beacon; `version` (its low half) is of the filters that compute it."""
        if self.wave.staged:
            self.wave.news = True  # neighbours that missed it may hear of it now
            if self.wave.take_staged(version):
                self.version = self.wave.active.version  # a neighbour's frame may come before the beacon
                self._use_active_filters()
        elif self.wave.stray >= STRAY_CYCLES and self.wave.go_back():
            self._use_active_filters()
        self._start_cycle(run, cycle, now_ms)

    @cold
    def _start_cycle(self, run: int, cycle: int, now_ms: int) -> None:
        """Read the sensor, tell the neighbours, start collecting."""
        if self.state in (COLLECT, GATHER):
            self.trace.fault(ABANDONED)
        self.run, self.cycle = run, cycle
        self.trace.cycle = cycle
        self._entered_ms = now_ms
        self._free_running = False
        self._exchange = 0
        self.go(COLLECT)
        self.reading_ccel = self._read()
        if self._follow_mode():
            return  # nor does anybody become unheard by his silence
        self._neighbours.start_cycle()
        self._block.start_gathering()
        if self.reading_ccel is None:
            self._do_without_reading()
            return
        self.send(TO_HALO, frame.reading(self._head(frame.READING), self.reading_ccel))
        self._own[0] = centred(self.reading_ccel, self.wave.active.reference_ccel)
        self._abstain_unless_current()

    @rare
    def _do_without_reading(self) -> None:
        """Say so, and gather the block if that is this node's part."""
        self.send(TO_HALO, self._head(frame.NO_READING))
        self._block.no_reading |= 1 << self._corner
        self._abstain_unless_current()
        if self.state != DONE:
            self.go(GATHER if self._is_owner() else DONE)
            if self.wave.phase == TRIAL:
                self.wave.completed += 1

    def _follow_mode(self) -> bool:
        """Whether this cycle is one of mode event: the beacon asks for it, and the filters can do it."""
        if self.beacon.flags & beacon.MODE_MASK != beacon.MODE_EVENT or not self.wave.active.has_sign():
            self._leave_event()
            return False
        if self.event is None:
            self._open_event()
        self._in_event = True
        return True

    @rare
    def _hear_early(self, kind: int, slot: int, data, now_ms: int) -> None:
        """Keep a word that comes before the beacon that says the mode: it is not said again. All else is late."""
        if kind != frame.VALUE or not self.wave.active.has_sign():
            self.trace.fault(STALE)
            return
        if self.event is None:
            self._open_event()
        self.event.feed(kind, slot, data, now_ms)

    @cold
    def _leave_event(self):
        self.event = None
        self._in_event = False

    @rare
    def _open_event(self) -> None:
        from firmware import event

        self.event = event.Event(self)

    def on_frame(self, data, now_ms: int) -> None:
        """Take in a frame from any topic: bytes, bytearray or memoryview. Never raises for what others sent."""
        kind = frame.kind_of(data)
        if kind == frame.BEACON:
            if self._on_beacon(data, now_ms):
                latest = self.beacon
                self.enter(latest.run, latest.cycle, latest.version, now_ms)
        elif kind == 0 or kind == frame.REPORT:
            self.trace.fault(MALFORMED)
        else:
            self._on_neighbour(kind, data, now_ms)

    def poll(self, now_ms: int) -> tuple:
        """Do what is due. Returns ([(destination, frame), ...], ms until the next poll is needed at the latest)."""
        if self.state == DONE and self._due_ms(now_ms) <= 0:
            self._start_by_own_clock(now_ms)
        while self._step(now_ms):
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
            self.wave.news = True
        if latest.flags & beacon.OPENS_NOTHING:
            return False
        before, self.beacon = self.beacon, latest
        last_version, self.version = self.version, latest.version
        last_cycle, self._told_cycle = self._told_cycle, latest.cycle
        if before is None or before.run != latest.run:
            self.report = b""  # nobody asks for another run's reports
            self.wave.stray = 0
            return True
        if latest.cycle <= before.cycle and latest.cycle <= last_cycle:
            # Said again, or late; two that count up show that the one believed was not real.
            self.beacon, self.version = before, last_version
            return False
        self._settle_report(data)
        self.wave.told(latest.version)
        if latest.cycle != self.cycle:
            return True
        self._free_running = False
        self._entered_ms = now_ms
        self._abstain_unless_current()
        return False

    def _on_neighbour(self, kind: int, data, now_ms: int) -> None:
        row, col = frame.row_of(data), frame.col_of(data)
        if row == self.row and col == self.col:
            return  # a broker sends a node's own block frames back to it
        slot = self._neighbours.slot_of(row, col)
        if slot < 0:
            self.trace.fault(STRANGER)
            return
        if kind == frame.FILTERS:  # true in whichever cycle it comes
            self.trace.take(kind, len(data))
            if frame.phase_of(data) != RETURNED:
                self.wave.notice(slot, frame.highest_of(data), now_ms)
            return
        if self._in_event:
            self.event.feed(kind, slot, data, now_ms)
            return
        if kind > frame.FILTERS:
            self._hear_early(kind, slot, data, now_ms)
            return
        cycle = frame.cycle_of(data, self.cycle)
        known_run = self.state != IDLE and frame.run_of(data) == self.run & 0xFF
        if not known_run or cycle < self.cycle or cycle > self.cycle + AHEAD_MAX:
            self.trace.fault(STALE)
            return
        if cycle > self.cycle:
            self.enter(self.run, cycle, frame.version_of(data), now_ms)
        self.trace.take(kind, len(data))
        self.wave.notice(slot, frame.version_of(data), now_ms)
        same_version = frame.version_of(data) == self.wave.active.version & 0xFFFF
        self._neighbours.hear(slot, same_version)
        stored = self._store(kind, slot, data, same_version)
        if not stored:
            self.trace.fault(OTHER_SHAPE if stored is None else DOUBLE)

    def _store(self, kind: int, slot: int, data, same_version: bool) -> bool:
        """Put a neighbour's frame where it belongs; False if it says what was said before, None if it does not fit."""
        if kind == frame.READING:
            own_reference = self.wave.active.reference_ccel
            value = centred(frame.i16(data, frame.HEADER_SIZE), own_reference)
            return self._neighbours.put(0, slot, (value,), 0, 1)
        if kind == frame.NO_READING:
            new = self._neighbours.deny(slot)
            if new and slot in self._corner_slots:
                self._block.no_reading |= 1 << self._corner_slots.index(slot) & ~self._block.pooled
            return new
        if not same_version:  # units of different filters are never convolved or pooled together
            return True
        if kind == frame.ACTIVATIONS:
            return self._store_activations(slot, data)
        if slot in self._corner_slots and self.state != DONE:
            return self._block.put_frame(self._corner_slots.index(slot), data)
        return True

    def _store_activations(self, slot: int, data) -> bool:
        exchange, channels = data[frame.HEADER_SIZE], len(data) - frame.HEADER_SIZE - 1
        inputs = self._neighbours.inputs
        if not 0 < exchange < len(inputs) or channels * grid.TAPS != len(inputs[exchange]):
            return None
        return self._neighbours.put(exchange, slot, data, frame.HEADER_SIZE + 1, channels)

    # The steps of a cycle

    def _step(self, now_ms: int) -> bool:
        """Take the next step if nothing has to be waited for; False when there is none to take now."""
        if self._in_event:
            self.event.step(self._due_ms(now_ms) <= 0)
            return False
        if self.state == COLLECT:
            return self._finish_waiting(self._neighbours.awaited(self._exchange), now_ms) and self._compute()
        if self.state == GATHER:
            return self._finish_waiting(self._awaited_members(), now_ms) and self._report_block()
        return False

    def _finish_waiting(self, awaited: int, now_ms: int) -> bool:
        if not awaited:
            return True
        if self._due_ms(now_ms) > 0:
            return False
        self.trace.fault(DEADLINE)
        return True

    @cold
    def _compute(self) -> bool:
        filters = self.wave.active
        layer = filters.exchanges[self._exchange]
        self._neighbours.fill(self._exchange, filters.values[layer - 1] if layer else self._own)
        layer = filters.compute(layer)
        values = filters.values[layer - 1]
        if layer < len(filters.values):
            self._exchange += 1
            self.send(TO_HALO, frame.activations(self._head(frame.ACTIVATIONS), self._exchange, values))
        else:
            self._hand_over(values)
        return True

    @cold
    def _hand_over(self, values) -> None:
        """Pool the last activations oneself, or give them to the block's owner."""
        wanted = self.beacon.flags & beacon.WANT_READINGS
        reading_ccel = self.reading_ccel if wanted else None
        absence = self._neighbours.absence
        if self._is_owner():
            self._block.put(self._corner, values, absence, reading_ccel)
            self.go(GATHER)
        else:
            self.send(TO_BLOCK, frame.member(self._head(frame.MEMBER), absence, reading_ccel, values))
            self.go(DONE)
        if self.wave.phase == TRIAL:
            self.wave.completed += 1

    @cold
    def _report_block(self) -> bool:
        self._seq += 1
        features = self._block.features()
        self.report = report.pack(self._head(frame.REPORT), self._boot, self._seq, self._block, features)
        self.send(TO_GATEWAY, self.report)
        self.go(DONE)
        return True

    @cold
    def _tell_filters(self) -> None:
        """Say which filters this node holds: to the gateway, and to neighbours that may pull them."""
        wave = self.wave
        wave.news = False
        data = frame.filters(self._head(frame.FILTERS), wave.highest, wave.phase, wave.refused)
        if wave.phase == STAGED:  # else the header of every frame says it
            self.send(TO_HALO, data)
        self.send(TO_GATEWAY, data)

    @cold
    def _use_active_filters(self) -> None:
        filters = self.wave.active
        self._neighbours.use([filters.inputs[k] for k in filters.exchanges])
        self._block = Block(len(filters.values[-1]), len(filters.exchanges))

    @cold
    def _settle_report(self, data) -> None:
        """Drop the last report if this beacon confirms it, repeat it if the beacon speaks of its cycle and does not."""
        acked_cycle = self.beacon.acked_cycle
        if not self.report or frame.cycle_of(self.report, acked_cycle) != acked_cycle:
            return
        if beacon.acknowledged(data, self.row // grid.BLOCK_SIDE, self.col // grid.BLOCK_SIDE):
            self.report = b""
        else:
            self._repeat_report()

    @rare
    def _repeat_report(self) -> None:
        self.trace.fault(REPEATED)
        self.send(TO_GATEWAY, self.report)

    @cold
    def _start_by_own_clock(self, now_ms: int) -> None:
        """Go on without the gateway, in step with the numbers it would have given."""
        self.trace.fault(OWN_CLOCK)
        cycle = self.cycle + (1 if self._free_running else MISSED_PERIODS)
        self.enter(self.run, cycle, self.wave.active.version, now_ms)
        self._free_running = True

    # What the steps ask

    @cold
    def _read(self):
        """The sensor's int16 or None; whatever a driver raises or returns instead is a counted fault."""
        try:
            reading_ccel = self._sensor.read(self.cycle)
            if reading_ccel is None or READING_MIN <= reading_ccel <= READING_MAX:
                return reading_ccel
        except Exception:  # a driver is somebody else's code
            pass
        self.trace.fault(SENSOR_FAULT)
        return None

    def _abstain_unless_current(self) -> None:
        """Without the cycle's filter version a node gives its reading and nothing else."""
        if self.version != self.wave.active.version and self.state != DONE:
            self.go(DONE)

    def _members(self, slots: int) -> int:
        """The corners of the block-mates in a mask of slots, as a mask of corners."""
        corners = 0
        for corner in range(grid.CORNERS):
            slot = self._corner_slots[corner]
            if slot >= 0 and slots >> slot & 1:
                corners |= 1 << corner
        return corners

    @cold
    def _is_owner(self) -> bool:
        """Whether no block-mate before this node was heard this cycle or the last, with the same filters."""
        recent = self._members(self._neighbours.within(RECENT) & ~self._neighbours.other_version)
        return not recent & ((1 << self._corner) - 1)

    def _awaited_members(self) -> int:
        alive = self._members(self._neighbours.within(WAITED_FOR) & ~self._neighbours.other_version)
        return alive & ~self._block.no_reading & ~self._block.pooled

    def _due_ms(self, now_ms: int) -> int:
        """Ms until the current state's time is over."""
        if self.state == IDLE:
            return IDLE_WAKE_MS
        latest = self.beacon
        if self.state == COLLECT:
            wait_ms = latest.exchange_ms * (self._exchange + 1)
        elif self.state == GATHER:
            wait_ms = latest.exchange_ms * len(self.wave.active.exchanges) + latest.gather_ms
        else:
            wait_ms = latest.period_ms * (1 if self._free_running else MISSED_PERIODS)
        return ticks_diff(ticks_add(self._entered_ms, wait_ms), now_ms)

    def _head(self, kind: int) -> bytes:
        return frame.header(kind, self.row, self.col, self.run, self.cycle, self.wave.active.version)

    def send(self, destination: int, data: bytes) -> None:
        """Count a frame and put it among those that go out."""
        self.trace.send(data[0] & 0x0F, len(data))
        self._out.append((destination, data))

    def go(self, state: int) -> None:
        """Enter a state that may follow the present one."""
        if not _MAY_FOLLOW[self.state] >> state & 1:
            raise RuntimeError("node: no way from state %d to %d" % (self.state, state))
        self.state = state
