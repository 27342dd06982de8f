"""The whole gateway without I/O: messages and time in, the beacon and one outcome a cycle out.

`service.py` is the shell around it over a real broker; the simulator can be another. A cycle ends when every node worth
waiting for is accounted for, or when its time is over; what comes later is counted, never mixed into another cycle.
"""

import json
import logging
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gateway import decision
from gateway.acknowledgement import Acknowledgement
from gateway.carried import EventAssembly, States
from gateway.carried_reports import THRESHOLD_CCEL, ChangeAssembly, Reports
from gateway.cycle_numbers import CycleNumbers
from gateway.cycles import Assembly, Presence, Record, members_of
from gateway.decision import Decision
from gateway.exactness import Comparison, compare
from gateway.head import HeadRunner
from gateway.model import SIGN, SPECS, Model
from gateway.quarantine import Quarantine
from gateway.received import Arrivals, Key, Received
from gateway.site import Cell, Site, block_of, sender_of
from gateway.wave import Holding, Rollout, holding_of
from protocol import beacon, frame, topic
from protocol.grid import BLOCK_SIDE, node_name, parse_node_name
from protocol.health import COUNTERS, COUNTERS_LEAST
from protocol.report import Report

# A node's facts are some 150 bytes; this is room for later ones.
ABOUT_SIZE_MAX = 1024
# Nodes of older releases have fewer counters.
HEALTH_SIZES = range(4 * COUNTERS_LEAST, 4 * COUNTERS + 1, 4)
# Frames carry the low half of a version: nobody can speak of one that is further ahead.
VERSIONS_AHEAD_MAX = 0x7FFF
STATES = ("init", "ready", "sleeping", "disconnected", "lost")
OFFLINE = ("disconnected", "lost")
# What a broker keeps of a node, as far as the gateway hears it.
KEPT = ("state", "about")

log = logging.getLogger(__name__)


class Timing(NamedTuple):
    """Durations of a cycle, ms: they limit waiting, a complete neighbourhood never waits.

    Attributes:
        period_ms: from beacon to beacon; nodes go on by their own clock after two missed ones. 1..PERIOD_MS_MAX of
            protocol/beacon.py.
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
    """One cycle decided: what was reported, what it means, by which model, and whether it was computed exactly.

    `arrivals`: the reports that came since the outcome before, in this cycle or in none.
    """

    record: Record
    decision: Decision
    filter_version: int
    head_revision: int
    exact: Comparison
    arrivals: Arrivals = Arrivals()


class Gateway:
    """One site's gateway.

    Attributes:
        site, model, run: what it serves, with what, since which start.
        numbers: which number the next cycle has.
        states, about, health: the latest of each node: a word of STATES, JSON facts, counters uint32 [COUNTERS].
        holdings: what each node said last of its filters.
        rollout: the latest new model on its way, None before the first.
        may_switch: asked before a cycle is computed with another model, again and again until it says so. Who keeps
            models writes it down first: nodes that try filters which a restarted gateway knows nothing of are lost.
        mode: MODE_ALWAYS, MODE_CHANGE or MODE_EVENT of protocol/beacon.py; without a layer with sign always is meant
            by event.
        threshold_ccel: in mode change, a reading that differs by more from the node's last word is said, u16.
        copies: in mode event, how often nodes say what matters, 0..COPIES_MAX of protocol/beacon.py; 0 where links
            lose nothing (firmware/watch.py).
        wants_proof: in mode event, ask every node for its own state and reading (gateway/carried.py), in mode change
            for its last word (gateway/carried_reports.py).
        received: which reports came and are kept; set before the first cycle where an earlier run kept some.
        faults: what came in and was of no use, by kind.
        node_faults: the same by node, where it came from one of the site's.
        left_behind: holes in whose name something was said that stays at a broker; who takes it off there clears this.
        quarantine: who sends more than it can need, and is not listened to.
        traffic: frames that came and went, by kind, and their bytes, for the ledger.
    """

    def __init__(
        self, site: Site, model: Model, timing: Timing, run: int, limits: decision.Limits = decision.LIMITS_DEFAULT
    ):
        """Everything checked by its own class already. Cycles are those of mode always until `mode` is set."""
        self.site = site
        self.model = model
        self.run = run
        self.numbers = CycleNumbers(timing.period_ms)
        self.states: dict[Cell, str] = {}
        self.about: dict[Cell, dict[str, Any]] = {}
        self.health: dict[Cell, NDArray[np.uint32]] = {}
        self.holdings: dict[Cell, Holding] = {}
        self.rollout: Rollout | None = None
        self.may_switch: Callable[[Model], bool] = lambda model: True
        self.mode: int = beacon.MODE_ALWAYS
        self.threshold_ccel = THRESHOLD_CCEL
        self.copies = 0
        self.wants_proof = False
        self.received = Received({})
        self.faults: Counter[str] = Counter()
        self.node_faults: dict[Cell, Counter[str]] = {}
        self.left_behind: set[Cell] = set()
        self.quarantine = Quarantine(timing.period_ms)
        self.traffic: Counter[str] = Counter()
        self._timing = timing
        self._limits = limits
        self._head = HeadRunner(SPECS[model.spec_name], model.head)
        self._decision_state = decision.init()
        self._presence = Presence(site)
        self._cells = frozenset(site.cells)
        self._base = topic.nodes(site.name)
        self._exchanges = model.filters.exchanges
        self._assembly: Assembly | EventAssembly | None = None
        self._closed: Assembly | EventAssembly | None = None
        self._node_states = States(site)
        self._reports: Reports | None = None
        self._acknowledgement = Acknowledgement(site)
        self._due_ms = 0
        self._named: set[Cell] = set()

    def push(self, model: Model, data: bytes) -> None:
        """Begin to roll out a model; whoever has the connection publishes its signed filter set on the wave's topic.

        Raises:
            ValueError: its filters' version is not above all that were heard of.
        """
        if model.filters.version <= self.highest_version:
            raise ValueError(f"version: {model.filters.version} is not above {self.highest_version}; take the next one")
        self.rollout = Rollout(model, data)

    def resume(self, data: bytes) -> None:
        """Go on as an earlier run did: nodes may still lack the filters of the model in force, signed `data`."""
        self.rollout = Rollout(self.model, data)
        self.rollout.ready = self.rollout.switched = True

    def settle(self, outcome: Outcome, kept: bool) -> None:
        """The last outcome is kept, with what came by then, or is not: then none of its reports is acknowledged."""
        self.received.settle(outcome.arrivals if kept else Arrivals())
        if kept:
            self._acknowledgement.settle(outcome.arrivals, self.received)
        else:
            self._acknowledgement.drop()

    def acknowledgements(self) -> list[tuple[Cell, bytes]]:
        """What single nodes are told before the next beacon, whose bitmap cannot tell them which reports are kept."""
        words = self._acknowledgement.words(self.received)
        self.traffic["acks"] += len(words)
        self.traffic["ack_bytes"] += sum(len(data) for _, data in words)
        return words

    @property
    def highest_version(self) -> int:
        """The highest filter version that was ever pushed or heard of from a node."""
        versions = [holding.highest for holding in self.holdings.values()]
        versions += [facts["filter_version"] for facts in self.about.values() if _is_u32(facts.get("filter_version"))]
        pushed = self.rollout.model.filters.version if self.rollout else 0
        return max([self.model.filters.version, pushed, *filter(self._is_near, versions)])

    def start_cycle(self, now_ms: int) -> bytes:
        """Open the next cycle. Returns the beacon; `poll` ends the cycle.

        Args:
            now_ms: monotonic ms, of any origin, not wrapping.
        """
        cycle = self.numbers.open(now_ms)
        for cell in self.quarantine.start_cycle(now_ms):
            self.states.pop(cell, None)  # what it said of its connection meanwhile was dropped
            self._presence.offline[cell] = False
        flags = self._follow_rollout()
        flags |= self._open_assembly(cycle, self._absent())
        challenges = beacon.CHALLENGE_EXCHANGES if self.copies and flags & beacon.MODE_MASK == beacon.MODE_EVENT else 0
        self._due_ms = now_ms + self._timing.cycle_ms(self._exchanges + challenges)
        return self._beacon(cycle, flags)

    def wave_to_repeat(self) -> bytes:
        """The signed set that is on its way, if a node next to the gateway lacks it still; else nothing.

        Such a node takes a set only while it has nothing else to do, and nobody but the gateway can offer it again.
        """
        rollout = self.rollout
        counted_on = self.counted_on()
        if rollout is None or rollout.is_over(self.holdings, counted_on):
            return b""
        version = rollout.model.filters.version
        entries = counted_on.intersection(self.site.next_to_gateway)
        has_it = all(cell in self.holdings and self.holdings[cell].holds(version) for cell in entries)
        if has_it:
            return b""
        self.traffic["waves"] += 1
        self.traffic["wave_bytes"] += len(rollout.data)
        return rollout.data

    def ask_health(self) -> bytes:
        """A beacon that asks every node for its counters and opens no cycle."""
        return self._beacon(self.numbers.latest, beacon.WANT_HEALTH | beacon.OPENS_NOTHING)

    def on_message(self, name: str, payload: bytes) -> None:
        """Take in what a node published; never raises for what others sent."""
        node_name, _, leaf = name.removeprefix(self._base).partition("/")
        try:
            cell = parse_node_name(node_name) if name.startswith(self._base) else None
        except ValueError:
            cell = None
        if cell not in self._cells:
            self.faults["stranger"] += 1
            if cell and payload and leaf in KEPT and cell[0] < self.site.rows and cell[1] < self.site.cols:
                self.left_behind.add(cell)
        elif not self.quarantine.admits(cell):
            self._on_flood(cell)
        elif leaf == "up" and frame.kind_of(payload) == frame.FILTERS:
            self._on_filters(cell, payload)
        elif leaf == "up" and frame.kind_of(payload) in (frame.STATE, frame.PROOF):
            self._on_state(cell, payload)
        elif leaf == "up":
            self._on_report(cell, payload)
        elif leaf == "state" and payload.decode("ascii", "replace") in STATES:
            self.states[cell] = payload.decode("ascii")
            self._presence.offline[cell] = self.states[cell] in OFFLINE
            if self.states[cell] == "ready":
                self._presence.heard([cell])
        elif leaf == "about":
            self._on_about(cell, payload)
        elif leaf == "health" and len(payload) in HEALTH_SIZES:
            self.health[cell] = np.frombuffer(payload.ljust(4 * COUNTERS, b"\0"), "<u4")
        else:
            self._fault("malformed", cell)

    def poll(self, now_ms: int) -> Outcome | None:
        """The cycle's outcome once it is complete or its time is over, else None."""
        assembly = self._assembly
        if assembly is None or not (now_ms >= self._due_ms or self._is_complete(assembly)):
            return None
        self._assembly, self._closed = None, assembly
        self._acknowledgement.close(assembly)
        self.faults["double"] += assembly.doubles
        self.faults["misfit"] += assembly.misfits
        record = assembly.close(self._presence)
        self._decision_state, decided = decision.update(self._decision_state, record.features, self._head, self._limits)
        exact = compare(record, self.model.filters, self.site)
        record = record._replace(late=record.late + exact.beyond)
        arrivals = self.received.arrivals()
        return Outcome(record, decided, self.model.filters.version, self.model.head.revision, exact, arrivals)

    def due_ms(self) -> int:
        """When the open cycle's time is over."""
        return self._due_ms

    def _follow_rollout(self) -> int:
        """Switch to a model that is rolled out. Returns the beacon's flag that asks nodes what they hold, or 0."""
        rollout = self.rollout
        counted_on = self.counted_on()
        if rollout is None or rollout.is_over(self.holdings, counted_on):
            return 0
        rollout.start_cycle(self.holdings, counted_on)
        if rollout.ready and not rollout.switched and self.may_switch(rollout.model):
            rollout.switched = True
            self.model = rollout.model
            self._head = HeadRunner(SPECS[self.model.spec_name], self.model.head)
            self._exchanges = self.model.filters.exchanges
        asks: int = beacon.WANT_FILTERS if rollout.asks else 0
        return asks

    def _open_assembly(self, cycle: int, absent: NDArray[np.bool_]) -> int:
        """Begin to gather a cycle of the mode asked for. Returns the beacon's flags for it."""
        filters, reports, self._reports = self.model.filters, self._reports, None
        flags: int = self.mode | (beacon.WANT_PROOF if self.wants_proof else 0)
        if self.mode == beacon.MODE_EVENT and filters.layers[0].activation == SIGN:
            self._assembly = EventAssembly(self.site, cycle, self._node_states, absent, self.wants_proof)
        elif self.mode == beacon.MODE_CHANGE:
            if reports is None or reports.version != filters.version:
                reports = Reports(filters.version)
            self._reports = reports
            self._assembly = ChangeAssembly(self.site, cycle, filters, absent, reports, self.wants_proof)
        else:
            channels = filters.layers[-1].channels_out
            self._assembly = Assembly(self.site, cycle, channels, self._exchanges, absent)
            flags = beacon.WANT_READINGS
        return flags

    def counted_on(self) -> set[Cell]:
        """The cells that are there, as far as anybody knows."""
        absent = self._absent()
        return {cell for cell in self.site.cells if not absent[cell]}

    def _is_complete(self, assembly: Assembly | EventAssembly) -> bool:
        """Whether there is nobody left to wait for; with nobody to count on, somebody may still come."""
        awaited = self.site.mask & ~self._absent()
        for row, col in map(block_of, self.quarantine.cells):  # whoever owns a block speaks for all its members
            awaited[BLOCK_SIDE * row :, BLOCK_SIDE * col :][:BLOCK_SIDE, :BLOCK_SIDE] = False
        return bool(awaited.any()) and assembly.is_complete(awaited)

    def _absent(self) -> NDArray[np.bool_]:
        """Cells not worth waiting for: gone, in quarantine, or known to have lost their connection."""
        absent = self._presence.gone | self._presence.offline
        for cell in self.quarantine.cells:
            absent[cell] = True
        return absent

    def _beacon(self, cycle: int, flags: int) -> bytes:
        timing = self._timing
        rows, cols = self.site.block_shape
        fields = beacon.Beacon(
            flags,
            self.run,
            cycle,
            timing.period_ms,
            timing.exchange_ms,
            timing.gather_ms,
            self.model.filters.version,
            self._acknowledgement.cycle,
            rows,
            cols,
            {beacon.MODE_CHANGE: self.threshold_ccel, beacon.MODE_EVENT: self.copies}.get(flags & beacon.MODE_MASK, 0),
        )
        data = beacon.pack(fields, self._acknowledgement.bitmap())
        self.traffic["beacons"] += 1
        self.traffic["beacon_bytes"] += len(data)
        return data

    def _on_report(self, cell: Cell, payload: bytes) -> None:
        try:
            report = Report(payload)
        except ValueError:
            self._fault("malformed", cell)
            return
        if sender_of(payload) != cell:
            self._fault("stranger", cell)
            return
        key = Key(cell, report.boot, report.seq)
        if not self.received.is_news(key):
            self._fault("double", cell)
            self._acknowledgement.tell(cell, report.boot)
        elif self._takes_report(cell, payload, report):
            self.received.take(key, report.has_older)
            if report.no_beacon:
                self._acknowledgement.tell(cell, report.boot)
        else:
            self.received.take_late(key, report.has_older, payload)

    def _takes_report(self, cell: Cell, payload: bytes, report: Report) -> bool:
        """Put a report into the open cycle; False where it belongs to another one, or does not fit it."""
        cycle, assembly = self._believed_cycle(cell, payload, "report"), self._assembly
        if cycle is None:
            return False
        if assembly is None or cycle != assembly.cycle:
            self._on_other_cycle(cell, cycle, report)
            latest = assembly or self._closed
            if isinstance(latest, ChangeAssembly):
                latest.take_late(cell, cycle, frame.version_of(payload), report)
            return False
        if frame.version_of(payload) != self.model.filters.version & 0xFFFF:
            self._fault("other_version", cell)
            assembly.leave_out(cell)
            return False
        if isinstance(assembly, Assembly):
            misfits = assembly.misfits
            taken = assembly.take(cell, report)
            if not taken:  # among all faults they count with the cycle's end
                self._of_node(cell)["misfit" if assembly.misfits > misfits else "double"] += 1
            return taken
        self._fault("other_mode", cell)
        assembly.leave_out(cell)
        return False

    def _on_state(self, cell: Cell, payload: bytes) -> None:
        """A node's state in mode event: of this cycle, or said late, or again."""
        if sender_of(payload) != cell or payload[frame.HEADER_SIZE] > frame.STATE_NONE:
            self._fault("malformed", cell)
            return
        state, assembly = payload[frame.HEADER_SIZE], self._assembly
        is_proof = frame.kind_of(payload) == frame.PROOF
        cycle = self._believed_cycle(cell, payload, "proof" if is_proof else "state")
        if cycle is None:
            return
        is_due = assembly is not None and cycle == assembly.cycle
        is_other = frame.version_of(payload) != self.model.filters.version & 0xFFFF
        if is_due and is_other and isinstance(assembly, EventAssembly):
            self._fault("other_version", cell)
            assembly.leave_out(cell)
        elif is_due and is_proof and isinstance(assembly, EventAssembly | ChangeAssembly):
            assembly.take_proof(cell, state, frame.i16(payload, frame.HEADER_SIZE + 1))
        elif is_due and isinstance(assembly, EventAssembly):
            assembly.take_state(cell, state)
        elif not is_proof:
            self.numbers.hear(cycle)
            self._fault("late_report", cell)
            self._node_states.take(cell, cycle, state)
            self._acknowledgement.on_late_state(cell, cycle)

    def _believed_cycle(self, cell: Cell, payload: bytes, name: str) -> int | None:
        """The cycle that a frame speaks of, None where it is not of this run or too far off; counts its traffic."""
        cycle: int = frame.cycle_of(payload, self.numbers.latest)
        self.traffic[name + "s"] += 1
        self.traffic[name + "_bytes"] += len(payload)
        if frame.run_of(payload) != self.run & 0xFF or cycle < 0:
            self._fault("other_run", cell)
            return None
        if not self.numbers.believes(cycle):
            self._fault("too_far_ahead", cell)
            return None
        return cycle

    def _on_filters(self, cell: Cell, payload: bytes) -> None:
        if sender_of(payload) != cell:
            self._fault("stranger", cell)
            return
        self.traffic["holdings"] += 1
        self.traffic["holding_bytes"] += len(payload)
        holding = holding_of(payload, self.model.filters.version)
        if self._is_near(holding.highest):
            self.holdings[cell] = holding
            self._presence.heard([cell])  # it may be one that has nothing to report while its filters are others
        else:
            self._fault("version_too_far_ahead", cell)

    def _is_near(self, version: int) -> bool:
        return version - self.model.filters.version <= VERSIONS_AHEAD_MAX

    def _on_other_cycle(self, cell: Cell, cycle: int, report: Report) -> None:
        """A report that is late, or of a mesh that went on by its own clock: then number on from there."""
        self.numbers.hear(cycle)
        self._fault("late_report", cell)
        spoken_of = report.pooled | report.no_reading
        places = [place for corner, place in enumerate(members_of(cell)) if spoken_of >> corner & 1]
        members = [place for place in places if place in self._cells]
        self._presence.heard(members)
        self._acknowledgement.on_late_report(cell, cycle)
        log.debug("node %s cycle %d: report outside its cycle", node_name(*cell), cycle)

    def _on_about(self, cell: Cell, payload: bytes) -> None:
        try:
            facts = json.loads(payload) if len(payload) <= ABOUT_SIZE_MAX else None
        except (ValueError, RecursionError):
            facts = None
        if not isinstance(facts, dict):
            self._fault("malformed", cell)
            return
        self.about[cell] = facts
        if _is_u32(facts.get("boot")):
            self.received.start(cell, facts["boot"])
        wire = facts.get("wire", frame.WIRE_VERSION)  # nodes of the first releases do not say it
        if wire != frame.WIRE_VERSION:
            self._fault("other_wire_version", cell)
            says = f"says that it speaks wire version {str(wire)[:20]!r}, not {frame.WIRE_VERSION}"
            log.warning("node %s %s: it takes no part; flash it with this release", node_name(*cell), says)

    def _on_flood(self, cell: Cell) -> None:
        """A message of a node in quarantine is dropped as it is."""
        self._fault("flood", cell)
        if cell not in self._named:
            self._named.add(cell)
            log.warning("node %s sends more than it can need: not listened to until it behaves", node_name(*cell))

    def _fault(self, kind: str, cell: Cell) -> None:
        self.faults[kind] += 1
        self._of_node(cell)[kind] += 1

    def _of_node(self, cell: Cell) -> Counter[str]:
        return self.node_faults.setdefault(cell, Counter())


def _is_u32(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 0xFFFFFFFF
