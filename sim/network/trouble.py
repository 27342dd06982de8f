"""The faults that strike parts, not messages: cuts, resets, restarts, a gateway that stands still, a bad disk."""

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

from firmware.wave import PULLING
from sim.network.faults import Scenario
from sim.network.network import Network
from sim.network.node_shell import NodeShell

# How long things last. A node may be back before anybody noticed, or after it was given up.
RESET_MS_MIN, RESET_MS_MAX = 200, 60_000
GATEWAY_MS_MIN, GATEWAY_MS_MAX = 500, 45_000
BROKER_MS_MIN, BROKER_MS_MAX = 200, 15_000
STALL_MS_MIN, STALL_MS_MAX = 1_000, 90_000
CUT_MS_MIN, CUT_MS_MAX = 1_000, 60_000
DISK_MS_MIN, DISK_MS_MAX = 1_000, 60_000
# The proof of a set takes a node some 600 steps, the pieces come before; a strike hits one of them.
STRIKE_STEPS_MAX = 620


class Trouble:
    """What strikes when.

    Attributes:
        counts: resets, strikes, cuts, restarts, stalls, disk faults so far.
    """

    def __init__(self, scenario: Scenario, network: Network, source: random.Random):
        """Nothing is planned yet."""
        self.counts: Counter[str] = Counter()
        self._scenario, self._network, self._random = scenario, network, source
        self._over = False

    def plan_cycle(self, period_ms: int) -> None:
        """Decide what happens in the cycle that begins, and when in it."""
        scenario, draw = self._scenario, self._random
        for shell in self._network.shells.values():
            if draw.random() < scenario.reboots:
                self._at_any_time(period_ms, self._reset, shell)
        if draw.random() < scenario.partitions:
            self._at_any_time(period_ms, self._cut)
        if draw.random() < scenario.gateway_restarts:
            self._at_any_time(period_ms, self._restart_gateway)
        if draw.random() < scenario.broker_restarts:
            self._at_any_time(period_ms, self._restart_broker)
        if draw.random() < scenario.stalls:
            self._at_any_time(period_ms, self._stall_gateway)
        if draw.random() < scenario.disks:
            self._at_any_time(period_ms, self._fail_disk)

    def arm_strikes(self) -> None:
        """Choose the nodes that are reset in the middle of the wave."""
        for shell in self._network.shells.values():
            if self._random.random() < self._scenario.strikes:
                shell.steps_left = self._random.randint(0, STRIKE_STEPS_MAX)

    def count_down(self, shell: NodeShell) -> None:
        """A node that is to be struck took a step; those of a wave count."""
        if shell.node is None or shell.node.wave.state < PULLING:
            return
        shell.steps_left -= 1
        if shell.steps_left < 0:
            self.counts["strikes"] += 1
            self._network.clock.after(0, self._network.reset, shell, self._random.randint(RESET_MS_MIN, RESET_MS_MAX))

    def end(self) -> None:
        """No more faults: cuts heal, links and disk are good; what is down comes back in its time."""
        self._over = True
        self._network.links.troubled = False
        self._network.cut(frozenset())
        self._network.gateway.disk_fails = False
        self._network.gateway.go_on()
        for shell in self._network.shells.values():
            shell.steps_left = -1

    def as_json(self) -> dict[str, int]:
        """What struck, deliveries included."""
        links = self._network.links
        return {**self.counts, "lost": links.lost, "late": links.late, "doubled": links.doubled}

    def _at_any_time(self, period_ms: int, action: Callable[..., None], *arguments: Any) -> None:
        self._network.clock.after(self._random.randrange(period_ms), action, *arguments)

    def _reset(self, shell: NodeShell) -> None:
        self.counts["resets"] += 1
        self._network.reset(shell, self._random.randint(RESET_MS_MIN, RESET_MS_MAX))

    def _restart_gateway(self) -> None:
        gateway = self._network.gateway
        if not gateway.is_up:
            return
        self.counts["gateway restarts"] += 1
        down_ms = self._random.randint(GATEWAY_MS_MIN, GATEWAY_MS_MAX)
        self._network.journal.event(self._network.clock.now_ms, "gateway down", down_ms=down_ms)
        gateway.stop()
        self._network.clock.after(down_ms, gateway.start)

    def _stall_gateway(self) -> None:
        gateway, clock = self._network.gateway, self._network.clock
        if not gateway.is_up or gateway.stands_still:
            return
        self.counts["gateway stalls"] += 1
        still_ms = self._random.randint(STALL_MS_MIN, STALL_MS_MAX)
        self._network.journal.event(clock.now_ms, "gateway stands still", still_ms=still_ms)
        gateway.stand_still()
        clock.after(still_ms, gateway.go_on)

    def _restart_broker(self) -> None:
        if self._network.is_up:
            self.counts["broker restarts"] += 1
            self._network.restart_broker(self._random.randint(BROKER_MS_MIN, BROKER_MS_MAX))

    def _fail_disk(self) -> None:
        """Let the gateway's disk take nothing for a while; what lies on it can be read."""
        if self._network.gateway.disk_fails:
            return
        self.counts["disk faults"] += 1
        down_ms = self._random.randint(DISK_MS_MIN, DISK_MS_MAX)
        self._network.journal.event(self._network.clock.now_ms, "disk fails", down_ms=down_ms)
        self._network.gateway.disk_fails = True
        self._network.clock.after(down_ms, setattr, self._network.gateway, "disk_fails", False)

    def _cut(self) -> None:
        """Cut a part of the site off: all on one side of a random line."""
        network, draw = self._network, self._random
        if network.links.cut_off:
            return
        self.counts["cuts"] += 1
        axis, side = draw.randint(0, 1), draw.random() < 0.5
        cells = sorted(network.shells)
        border = draw.choice(cells)[axis]
        network.cut(frozenset(cell for cell in cells if (cell[axis] >= border) == side))
        network.clock.after(draw.randint(CUT_MS_MIN, CUT_MS_MAX), self._heal)

    def _heal(self) -> None:
        if not self._over:
            self._network.cut(frozenset())
