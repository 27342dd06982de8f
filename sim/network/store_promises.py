"""What must hold of the gateway's store, as far as it exists; what broke goes to promises.py.

A report is that of a block's owner; in mode event the state of one node takes its place.

P1      what a beacon acknowledges is in the store: the cycle, and every report of it that came in; and so is each
        report that a node forgot because it was told so. It stays there over restarts, and a cycle that could not be
        stored is never acknowledged
P2      at the end each report that was ever made is in the store, or in a gap, or its node still holds it
P3      each cycle that was stored is there once, in the order decided, and no other; it holds what reports of this very
        cycle said; each report is in the store once at most, in its cycle or among the late ones
P5      a stored cycle gives the same scores, decision and comparison once more, when it is stored and at the end
"""

import sys
from typing import NamedTuple

import numpy as np

from gateway.cycles import Record, members_of
from gateway.gateway import Outcome
from gateway.received import Arrivals, Key, key_of
from gateway.recompute import agrees, recompute
from gateway.site import Cell, block_of, sender_of
from gateway.store import Store, StoredCycle
from protocol import beacon, frame
from protocol.grid import CORNERS
from protocol.report import Report
from sim.network.promises import Promises


class Said(NamedTuple):
    """A report or a state that came in: who sent it, what it says (None: a state), its bytes."""

    owner: Cell
    report: Report | None
    data: bytes

    @property
    def block(self) -> Cell:
        """Its block: (row, column)."""
        return block_of(self.owner)

    @property
    def pooled(self) -> list[Cell]:
        """The cells whose unit or state it gives."""
        if self.report is None:
            return [self.owner] if self.data[frame.HEADER_SIZE] < frame.STATE_NONE else []
        return self._members(self.report.pooled)

    @property
    def spoken_of(self) -> list[Cell]:
        """These, and those that it says to have no reading."""
        return [self.owner] if self.report is None else self._members(self.report.pooled | self.report.no_reading)

    def _members(self, mask: int) -> list[Cell]:
        return [cell for corner, cell in enumerate(members_of(self.owner)) if mask >> corner & 1]


class StorePromises:
    """The checks; they read the file through a connection of their own, and so see what is committed."""

    def __init__(self, store: Store, promises: Promises):
        """Nothing is stored yet. `promises` counts the checks and keeps what broke."""
        self._store = store
        self._promises = promises
        self._stored: list[tuple[int, int]] = []
        self._acknowledged: set[tuple[int, int]] = set()
        self._kept: set[Key] = set()
        self._made: set[Key] = set()

    def check_cycle(self, outcome: Outcome, is_stored: bool, run: int, payloads: list[bytes], now_ms: int) -> None:
        """After each cycle; `payloads` are the reports that came in since it opened."""
        key = run, outcome.record.cycle
        found = self._store.cycle(*key)
        self._promises.checked["P3"] += 1
        if is_stored != (found is not None):
            words = "is not in the store" if is_stored else "is in the store"
            self._fail("P3", now_ms, f"cycle {key}: stored {is_stored}, yet it {words}")
        if found is None:
            return
        self._stored.append(key)
        self._check_content(found, _said_in(key, payloads), now_ms)
        self._check_keys(key, outcome.arrivals, now_ms)
        self._check_decision(found, outcome, now_ms)

    def make(self, data: bytes) -> None:
        """A node says a report, whether anybody hears it or not."""
        self._made.add(key_of(data))

    def check_told(self, forgotten: set[bytes], now_ms: int) -> None:
        """A node forgets reports because it was told that they are stored."""
        self._promises.checked["P1"] += 1
        lost = [key for key in map(key_of, forgotten) if key not in self._kept]
        if lost:
            self._fail("P1", now_ms, f"a node was told that reports {sorted(lost)[:4]} are stored")

    def check_held(self, held: set[bytes], now_ms: int) -> None:
        """At the end; `held`: what nodes still hold."""
        self._promises.checked["P2"] += 1
        gaps = list(self._store.gaps())
        lost = self._made - self._kept - set(map(key_of, held))
        silent = [key for key in lost if not any(gap.has(key) for gap in gaps)]
        # Of starts that nobody ever heard of nothing can be known, and nothing of what came behind the last one heard.
        latest = {cell: found[-1] for cell, found in self._store.reporters().items()}
        heard = {(cell, start.boot) for cell, found in self._store.reporters().items() for start in found}
        silent = [key for key in silent if (key.cell, key.boot) in heard]
        silent = [key for key in silent if key.boot != latest[key.cell].boot or key.seq <= latest[key.cell].last]
        if silent:
            self._fail("P2", now_ms, f"reports {sorted(silent)[:4]} are lost, and in no gap")

    def check_beacon(self, data: bytes, payloads: list[bytes], now_ms: int) -> None:
        """Before a beacon goes out; `payloads` are the reports that came in since the one before."""
        fields = beacon.unpack(data)  # type: ignore[no-untyped-call]  # MicroPython has no typing
        if fields is None:
            return
        bitmap_size = (fields.block_rows * fields.block_cols + 7) // 8
        if not any(data[beacon.SIZE : beacon.SIZE + bitmap_size]):
            return
        key = fields.run, fields.acked_cycle
        self._promises.checked["P1"] += 1
        self._acknowledged.add(key)
        found = self._store.cycle(*key)
        if found is None:
            self._fail("P1", now_ms, f"cycle {key} is acknowledged and not stored")
            return
        for words in _said_in(key, payloads):
            held = _holds(found.outcome.record, words) if words.report is None else key_of(words.data) in self._kept
            if beacon.acknowledged(data, *words.block) and not held:
                self._fail("P1", now_ms, f"cycle {key}: the report of {words.owner} is acknowledged and not stored")

    def check_all(self, now_ms: int) -> None:
        """At the end: the whole store."""
        keys = []
        for found in self._store.latest_cycles(sys.maxsize):
            keys.append((found.run, found.outcome.record.cycle))
            self._check_decision(found, found.outcome, now_ms)
        lost = self._acknowledged.difference(keys)
        if lost:
            self._fail("P1", now_ms, f"cycles {sorted(lost)[:4]} were acknowledged and are not stored any more")
        late = [found.key for found in self._store.late_reports()]
        reports = [name for key in keys for name in self._store.reports(*key)] + late
        if len(reports) != len(set(reports)) or self._kept != set(reports):
            self._fail("P3", now_ms, f"the store holds {len(reports)} reports, not the {len(self._kept)} that went in")
        if keys != self._stored:
            self._fail("P3", now_ms, f"the store holds {len(keys)} cycles, not the {len(self._stored)} that went in")

    def _check_content(self, found: StoredCycle, said: list[Said], now_ms: int) -> None:
        """Whether each unit is as a report of this cycle and version gave it."""
        record, version = found.outcome.record, found.outcome.filter_version & 0xFFFF
        known = {unit for words in said if frame.version_of(words.data) == version for unit in _units(words)}
        in_event = record.proofs is not None  # a reading is then that of the proof, which is in no report
        for row, col in np.argwhere(record.pooled).tolist():
            reading = int(record.readings_ccel[row, col]) if record.has_reading[row, col] and not in_event else None
            if ((row, col), reading, bytes(record.absence[:, row, col])) not in known:
                self._fail("P3", now_ms, f"cycle {record.cycle}: no report of it gave the unit stored for {(row, col)}")

    def _check_keys(self, key: tuple[int, int], arrivals: Arrivals, now_ms: int) -> None:
        in_cycle = self._store.reports(*key)
        if in_cycle != sorted(arrivals.in_cycle):
            stored, due = len(in_cycle), len(arrivals.in_cycle)
            self._fail("P3", now_ms, f"cycle {key}: rests on {due} reports, {stored} are stored, and not the same")
        came = [*in_cycle, *(late.key for late in arrivals.late)]
        again = self._kept.intersection(came)
        if again or len(came) != len(set(came)):
            self._fail("P3", now_ms, f"cycle {key}: reports {sorted(again)[:4]} are stored already")
        self._kept.update(came)

    def _check_decision(self, found: StoredCycle, decided: Outcome, now_ms: int) -> None:
        """Whether what is stored gives once more what was decided."""
        self._promises.checked["P5"] += 1
        again = recompute(self._store, found)
        if not agrees(again, decided):
            what = f"{again.decision} {again.exact}, not {decided.decision} {decided.exact}"
            self._fail("P5", now_ms, f"run {found.run} cycle {decided.record.cycle}: {what}")

    def _fail(self, promise: str, now_ms: int, what: str) -> None:
        self._promises.fail(promise, now_ms, "store", what)


def _said_in(key: tuple[int, int], payloads: list[bytes]) -> list[Said]:
    """The reports of a run's cycle among those that came in."""
    run, cycle = key
    found = []
    for data in payloads:
        if frame.run_of(data) == run & 0xFF and frame.cycle_of(data, cycle) == cycle:
            report = Report(data) if frame.kind_of(data) == frame.REPORT else None
            found.append(Said(sender_of(data), report, data))
    return found


def _units(words: Said) -> list[tuple[Cell, int | None, bytes]]:
    """Cell, reading and absence bytes of each unit that a report pooled."""
    report = words.report
    if report is None:
        return [(cell, None, b"\0") for cell in words.pooled]
    corners = [corner for corner in range(CORNERS) if report.pooled >> corner & 1]
    units = zip(words.pooled, corners, strict=True)
    return [(cell, report.readings[corner], bytes(report.absence[corner])) for cell, corner in units]


def _holds(record: Record, words: Said) -> bool:
    """Whether a record holds the state that a node said."""
    in_pool = all(record.pooled[cell] for cell in words.pooled)
    return in_pool and all(record.pooled[cell] or record.no_reading[cell] for cell in words.spoken_of)
