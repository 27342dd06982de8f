"""What can go wrong between the parts, how often in which scenario, and what becomes of a single delivery.

A delivery is one message on its way from its publisher to one subscriber, the broker included.
"""

import random
from dataclasses import dataclass, replace

from gateway.site import Cell

# Whoever sends or receives: a node's cell, or GATEWAY.
GATEWAY: Cell = (-1, -1)
# What a delivery takes when nothing is wrong.
DELAY_MS = 1


@dataclass(frozen=True)
class Scenario:
    """How often things go wrong. Shares are of deliveries, chances are per cycle.

    Attributes:
        lost: share that is lost.
        lost_in_mesh: share that is lost between nodes, whatever is lost elsewhere.
        broken_sets: share of the filter sets handed to a node in the middle of which its connection breaks.
        bursts: share with which a burst begins: their link loses everything for up to `burst_ms_max`.
        late: share that takes up to `late_ms_max`.
        doubled: share that arrives twice.
        jitter_ms: every delivery takes up to so much longer, so that they overtake each other.
        silent: share of readings that a sensor does not give.
        partitions: chance that a part of the site is cut off from the rest, gateway included, for some cycles.
        reboots: chance, for each node, that it is reset.
        gateway_restarts, broker_restarts: chances; a broker forgets what it retained.
        stalls: chance that the gateway stands still for a while, and goes on with what came meanwhile.
        disks: chance that the gateway's disk takes nothing for a while.
        strikes: share of the nodes that are reset while they work on a wave, at any of its steps.
        copies: how often nodes in mode event say what matters (firmware/watch.py).
    """

    lost: float = 0.0
    lost_in_mesh: float = 0.0
    broken_sets: float = 0.0
    bursts: float = 0.0
    burst_ms_max: int = 30_000
    late: float = 0.0
    late_ms_max: int = 12_000
    doubled: float = 0.0
    jitter_ms: int = 0
    silent: float = 0.0
    partitions: float = 0.0
    reboots: float = 0.0
    gateway_restarts: float = 0.0
    broker_restarts: float = 0.0
    stalls: float = 0.0
    disks: float = 0.0
    strikes: float = 0.0
    copies: int = 0


SCENARIOS = {
    "calm": Scenario(),
    "lossy": Scenario(lost=0.05, broken_sets=0.1, late=0.01, doubled=0.05, jitter_ms=50, silent=0.01),
    "bursts": Scenario(bursts=0.002, jitter_ms=20),
    "partition": Scenario(partitions=0.15, jitter_ms=10),
    "reboots": Scenario(reboots=0.01, gateway_restarts=0.05, broker_restarts=0.05, strikes=0.15, jitter_ms=10),
    "stalls": Scenario(lost=0.02, partitions=0.1, reboots=0.002, stalls=0.15, jitter_ms=10),
    "loss10": Scenario(lost_in_mesh=0.1, copies=2),
    "loss30": Scenario(lost_in_mesh=0.3, copies=4),
    "chaos": Scenario(
        lost=0.02,
        broken_sets=0.1,
        bursts=0.0005,
        late=0.01,
        doubled=0.05,
        jitter_ms=50,
        silent=0.01,
        partitions=0.05,
        reboots=0.005,
        gateway_restarts=0.03,
        broker_restarts=0.03,
        stalls=0.03,
        disks=0.05,
        strikes=0.1,
    ),
}
SCENARIOS["watched"] = replace(SCENARIOS["chaos"], copies=2)


class Links:
    """All links of a site.

    Attributes:
        troubled: the scenario's shares hold; else every delivery takes DELAY_MS.
        cut_off: cells that only hear each other at present.
        lost, late, doubled: deliveries so far.
    """

    def __init__(self, scenario: Scenario, source: random.Random):
        """Troubled from the start, unless nothing in the scenario concerns links."""
        lost = scenario.lost, scenario.lost_in_mesh, scenario.broken_sets, scenario.bursts
        self.troubled = any((*lost, scenario.late, scenario.doubled, scenario.jitter_ms))
        self.cut_off: frozenset[Cell] = frozenset()
        self.lost = self.late = self.doubled = 0
        self._scenario = scenario
        self._random = source
        self._burst_end_ms: dict[tuple[Cell, Cell], int] = {}

    @property
    def perfect(self) -> bool:
        """Whether each delivery takes DELAY_MS, for everybody."""
        return not self.troubled and not self.cut_off

    def is_cut(self, publisher: Cell, subscriber: Cell) -> bool:
        """Whether nothing passes from the one to the other at present."""
        return (publisher in self.cut_off) != (subscriber in self.cut_off)

    def delays_ms(self, publisher: Cell, subscriber: Cell, now_ms: int) -> tuple[int, ...]:
        """After how many ms each copy of a delivery arrives, 1 or more; () when it is lost."""
        if self.is_cut(publisher, subscriber):
            self.lost += 1
            return ()
        if not self.troubled:
            return (DELAY_MS,)
        scenario, chance = self._scenario, self._random.random
        share = scenario.lost if GATEWAY in (publisher, subscriber) else max(scenario.lost, scenario.lost_in_mesh)
        if self._in_burst(publisher, subscriber, now_ms) or chance() < share:
            self.lost += 1
            return ()
        delay_ms = self._delay_ms()
        if chance() >= scenario.doubled:
            return (delay_ms,)
        self.doubled += 1
        return delay_ms, self._delay_ms()

    def breaks(self) -> bool:
        """Whether a node's connection breaks while it is handed a set."""
        return self.troubled and self._random.random() < self._scenario.broken_sets

    def repeats(self) -> bool:
        """Whether a set comes twice."""
        return self.troubled and self._random.random() < self._scenario.doubled

    def _delay_ms(self) -> int:
        scenario, chance = self._scenario, self._random.random
        if chance() < scenario.late:
            self.late += 1
            return DELAY_MS + int(chance() * scenario.late_ms_max)
        return DELAY_MS + int(chance() * (scenario.jitter_ms + 1))

    def _in_burst(self, publisher: Cell, subscriber: Cell, now_ms: int) -> bool:
        scenario = self._scenario
        if not scenario.bursts:
            return False
        link = publisher, subscriber
        if self._burst_end_ms.get(link, 0) > now_ms:
            return True
        if self._random.random() < scenario.bursts:
            self._burst_end_ms[link] = now_ms + int(self._random.random() * scenario.burst_ms_max)
            return True
        return False
