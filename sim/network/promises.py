"""What must hold whatever goes wrong, as far as it exists, checked after every step of every part.

P1 P2 P3 P5  of the store: store_promises.py
P4      a node computes with a complete set that was flashed or signed, never older than the last one it confirmed; what
        lies on its flash is the same at any instant
P6      nothing raises
exact   every feature that can be recomputed equals the twin's
mixed   a cycle's units are all reported by frames of the cycle's filter version
rising  the highest version that a node ever held never goes down, over resets too
calm    without faults nothing is late, and every node takes part
states  mode event: without faults, and RECOVERY_CYCLES after the last one, every node's own state is that of a full
        exchange. `exact` is then promised without faults only: a state that is lost on its way to the gateway may be
        acknowledged with another one of its block, and is not said again before it changes
wave    some time after the last fault every node has confirmed the newest filters
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from firmware import slots
from firmware.quiet import HEARTBEAT
from gateway.cycles import members_of
from gateway.gateway import Outcome
from gateway.site import Cell, Site, sender_of
from protocol import frame
from protocol.filter_set import CONFIRMED, PHASES, STAGED, TRIAL
from protocol.report import Report
from sim.network.agreement import Judged
from sim.network.node_shell import NodeShell

NAMES = ("P1", "P2", "P3", "P4", "P5", "P6", "exact", "mixed", "rising", "calm", "states", "wave")
# Mode event: the second heartbeat behind a fault is over.
RECOVERY_CYCLES = 2 * HEARTBEAT + 1
# So many broken promises are kept; the first one is what matters.
KEPT_MAX = 20


class Broken(NamedTuple):
    """A promise that did not hold: its name, virtual ms, who, and what was found."""

    promise: str
    now_ms: int
    who: str
    what: str


class Promises:
    """The checks, and what they found.

    Attributes:
        broken: the first KEPT_MAX.
        checked: how often each promise was looked at.
    """

    def __init__(self, site: Site, flashed: bytes, version: int):
        """`flashed`: the filter set that all nodes begin with, of this version."""
        self.broken: list[Broken] = []
        self.checked = dict.fromkeys(NAMES, 0)
        self._site = site
        self._versions = {flashed: version}
        self._confirmed: dict[Cell, int] = {}
        self._highest: dict[Cell, int] = {}
        self._seen: dict[Cell, tuple[int, int, int, int, int]] = {}

    def know(self, signed: bytes, version: int) -> None:
        """The gateway signed this set."""
        self._versions[signed] = version

    def fail(self, promise: str, now_ms: int, who: str, what: str) -> None:
        """A promise is broken."""
        if len(self.broken) < KEPT_MAX:
            self.broken.append(Broken(promise, now_ms, who, what))

    def check_node(self, shell: NodeShell, now_ms: int) -> None:
        """After each step of a node; it looks at the flash where something changed."""
        node = shell.node
        if node is None:
            return
        wave = node.wave
        version = wave.active.version
        seen = shell.boots, version, wave.phase, wave.highest, wave.state
        self.checked["P4"] += 1
        self.checked["rising"] += 1
        if self._seen.get(shell.cell) == seen:
            return
        self._seen[shell.cell] = seen
        if wave.highest < self._highest.get(shell.cell, 0):
            self.fail("rising", now_ms, shell.name, f"highest {wave.highest} after {self._highest[shell.cell]}")
        self._highest[shell.cell] = wave.highest
        if version not in self._versions.values() or version < self._confirmed.get(shell.cell, 0):
            confirmed = self._confirmed.get(shell.cell, 0)
            self.fail("P4", now_ms, shell.name, f"computes with {version}, had confirmed {confirmed}")
        if wave.phase == CONFIRMED:
            self._confirmed[shell.cell] = version
        self._check_flash(shell, version, now_ms)

    def check_exact(self, outcome: Outcome, now_ms: int) -> None:
        """After each cycle; in mode event after those of a scenario without faults."""
        record, exact = outcome.record, outcome.exact
        self.checked["exact"] += exact.compared
        if exact.equal != exact.compared:
            wrong = exact.compared - exact.equal
            self.fail("exact", now_ms, "gateway", f"cycle {record.cycle}: {wrong} of {exact.compared} features differ")

    def check_states(self, judged: Judged, now_ms: int) -> None:
        """After each cycle of mode event in which nothing can be wrong any more."""
        self.checked["states"] += 1
        if judged.wrong or judged.unproven:
            nodes = f"states of {list(judged.wrong)[:4]} differ, {list(judged.unproven)[:4]} proved none"
            self.fail("states", now_ms, "nodes", f"cycle {judged.cycle}: {nodes}")

    def check_mixed(self, outcome: Outcome, reports: list[bytes], run: int, now_ms: int) -> None:
        """After each cycle; `reports` are the payloads that came in for it or at the same time."""
        record = outcome.record
        self.checked["mixed"] += int(record.pooled.sum())
        unknown = record.pooled & ~self._spoken_of(reports, run, record.cycle, outcome.filter_version)
        if unknown.any():
            cells = np.argwhere(unknown).tolist()
            self.fail("mixed", now_ms, "gateway", f"cycle {record.cycle}: {cells} are not of {outcome.filter_version}")

    def check_calm(self, outcome: Outcome, now_ms: int) -> None:
        """After a cycle in a scenario without faults."""
        self.checked["calm"] += 1
        took_part = outcome.record.pooled if outcome.record.proofs is None else outcome.record.has_reading
        missing = int((self._site.mask & ~took_part).sum())
        if outcome.record.late or missing:
            what = f"cycle {outcome.record.cycle}: {outcome.record.late} values late, {missing} nodes missing"
            self.fail("calm", now_ms, "gateway", what)

    def check_wave(self, shells: list[NodeShell], version: int, now_ms: int) -> None:
        """At the end, long after the last fault."""
        missing = []
        for shell in shells:
            self.checked["wave"] += 1
            wave = shell.node.wave if shell.node else None
            if wave is None:
                missing.append(f"{shell.name} down")
            elif (wave.active.version, wave.phase, wave.highest) != (version, CONFIRMED, version):
                held = f"{wave.active.version} {PHASES[wave.phase]}, highest {wave.highest}, state {wave.state}"
                missing.append(f"{shell.name} {held}")
        if missing:
            few = ", ".join(missing[:4])
            self.fail("wave", now_ms, "nodes", f"{len(missing)} have not confirmed version {version}: {few}")

    def _check_flash(self, shell: NodeShell, version: int, now_ms: int) -> None:
        """Whether the record names a known set in each slot that counts, and the one in use."""
        active, phase, highest, _ = slots.read_record(shell.path)
        counting = (active, 1 - active) if phase in (STAGED, TRIAL) else (active,)
        found = [self._versions.get(_content(slots.slot_path(shell.path, slot))) for slot in counting]
        if None in found or found[0] != version:
            self.fail("P4", now_ms, shell.name, f"computes with {version}; its flash, {PHASES[phase]}, holds {found}")
        if highest is not None and highest < self._highest.get(shell.cell, 0):
            self.fail("rising", now_ms, shell.name, f"its flash says {highest} is the highest")

    def _spoken_of(self, reports: list[bytes], run: int, cycle: int, version: int) -> NDArray[np.bool_]:
        """Cells that reports or states of exactly this cycle and version gave, bool [rows, cols]."""
        cells = np.zeros((self._site.rows + 1, self._site.cols + 1), np.bool_)
        for data in reports:
            same_cycle = frame.run_of(data) == run & 0xFF and frame.cycle_of(data, cycle) == cycle
            if not same_cycle or frame.version_of(data) != version & 0xFFFF:
                continue
            sender = sender_of(data)
            if frame.kind_of(data) == frame.STATE:
                cells[sender] = True
                continue
            pooled = Report(data).pooled
            for corner, member in enumerate(members_of(sender)):
                cells[member] |= bool(pooled >> corner & 1)
        return cells[:-1, :-1]


def _content(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""
