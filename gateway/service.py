"""The gateway as a service: the shell that gives gateway.py its messages and its time."""

import itertools
import logging
import time
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from gateway import decision
from gateway.decision import Limits, State
from gateway.gateway import Gateway, Outcome
from gateway.link import Link
from gateway.received import Arrivals
from gateway.site import Cell
from gateway.store import Basis, Store
from gateway.store_schema import StoreError
from protocol.grid import node_name

# A cycle's messages are taken in one after the other; between two looks at the clock at most so many.
_MESSAGES_AT_ONCE = 64
# While nothing comes in, between two cycles.
_LOOK_S = 1.0

log = logging.getLogger(__name__)


class Recorder:
    """Writes the outcomes of one run to the store. A store that fails is said once, and never stops a decision.

    Attributes:
        stored, unstored: cycles since the start that are in the store, and that could not be stored.
        late, gaps: reports since the start that were stored in no cycle, and gaps among reports.
        fault: why the last one could not, "" when it is in the store.
    """

    def __init__(self, store: Store, run: int, limits: Limits, now_s: Callable[[], float] = time.time):
        """For a gateway that starts now: its hysteresis begins anew.

        Args:
            store: open, with the gateway's models in it.
            run: the gateway's start; none of its cycles is stored yet.
            limits: that the gateway decides by.
            now_s: UTC seconds.
        """
        self.stored = self.unstored = self.late = self.gaps = 0
        self._store = store
        self._run = run
        self._limits = limits
        self._now_s = now_s
        self._state = decision.init()
        self.fault = ""

    def keep(self, outcome: Outcome) -> bool:
        """Store an outcome; each one, in the order decided. True when it is on the disk."""
        basis = Basis(self._state, self._limits, self._store.site.cells)
        self._state = State(outcome.decision.abnormal)
        fault = ""
        try:
            self._store.add_cycle(self._run, self._now_s(), outcome, basis)
            self.stored += 1
            self._count(outcome.arrivals)
        except StoreError as error:
            # Without the cycle's number, or one fault would be another one in each cycle.
            fault = str(error).replace(f"run {self._run} cycle {outcome.record.cycle} ", "it ")
            self.unstored += 1
        if fault and fault != self.fault:
            log.error("cycle %d and those after it are not stored: %s", outcome.record.cycle, fault)
        elif self.fault and not fault:
            log.info("cycle %d is stored again; %d were not since the start", outcome.record.cycle, self.unstored)
        self.fault = fault
        return not fault

    def _count(self, arrivals: Arrivals) -> None:
        self.late += len(arrivals.late)
        self.gaps += len(arrivals.gaps)
        lost: Counter[Cell] = Counter()
        for cell, _, first, last in arrivals.gaps:
            lost[cell] += 0 if last is None else last - first + 1
        for cell, count in lost.items():
            if count:
                log.warning("%s: %d of its reports are lost", node_name(*cell), count)
            else:
                log.info("%s started anew: what it reported before and nobody heard is lost", node_name(*cell))


def monotonic_ms() -> int:
    """Now, in ms; only differences mean something."""
    return time.monotonic_ns() // 1_000_000


def run_cycle(gateway: Gateway, link: Link) -> Outcome:
    """Open a cycle and wait until it is decided; at most Timing.cycle_ms."""
    for cell, data in gateway.acknowledgements():
        link.publish_acknowledgement(cell, data)
    link.publish_beacon(gateway.start_cycle(monotonic_ms()))
    wave = gateway.wave_to_repeat()
    if wave:
        link.publish_wave(wave)
    while (outcome := gateway.poll(monotonic_ms())) is None:
        listen(gateway, link, (gateway.due_ms() - monotonic_ms()) / 1000)
    return outcome


def listen(gateway: Gateway, link: Link, timeout_s: float) -> None:
    """Wait for messages, take in those that are there, and return."""
    message, taken = link.next_message(timeout_s), 0
    while message is not None:
        gateway.on_message(*message)
        taken += 1
        message = link.next_message(0) if taken <= _MESSAGES_AT_ONCE else None
    if gateway.quarantine.has_changed:
        gateway.quarantine.has_changed = False
        link.leave_out({node_name(*cell) for cell in gateway.quarantine.cells}, gateway.site)


def listen_until(gateway: Gateway, link: Link, is_done: Callable[[], bool], timeout_s: float) -> bool:
    """Take in messages until a condition holds; False when the time was over first."""
    deadline = time.monotonic() + timeout_s
    while not is_done():
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            return False
        listen(gateway, link, min(left_s, 0.5))
    return True


class Beside(NamedTuple):
    """What is done beside the cycles; none of it may take long.

    Attributes:
        on_outcome: called with each outcome once it is stored, or could not be.
        between_cycles: called after each cycle, and about once a second until the next; never while one is open.
    """

    on_outcome: Callable[[Outcome], None]
    between_cycles: Callable[[], None]


def serve(
    gateway: Gateway, link: Link, recorder: Recorder, beside: Beside, period_s: float, cycles: int | None = None
) -> None:
    """Run cycle after cycle, one every `period_s`, so many of them or until KeyboardInterrupt.

    Each outcome is stored before anything else is done with it; the next beacon acknowledges none that could not be.
    """
    next_s = time.monotonic()
    for done in itertools.count(1):
        outcome = run_cycle(gateway, link)
        gateway.settle(outcome, recorder.keep(outcome))
        beside.on_outcome(outcome)
        beside.between_cycles()
        if done == cycles:
            return
        next_s = max(next_s + period_s, time.monotonic())
        look_s = time.monotonic() + _LOOK_S
        while (now_s := time.monotonic()) < next_s:
            listen(gateway, link, min(next_s, look_s) - now_s)
            if time.monotonic() >= look_s:
                look_s = time.monotonic() + _LOOK_S
                beside.between_cycles()
