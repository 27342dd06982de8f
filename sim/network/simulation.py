"""One simulation from beginning to end: a seed and a scenario in, a summary out. The same seed gives the same bytes.

    cycles 0 ..                    the scenario's faults
    somewhere in the first third   the gateway rolls a new version out
    the last ones                  no more faults: everything recovers, and the wave reaches everybody

A node that is reset while a set is on trial stays with the one before it until a higher version comes, and a gateway
gives a roll-out up that too few nodes take: then, and only then, one more version is rolled out once all is calm.
"""

import hashlib
import random
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.config import MODES, check_mode
from gateway.gateway import Outcome
from gateway.model import SPECS
from gateway.store import REFUSED, Store
from protocol.filter_set import CONFIRMED, RETURNED
from sim.network.agreement import Agreement
from sim.network.clock import Clock
from sim.network.faults import SCENARIOS, Links
from sim.network.gateway_shell import TIMING, GatewayShell
from sim.network.journal import Journal, logs_taken
from sim.network.network import Network
from sim.network.node_shell import NodeShell, Sensor
from sim.network.promises import RECOVERY_CYCLES, Promises
from sim.network.scene import Scene, make_model, make_quiet_readings, make_readings, make_site
from sim.network.store_promises import StorePromises
from sim.network.trouble import Trouble

# Long enough after the last fault for a wave and for one more: hops, patience, trial.
CALM_CYCLES = 24
CYCLES_MIN = CALM_CYCLES + 6
# By mode; in mode event it takes the heartbeats longer to mend what was lost.
CYCLES = {"always": 60, "event": 60 + RECOVERY_CYCLES}
SPEC_OF_MODE = {"always": "seed", "event": "zone"}
# After so many calm cycles it is clear what is stuck by design.
SETTLE_CYCLES = 8
RAM_FOLDER = Path("/dev/shm")

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Plan:
    """What is simulated.

    Attributes:
        seed: of everything random.
        scenario: a name of SCENARIOS.
        rows, cols: the grid.
        cycles: how many; CYCLES_MIN or more, in mode event RECOVERY_CYCLES on top.
        holes: whether cells are left out at random.
        spec: the network.
        mode: when nodes speak: always, or event with a spec that has zones.
        rolls_out: whether the gateway rolls a new version out.

    Raises:
        ValueError: a field is out of its range; one line names it.
    """

    seed: int
    scenario: str = "calm"
    rows: int = 7
    cols: int = 7
    cycles: int = CYCLES["always"]
    holes: bool = True
    spec: str = "seed"
    mode: str = "always"
    rolls_out: bool = True

    def __post_init__(self) -> None:
        """Refuse what cannot be simulated."""
        if self.scenario not in SCENARIOS:
            raise ValueError(f"scenario: {self.scenario[:40]!r} is none; write {', '.join(SCENARIOS)}")
        if self.spec not in SPECS:
            raise ValueError(f"spec: {self.spec[:40]!r} is none; write {' or '.join(SPECS)}")
        check_mode(self.mode, SPECS[self.spec])
        if self.mode not in CYCLES:
            raise ValueError(f"mode: {self.mode} is not simulated on a network; write {' or '.join(CYCLES)}")
        least = CYCLES_MIN + self.calm_cycles - CALM_CYCLES
        if self.cycles < least:
            raise ValueError(f"cycles: {self.cycles} leave no time for faults and recovery; write {least} or more")

    @property
    def calm_cycles(self) -> int:
        """How many of the cycles, the last ones, are without faults."""
        return CALM_CYCLES + (RECOVERY_CYCLES if self.in_event else 0)

    @property
    def in_event(self) -> bool:
        """Whether nodes speak on events only."""
        return self.mode == "event"

    @property
    def command(self) -> str:
        """What replays it."""
        more = ("" if self.holes else " --no-holes") + (f" --mode {self.mode}" if self.in_event else "")
        words = f"thermesh sim --seed {self.seed} --scenario {self.scenario} --rows {self.rows} --cols {self.cols}"
        return f"{words} --cycles {self.cycles} --spec {self.spec}{more}"


class Simulation:
    """One plan, built and run; a context manager, for the nodes' files."""

    def __init__(self, plan: Plan, trace: TextIO | None = None, scene: Scene | None = None):
        """Everybody is built, nobody runs yet.

        Args:
            plan: what is simulated.
            trace: where events go as JSON lines.
            scene: who is there, instead of what follows from the plan's rows, cols, holes, spec and seed.
        """
        self._stack = ExitStack()
        root = RAM_FOLDER if RAM_FOLDER.is_dir() else None
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="thermesh-sim-", dir=root)))
        self.plan = plan
        self.scene = scene or self._make_scene()
        self.site = self.scene.site
        key = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"simulated site %d" % plan.seed).digest())
        self.clock, self.journal = Clock(), Journal(trace)
        self._stack.enter_context(logs_taken(self.journal, lambda: self.clock.now_ms))
        scenario = SCENARIOS[plan.scenario]
        links = Links(scenario, self._source("links"))
        self.network = Network(self.clock, links, self.journal, self._source("network"))
        model, mode = self.scene.model, MODES[plan.mode]
        self.gateway = GatewayShell(folder / "state", self.site, model, key, self.clock, mode)
        self.gateway.copies = scenario.copies
        self._stack.callback(self.gateway.stop)
        self.promises = Promises(self.site, self.gateway.flashed, self.gateway.newest)
        self._store = self._stack.enter_context(Store(folder / "state", self.site))
        self.store_promises = StorePromises(self._store, self.promises)
        shells = self._make_shells(folder, self.gateway.flashed, key.public_key().public_bytes_raw())
        self.agreement = Agreement(self.site, shells)
        self._join(shells)
        self.trouble = Trouble(scenario, self.network, self._source("trouble"))
        self._calm_ms = (plan.cycles - plan.calm_cycles) * TIMING.period_ms
        self._recovered_ms = self._calm_ms + RECOVERY_CYCLES * TIMING.period_ms
        self._push_cycle = self._source("push").randint(3, max(3, (plan.cycles - plan.calm_cycles) // 2))
        self._outcomes: list[tuple[int, int, int, int]] = []  # version, compared, equal, late

    def __enter__(self) -> "Simulation":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def run(self, progress: Progress | None = None) -> dict[str, Any]:
        """Run all cycles; a broken promise ends it. `progress`: called with (cycles done, cycles)."""
        begin_s, begin_cpu_s = time.monotonic(), time.process_time()
        plan, calm_cycle = self.plan, self.plan.cycles - self.plan.calm_cycles
        self._start()
        for cycle in range(plan.cycles):
            if cycle == self._push_cycle and plan.rolls_out:
                self.gateway.ask_push()
                self.trouble.arm_strikes()
            if cycle < calm_cycle:
                self.trouble.plan_cycle(TIMING.period_ms)
            elif cycle == calm_cycle:
                self.trouble.end()
            elif cycle == calm_cycle + SETTLE_CYCLES and self._is_stuck_by_design():
                self.gateway.ask_push()
            self.clock.run((cycle + 1) * TIMING.period_ms, self._settle)
            if progress:
                progress(cycle + 1, plan.cycles)
            if self.promises.broken:
                break
        else:
            self.promises.check_wave(list(self.network.shells.values()), self.gateway.newest, self.clock.now_ms)
            self.store_promises.check_all(self.clock.now_ms)
            held = [shell.held_reports() for shell in self.network.shells.values()]
            self.store_promises.check_held(set().union(*held), self.clock.now_ms)
        return self._summary(time.monotonic() - begin_s, time.process_time() - begin_cpu_s)

    def _source(self, name: str) -> random.Random:
        """A stream of random numbers of its own."""
        return random.Random(f"{self.plan.seed} {name}")

    def _make_scene(self) -> Scene:
        plan = self.plan
        site = make_site(plan.rows, plan.cols, self._source("site") if plan.holes else None)
        make = make_quiet_readings if plan.in_event else make_readings
        readings = make(plan.seed, len(site.cells), SCENARIOS[plan.scenario].silent)
        return Scene(site, make_model(plan.seed, plan.spec, site), readings)

    def _make_shells(self, folder: Path, flashed: bytes, key: bytes) -> list[NodeShell]:
        shells = []
        for cell, column in zip(self.site.cells, self.scene.readings, strict=True):
            home = folder / "n-{:02}-{:02}".format(*cell)
            home.mkdir()
            (home / "filters.bin").write_bytes(flashed)
            shells.append(NodeShell(cell, self.site, home / "filters.bin", key, Sensor(column)))
        return shells

    def _join(self, shells: list[NodeShell]) -> None:
        network, gateway = self.network, self.gateway
        network.join(self.site, shells, gateway)
        network.check, network.on_fault = self._check, self._on_fault
        network.on_report = self.store_promises.make
        network.on_told = lambda forgotten: self.store_promises.check_told(forgotten, self.clock.now_ms)
        if self.plan.in_event:
            network.on_frame = self.agreement.take
        gateway.connect = network.connect_gateway
        gateway.publish_beacon, gateway.publish_wave = network.publish_beacon, network.sets.publish
        gateway.publish_acknowledgement = network.publish_acknowledgement
        gateway.on_outcome, gateway.on_push = self._on_outcome, self.promises.know
        gateway.on_beacon, gateway.on_fault = self._on_beacon, partial(self._report, "gateway")

    def _start(self) -> None:
        for shell in self.network.shells.values():
            self.clock.after(0, self.network.boot, shell)
        self.clock.after(0, self.gateway.start)

    def _settle(self) -> None:
        """All messages of one ms are there: whoever got one acts."""
        dirty, self.network.dirty = self.network.dirty, {}
        for shell in dirty.values():
            self.network.poll(shell)
        self.gateway.settle()

    def _check(self, shell: NodeShell) -> None:
        self.promises.check_node(shell, self.clock.now_ms)
        if shell.steps_left >= 0:
            self.trouble.count_down(shell)

    def _on_fault(self, shell: NodeShell, error: Exception) -> None:
        self._report(shell.name, error)

    def _report(self, who: str, error: Exception) -> None:
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(last.filename).parent.name}/{Path(last.filename).name}:{last.lineno} {last.name}"
        self.promises.fail("P6", self.clock.now_ms, who, f"{type(error).__name__}: {error} at {place}")

    def _on_beacon(self, data: bytes) -> None:
        self.store_promises.check_beacon(data, self.gateway.reports, self.clock.now_ms)
        self.agreement.take_beacon(data)

    def _on_outcome(self, outcome: Outcome, is_stored: bool) -> None:
        now_ms, exact = self.clock.now_ms, outcome.exact
        run, reports = self.gateway.gateway.run, self.gateway.reports
        self.promises.check_mixed(outcome, reports, run, now_ms)
        self.store_promises.check_cycle(outcome, is_stored, run, reports, now_ms)
        if self.plan.scenario == "calm":
            self.promises.check_calm(outcome, now_ms)
        self._check_numbers(outcome, run, now_ms)
        self._outcomes.append((outcome.filter_version, exact.compared, exact.equal, outcome.record.late))
        if self.journal.tracing:
            facts = {"cycle": outcome.record.cycle, "version": outcome.filter_version, "late": outcome.record.late}
            self.journal.event(now_ms, "outcome", **facts, compared=exact.compared, equal=exact.equal)

    def _check_numbers(self, outcome: Outcome, run: int, now_ms: int) -> None:
        """Whether they are exact, as far as that is promised."""
        is_calm = self.plan.scenario == "calm"
        if self.plan.in_event:
            judged = self.agreement.judge(outcome, self.gateway.gateway.model.filters, run, now_ms)
            if is_calm or now_ms >= self._recovered_ms:
                self.promises.check_states(judged, now_ms)
        if is_calm or not self.plan.in_event:
            self.promises.check_exact(outcome, now_ms)

    def _is_stuck_by_design(self) -> bool:
        """Whether only a higher version helps: a node returned to the one before, or the roll-out was given up."""
        nodes = [shell.node for shell in self.network.shells.values() if shell.node]
        return self.gateway.gave_up or any(node.wave.phase == RETURNED for node in nodes)

    def _summary(self, real_s: float, cpu_s: float) -> dict[str, Any]:
        shells, gateway = list(self.network.shells.values()), self.gateway
        waves = [shell.node.wave for shell in shells if shell.node]
        virtual_s = self.clock.now_ms / 1_000
        return {
            "seed": self.plan.seed,
            "scenario": self.plan.scenario,
            "nodes": len(shells),
            "cycles": len(self._outcomes),
            "versions": dict(Counter(str(version) for version, *_ in self._outcomes)),
            "frames": self.journal.frames,
            "bytes": self.journal.sent_bytes,
            "exact": {
                "compared": sum(compared for _, compared, _, _ in self._outcomes),
                "equal": sum(equal for _, _, equal, _ in self._outcomes),
            },
            "late": sum(late for *_, late in self._outcomes),
            "event": self.agreement.as_json(self._calm_ms, self._recovered_ms) if self.plan.in_event else None,
            "filters": {
                "newest": gateway.newest,
                "ordered": len(self._store.model_keys()) - 1,
                "refused": len(self._store.model_keys(REFUSED)),
                "confirmed": sum(w.active.version == gateway.newest and w.phase == CONFIRMED for w in waves),
            },
            "faults": self.trouble.as_json(),
            "checked": self.promises.checked,
            "broken": [broken._asdict() for broken in self.promises.broken],
            "digest": self.journal.digest,
            "events": self.clock.events,
            "seconds": {"virtual": virtual_s, "real": round(real_s, 3), "cpu": round(cpu_s, 3)},
            "replay": self.plan.command,
        }
