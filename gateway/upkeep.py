"""What the service does between two cycles: carry out orders, learn, age the store, and tell other programs of it."""

import logging
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from gateway import running
from gateway.gateway import Gateway
from gateway.learning import Learning
from gateway.rollouts import Rollouts
from gateway.service import Recorder
from gateway.site import Cell
from gateway.store_age import Ageing
from gateway.wave import Rollout
from protocol.grid import node_name

# Of the nodes whose messages were of no use, those with the most are told: it takes no long list to see who it is.
FAULTY_MAX = 100
# How a connection to the broker can be encrypted, as nodes and gateway call it; older nodes say nothing of it.
ENCRYPTIONS, UNKNOWN = ["psk", "certificate", "none"], "unknown"
log = logging.getLogger(__name__)


class Chores(NamedTuple):
    """What is looked after between cycles."""

    rollouts: Rollouts
    learning: Learning
    ageing: Ageing


class Upkeep:
    """For one run of one gateway. A fault is said once and stops nothing: the next look tries again."""

    def __init__(self, state: Path, gateway: Gateway, recorder: Recorder, chores: Chores, encryption: str):
        """`state`: the folder that other programs look into; `encryption`: how the gateway reaches its broker."""
        self._state = state
        self._encryption = encryption
        self._gateway = gateway
        self._recorder = recorder
        self._rollouts, self._learning, self._ageing = chores
        self._faults: dict[str, str] = {}
        self._written: dict[str, Any] = {}

    def look(self) -> None:
        """Do what is due; milliseconds."""
        self._try("filters and learning wait", self._look_after_filters)
        self._try("old cycles stay as they are", self._ageing.look)
        self._try("other programs do not see how things stand", self._write)

    def facts(self) -> dict[str, Any]:
        """What `thermesh filters status` shows of a service.

        Run, cycle, model, rollout, nodes, learning and store, as they are now. `reports` counts since the start those
        that are stored in no cycle, and the gaps among them.
        `quarantine` has by name how many messages of a node that is not listened to were dropped, `faults` by name and
        kind what was of no use since the start, of those with the most first.
        """
        gateway = self._gateway
        rollout = gateway.rollout
        return {
            "run": gateway.run,
            "cycle": gateway.numbers.next - 1,
            "model": {"filters": gateway.model.filters.version, "head": gateway.model.head.revision},
            "rollout": rollout and {"filters": rollout.model.filters.version, "state": _state_of(rollout)},
            "nodes": {node_name(*cell): self._holding(cell) for cell in gateway.site.cells},
            "learning": self._learning.facts(),
            "reports": {"late": self._recorder.late, "gaps": self._recorder.gaps},
            "store": {"unstored": self._recorder.unstored, "fault": self._recorder.fault},
            "quarantine": {node_name(*cell): gateway.quarantine.dropped[cell] for cell in gateway.quarantine.cells},
            "faults": {node_name(*cell): dict(gateway.node_faults[cell]) for cell in self._most_faulty()},
            "encryption": {"gateway": self._encryption, "nodes": self._node_encryption()},
        }

    def _most_faulty(self) -> list[Cell]:
        faults = self._gateway.node_faults
        return sorted(faults, key=lambda cell: (-faults[cell].total(), cell))[:FAULTY_MAX]

    def _node_encryption(self) -> dict[str, int]:
        """How many nodes say that they reach the broker in which way."""
        said = (facts.get("encryption") for facts in self._gateway.about.values())
        return dict(Counter(word if word in ENCRYPTIONS else UNKNOWN for word in said))

    def _holding(self, cell: Cell) -> dict[str, Any] | None:
        """What a node said of its filters; None where it has not said it in this run."""
        held = self._gateway.holdings.get(cell)
        if held is None:
            return None
        return {"filters": held.version, "highest": held.highest, "phase": held.phase_name, "refused": held.refused}

    def _look_after_filters(self) -> None:
        self._rollouts.look()
        self._learning.look(self._gateway.model, self._recorder.stored)

    def _try(self, consequence: str, do: Callable[[], None]) -> None:
        fault = ""
        try:
            do()
        except ValueError as error:  # of the store, the state folder or an order: one line each
            fault = str(error)
        if fault and fault != self._faults.get(consequence):
            log.error("%s: %s", consequence, fault)
        self._faults[consequence] = fault

    def _write(self) -> None:
        facts = self.facts()
        if facts != self._written:
            running.write(self._state, facts)
            self._written = facts


def _state_of(rollout: Rollout) -> str:
    return "given up" if rollout.gave_up else "decides" if rollout.switched else "on its way"
