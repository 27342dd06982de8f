"""Mode always: in every cycle each node says its reading, computes its units layer by layer, and its block is reported.

Plan of a cycle: publish the reading, then for each exchange wait until the neighbourhood is complete or its time is
over, compute, publish. The last activations go to the block's owner; the owner gathers and reports.

Rules: nothing said twice within a cycle; a frame of another run or of an earlier cycle changes nothing; whatever is
missing when a unit is computed is replaced by the node's own value and its bit set (firmware/neighbours.py).
"""

from array import array

from firmware.filters import compute_unit
from firmware.neighbours import AHEAD_MAX, RECENT, WAITED_FOR, Neighbours
from firmware.pool import Block
from firmware.stages import COLLECT, DONE, GATHER, TO_BLOCK, TO_HALO
from protocol import beacon, frame, grid, report
from protocol.compat import cold, rare
from protocol.filter_set import TRIAL
from protocol.fixed import centred
from protocol.health import DEADLINE, DOUBLE, OTHER_SHAPE, STALE


class Layerwise:
    """What one node knows and does in mode always."""

    @cold
    def __init__(self, node):
        """Everybody counts as there until the first cycles show who is not."""
        self._node = node
        self._neighbours = Neighbours(node.exists)
        self._corner = grid.corner_of(node.row, node.col)
        self._corner_slots = grid.corner_slots(node.row, node.col)
        self._own = array("H", (0,))
        self._filters = self._block = None

    @cold
    def begin(self) -> None:
        """A cycle begins, its sensor was read: tell the neighbours, start collecting."""
        node = self._node
        if self._filters is not node.wave.active:
            self._filters = self._block = None  # they leave their room to what comes
            self._change_filters()
        self._neighbours.start_cycle()
        self._block.start_gathering()
        if node.reading_ccel is None:
            self._do_without_reading()
            return
        node.send(TO_HALO, frame.reading(node.header(frame.READING), node.reading_ccel))
        self._own[0] = centred(node.reading_ccel, self._filters.reference_ccel)
        node.abstain_unless_current()

    @rare
    def _change_filters(self) -> None:
        filters = self._node.wave.active
        self._neighbours.use([filters.inputs[k] for k in filters.exchanges])
        self._block = Block(len(filters.values[-1]), len(filters.exchanges))
        self._filters = filters  # once all the rest is there: else the next cycle begins with this again

    @rare
    def _do_without_reading(self) -> None:
        """Say so, and gather the block if that is this node's part."""
        node = self._node
        node.send(TO_HALO, node.header(frame.NO_READING))
        self._block.no_reading |= 1 << self._corner
        node.abstain_unless_current()
        if node.state != DONE:
            node.go(GATHER if self._is_owner() else DONE)
            if node.wave.phase == TRIAL:
                node.wave.completed += 1

    def feed(self, kind: int, slot: int, data, now_ms: int) -> None:
        """Take in a neighbour's frame."""
        node = self._node
        cycle = frame.cycle_of(data, node.cycle)
        if frame.run_of(data) != node.run & 0xFF or cycle < node.cycle or cycle > node.cycle + AHEAD_MAX:
            node.trace.fault(STALE)
            return
        if cycle > node.cycle:
            node.enter(node.run, cycle, frame.version_of(data), now_ms)
            if node.mode is not self:
                return  # its filters brought another mode with them
        node.trace.take(kind, len(data))
        node.wave.notice(slot, frame.version_of(data), now_ms)
        same_version = frame.version_of(data) == self._filters.version & 0xFFFF
        self._neighbours.hear(slot, same_version)
        stored = self._store(kind, slot, data, same_version)
        if not stored:
            node.trace.fault(OTHER_SHAPE if stored is None else DOUBLE)

    def _store(self, kind: int, slot: int, data, same_version: bool) -> bool:
        """Put a neighbour's frame where it belongs; False if it says what was said before, None if it does not fit."""
        if kind == frame.READING:
            value = centred(frame.i16(data, frame.HEADER_SIZE), self._filters.reference_ccel)
            return self._neighbours.put(0, slot, (value,), 0, 1)
        if kind == frame.NO_READING:
            return self._do_without(slot)
        if not same_version:  # units of different filters are never convolved or pooled together
            return True
        if kind == frame.ACTIVATIONS:
            return self._store_activations(slot, data)
        if slot in self._corner_slots and self._node.state != DONE:
            return self._pool(self._corner_slots.index(slot), data)
        return True

    @rare
    def _do_without(self, slot: int) -> bool:
        """A neighbour has no reading."""
        new = self._neighbours.deny(slot)
        if new and slot in self._corner_slots:
            self._block.no_reading |= 1 << self._corner_slots.index(slot) & ~self._block.pooled
        return new

    @rare
    def _pool(self, corner: int, data) -> bool:
        """A member handed over its last activations: three times a cycle at most."""
        return self._block.put_frame(corner, data)

    def _store_activations(self, slot: int, data) -> bool:
        exchange, channels = data[frame.HEADER_SIZE], len(data) - frame.HEADER_SIZE - 1
        inputs = self._neighbours.inputs
        if not 0 < exchange < len(inputs) or channels * grid.TAPS != len(inputs[exchange]):
            return None
        return self._neighbours.put(exchange, slot, data, frame.HEADER_SIZE + 1, channels)

    def step(self, is_over: bool) -> bool:
        """Take the next step if nothing has to be waited for; False when there is none to take now.

        `is_over`: the time for what the node waits for.
        """
        state = self._node.state
        if state == COLLECT:
            return self._finish_waiting(self._neighbours.awaited(self._node.exchange), is_over) and self._compute()
        if state == GATHER:
            return self._finish_waiting(self._awaited_members(), is_over) and self._report_block()
        return False

    def _finish_waiting(self, awaited: int, is_over: bool) -> bool:
        if not awaited:
            return True
        if is_over:
            self._node.trace.fault(DEADLINE)
        return is_over

    @cold
    def _compute(self) -> bool:
        node, filters = self._node, self._filters
        layer = filters.exchanges[node.exchange]
        self._neighbours.fill(node.exchange, filters.values[layer - 1] if layer else self._own)
        layer = compute_unit(filters, layer)
        values = filters.values[layer - 1]
        if layer < len(filters.values):
            node.exchange += 1
            node.send(TO_HALO, frame.activations(node.header(frame.ACTIVATIONS), node.exchange, values))
        else:
            self._hand_over(values)
        return True

    @cold
    def _hand_over(self, values) -> None:
        """Pool the last activations oneself, or give them to the block's owner."""
        node = self._node
        wanted = node.beacon.flags & beacon.WANT_READINGS
        reading_ccel = node.reading_ccel if wanted else None
        absence = self._neighbours.absence
        if self._is_owner():
            self._block.put(self._corner, values, absence, reading_ccel)
            node.go(GATHER)
        else:
            node.send(TO_BLOCK, frame.member(node.header(frame.MEMBER), absence, reading_ccel, values))
            node.go(DONE)
        if node.wave.phase == TRIAL:
            node.wave.completed += 1

    @cold
    def _report_block(self) -> bool:
        node = self._node
        node.seq += 1
        features = self._block.features()
        node.tell_gateway(report.pack(node.header(frame.REPORT), node.boot, node.seq, self._block, features))
        node.go(DONE)
        return True

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
