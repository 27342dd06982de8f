"""The whole gateway without I/O: messages and time in, the beacon and one outcome a cycle out.

`service.py` is the shell around it over a real broker; the simulator can be another. A cycle ends when every node worth
waiting for is accounted for, or when its time is over; what comes later is counted, never mixed into another cycle.
"""

import json
import logging
from collections import Counter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gateway import decision
from gateway.cycles import Assembly, Presence, Record
from gateway.decision import Decision
from gateway.exactness import Comparison, compare
from gateway.head import HeadRunner
from gateway.model import CONV3X3, SPECS, Model
from gateway.site import Cell, Site
from protocol import beacon, frame, topic
from protocol.grid import parse_node_name
from protocol.health import COUNTERS
from protocol.report import Report

# A node's facts are some 150 bytes; this is room for later ones.
ABOUT_SIZE_MAX = 1024
STATES = ("init", "ready", "sleeping", "disconnected", "lost")
OFFLINE = ("disconnected", "lost")

log = logging.getLogger(__name__)


class Timing(NamedTuple):
    """Durations of a cycle, ms: they limit waiting, a complete neighbourhood never waits.

    Attributes:
        period_ms: from beacon to beacon; nodes go on by their own clock after two missed ones. 1..2^32 - 1.
        exchange_ms: for each exchange. 1..65535.
        gather_ms: for the block's members to hand over. 1..65535.
        report_ms: for the reports to arrive.
    """

    period_ms: int
    exchange_ms: int = 2_500
    gather_ms: int = 1_500
    report_ms: int = 1_500

    def cycle_ms(self, exchanges: int) -> int:
        """The longest that a cycle of so many exchanges can take."""
        return self.exchange_ms * exchanges + self.gather_ms + self.report_ms


class Outcome(NamedTuple):
    """One cycle decided: what was reported, what it means, by which model, and whether it was computed exactly."""

    record: Record
    decision: Decision
    filter_version: int
    head_revision: int
    exact: Comparison


class Gateway:
    """One site's gateway.

    Attributes:
        site, model, run: what it serves, with what, since which start.
        next_cycle: the number that the next cycle gets at least.
        states, about, health: the latest of each node: a word of STATES, JSON facts, counters uint32 [COUNTERS].
        faults: what came in and was of no use, by kind.
        taken: reports and bytes taken in, beacons and bytes sent, for the ledger.
    """

    def __init__(
        self, site: Site, model: Model, timing: Timing, run: int, limits: decision.Limits = decision.LIMITS_DEFAULT
    ):
        """Everything checked by its own class already."""
        self.site = site
        self.model = model
        self.run = run
        self.next_cycle = 0
        self.states: dict[Cell, str] = {}
        self.about: dict[Cell, dict[str, Any]] = {}
        self.health: dict[Cell, NDArray[np.uint32]] = {}
        self.faults: Counter[str] = Counter()
        self.taken: Counter[str] = Counter()
        self._timing = timing
        self._limits = limits
        self._head = HeadRunner(SPECS[model.spec_name], model.head)
        self._decision_state = decision.init()
        self._presence = Presence(site)
        self._cells = frozenset(site.cells)
        self._base = topic.base(site.name) + "n/"
        self._exchanges = sum(layer.kind == CONV3X3 for layer in model.filters.layers)
        self._assembly: Assembly | None = None
        self._acked_cycle = 0
        self._acked = np.zeros(site.block_shape, np.bool_)
        self._due_ms = 0

    def start_cycle(self, now_ms: int) -> bytes:
        """Open the next cycle. Returns the beacon; `poll` ends the cycle.

        Args:
            now_ms: monotonic ms, of any origin, not wrapping.
        """
        cycle = self.next_cycle
        self.next_cycle += 1
        channels = self.model.filters.layers[-1].channels_out
        self._assembly = Assembly(self.site, cycle, channels, self._exchanges, self._absent())
        self._due_ms = now_ms + self._timing.cycle_ms(self._exchanges)
        return self._beacon(cycle, beacon.WANT_READINGS)

    def ask_health(self) -> bytes:
        """A beacon that asks every node for its counters and opens no cycle."""
        return self._beacon(max(self.next_cycle - 1, 0), beacon.WANT_HEALTH | beacon.OPENS_NOTHING)

    def on_message(self, name: str, payload: bytes) -> None:
        """Take in what a node published; never raises for what others sent."""
        node_name, _, leaf = name.removeprefix(self._base).partition("/")
        try:
            cell = parse_node_name(node_name)
        except ValueError:
            cell = None
        if cell not in self._cells:
            self.faults["stranger"] += 1
        elif leaf == "up":
            self._on_report(cell, payload)
        elif leaf == "state" and payload.decode("ascii", "replace") in STATES:
            self.states[cell] = payload.decode("ascii")
        elif leaf == "about":
            self._on_about(cell, payload)
        elif leaf == "health" and len(payload) == 4 * COUNTERS:
            self.health[cell] = np.frombuffer(payload, "<u4")
        else:
            self.faults["malformed"] += 1

    def poll(self, now_ms: int) -> Outcome | None:
        """The cycle's outcome once it is complete or its time is over, else None."""
        assembly = self._assembly
        if assembly is None or not (assembly.is_complete(self.site.mask & ~self._absent()) or now_ms >= self._due_ms):
            return None
        self._assembly = None
        self._acked_cycle, self._acked = assembly.cycle, assembly.reported_blocks
        self.faults["double"] += assembly.doubles
        self.faults["misfit"] += assembly.misfits
        record = assembly.close(self._presence)
        self._decision_state, decided = decision.update(
            self._decision_state, record.features, self._head, self._limits
        )
        exact = compare(record, self.model.filters, self.site)
        record = record._replace(late=record.late + exact.beyond)
        return Outcome(record, decided, self.model.filters.version, self.model.head.revision, exact)

    def due_ms(self) -> int:
        """When the open cycle's time is over."""
        return self._due_ms

    def _absent(self) -> NDArray[np.bool_]:
        """Cells not worth waiting for: gone, or known to have lost their connection."""
        absent = self._presence.gone
        for cell, state in self.states.items():
            absent[cell] |= state in OFFLINE
        return absent

    def _beacon(self, cycle: int, flags: int) -> bytes:
        timing = self._timing
        rows, cols = self.site.block_shape
        fields = beacon.Beacon(
            beacon.MODE_ALWAYS | flags,
            self.run,
            cycle,
            timing.period_ms,
            timing.exchange_ms,
            timing.gather_ms,
            self.model.filters.version,
            self._acked_cycle,
            rows,
            cols,
        )
        data = beacon.pack(fields, np.packbits(self._acked, bitorder="little").tobytes())
        self.taken["beacons"] += 1
        self.taken["beacon_bytes"] += len(data)
        return data

    def _on_report(self, cell: Cell, payload: bytes) -> None:
        try:
            report = Report(payload)
        except ValueError:
            self.faults["malformed"] += 1
            return
        if (frame.row_of(payload), frame.col_of(payload)) != cell:
            self.faults["stranger"] += 1
            return
        cycle = frame.cycle_of(payload, max(self.next_cycle - 1, 0))
        self.taken["reports"] += 1
        self.taken["report_bytes"] += len(payload)
        if frame.run_of(payload) != self.run & 0xFF or cycle < 0:
            self.faults["other_run"] += 1
        elif frame.version_of(payload) != self.model.filters.version & 0xFFFF:
            self.faults["other_version"] += 1
        elif self._assembly is None or cycle != self._assembly.cycle:
            self._on_other_cycle(cell, cycle)
        else:
            self._assembly.take(cell, report)

    def _on_other_cycle(self, cell: Cell, cycle: int) -> None:
        """A report that is late, or of a mesh that went on by its own clock: then number on from there."""
        if cycle >= self.next_cycle:
            self.next_cycle = cycle + 1
        self.faults["late_report"] += 1
        log.info("node %s cycle %d: report outside its cycle", cell, cycle)

    def _on_about(self, cell: Cell, payload: bytes) -> None:
        try:
            facts = json.loads(payload) if len(payload) <= ABOUT_SIZE_MAX else None
        except (ValueError, RecursionError):
            facts = None
        if isinstance(facts, dict):
            self.about[cell] = facts
        else:
            self.faults["malformed"] += 1
