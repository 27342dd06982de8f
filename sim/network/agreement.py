"""Mode event beside a full exchange: what nodes and gateway take for true, and what it costs on the air.

Every node proves its own state in each cycle. The proofs are looked at where they leave the node, so that one lost on
its way hides nothing. The truth is a full exchange, without any loss, of the readings of all nodes that run.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from firmware.stages import TO_GATEWAY
from gateway import twin
from gateway.gateway import Outcome
from gateway.ledger import AIR_OVERHEAD
from gateway.model import Filters
from gateway.site import Cell, Site
from protocol import frame
from protocol.frame import STATE_NONE
from sim.network.node_shell import NodeShell

# What goes over the air: values and all that serves them, but for last words said again in their turn or because a
# neighbour asked; states; the roll-out's frames, and the gateway's. The proofs stand beside them, nobody needs them but
# who checks.
MESH, HEARTBEATS, UP, FILTERS, BEACONS, PROOFS = PARTS = ("mesh", "heartbeats", "up", "filters", "beacons", "proofs")


class Judged(NamedTuple):
    """One cycle of mode event.

    Attributes:
        cycle: its number.
        at_ms: when it was decided, virtual.
        answered: the gateway's "abnormal somewhere" is that of the full exchange.
        wrong: nodes that proved another state than that of the full exchange.
        unproven: nodes that run and proved nothing in this cycle.
        late: nodes whose state the gateway does not know, or cannot compare.
        air: bytes on the air since the cycle judged before, by PARTS.
    """

    cycle: int
    at_ms: int
    answered: bool
    wrong: tuple[Cell, ...]
    unproven: tuple[Cell, ...]
    late: int
    air: Mapping[str, int]


class Agreement:
    """Takes in what is said, and judges cycle by cycle.

    Attributes:
        judged: the cycles so far.
    """

    def __init__(self, site: Site, shells: Iterable[NodeShell]):
        """Nothing was said yet."""
        self.judged: list[Judged] = []
        self._site, self._shells = site, tuple(shells)
        self._proofs: dict[Cell, bytes] = {}
        self._air: Counter[str] = Counter()

    def take(self, shell: NodeShell, destination: int, data: bytes) -> None:
        """A node sends a frame."""
        kind = frame.kind_of(data)
        part = UP if destination == TO_GATEWAY else MESH
        if kind == frame.PROOF:
            self._proofs[shell.cell] = data
            part = PROOFS
        elif kind == frame.FILTERS:
            part = FILTERS
        elif kind == frame.READING:
            part = HEARTBEATS
        self._air[part] += AIR_OVERHEAD + len(data)

    def take_beacon(self, data: bytes) -> None:
        """The gateway sends a beacon."""
        self._air[BEACONS] += AIR_OVERHEAD + len(data)

    def judge(self, outcome: Outcome, filters: Filters, run: int, now_ms: int) -> Judged:
        """Compare a cycle that was decided, with these filters, with a full exchange among the nodes that run."""
        cycle = outcome.record.cycle
        living = [shell for shell in self._shells if shell.node is not None]
        expected = self._expected(living, filters, cycle)
        proven = {shell.cell: self._proven(shell.cell, run, cycle) for shell in living}
        wrong = [cell for cell, state in proven.items() if state not in (None, expected[cell])]
        answered = bool((outcome.record.features == 1).any()) == bool((expected == 1).any())
        unproven = [cell for cell, state in proven.items() if state is None]
        late = outcome.record.late
        self.judged.append(Judged(cycle, now_ms, answered, tuple(wrong), tuple(unproven), late, self._air))
        self._air = Counter()
        return self.judged[-1]

    def as_json(self, calm_ms: int, recovered_ms: int) -> dict[str, Any]:
        """Figures of the cycles with faults, and of those in which all nodes have recovered from them."""
        return {
            "faults": figures([entry for entry in self.judged if entry.at_ms < calm_ms]),
            "recovered": figures([entry for entry in self.judged if entry.at_ms >= recovered_ms]),
        }

    def _expected(self, living: list[NodeShell], filters: Filters, cycle: int) -> NDArray[np.uint8]:
        """The states of a full exchange: uint8 [rows, cols], STATE_NONE where there is no reading."""
        shape = self._site.mask.shape
        readings_ccel, present = np.zeros(shape, np.int16), np.zeros(shape, np.bool_)
        for shell in living:
            reading_ccel = shell.reading(cycle)
            if reading_ccel is not None:
                readings_ccel[shell.cell], present[shell.cell] = reading_ccel, True
        none = np.zeros((1, *shape), np.uint8)
        units = twin.units(filters, readings_ccel, present, self._site.neighbour_masks, none)
        return np.where(present, units[..., 0], np.uint8(STATE_NONE))

    def _proven(self, cell: Cell, run: int, cycle: int) -> int | None:
        """The state that a node proved in a cycle, None where it did not."""
        data = self._proofs.get(cell)
        if data is None or frame.run_of(data) != run & 0xFF or frame.cycle_of(data, cycle) != cycle:
            return None
        return int(data[frame.HEADER_SIZE])


def figures(judged: list[Judged]) -> dict[str, Any]:
    """Cycles; in how many the answer and all proven states agreed; late states in all; bytes on the air a cycle."""
    air: Counter[str] = sum((Counter(entry.air) for entry in judged), Counter())
    return {
        "cycles": len(judged),
        "answers": sum(entry.answered for entry in judged),
        "states": sum(not entry.wrong for entry in judged),
        "late": sum(entry.late for entry in judged),
        "air": {part: round(air[part] / max(len(judged), 1), 1) for part in PARTS},
    }
