"""Runs a plan on real parts: broker, nodes, gateway; gathers what they said into one summary."""

import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway import keys, ledger, passwords, service, wave
from gateway.acceptance import Trained, train
from gateway.broker import Broker, open_broker
from gateway.config import MODES
from gateway.gateway import Gateway, Outcome, Timing
from gateway.link import Link
from gateway.samples import samples_of
from gateway.site import Cell, Site
from protocol import topic
from protocol.beacon import MODE_ALWAYS, MODE_CHANGE
from protocol.grid import node_name
from tools.acl import guests_of
from tools.demo.bill import bill
from tools.demo.judged import accuracy, places, wrong_heaps, wrong_readings
from tools.demo.plan import Options, make_plan, only_ours
from tools.mesh.mesh import Mesh
from tools.model_choice import Stage, choose_model
from tools.results import Results

# Far more than a cycle takes: while the demo runs, only the gateway sets the pace.
PERIOD_MS = 60_000
# Where silence is an answer: long enough for every node to speak, as in the first cycle, on two busy cores.
EXCHANGE_MS = 1_000
PROOF_MS_MAX = 10_000
READY_S_MAX = 120.0
HEALTH_S_MAX = 15.0
LAST_WORDS_S_MAX = 5.0
# A new set is confirmed after three completed cycles, and the nodes' word of it comes with the next one.
CYCLES_AFTER_SWITCH = 5
WAVE_PERIOD_S = 2.0
WAVE_S_MAX = 120.0
PROBLEMS_MAX = 50
RECORD = np.dtype([("present", "u1"), ("ccel", "<i2")])


class Clock:
    """Seconds spent in each part."""

    def __init__(self) -> None:
        """Starts the total."""
        self.seconds: dict[str, float | None] = dict.fromkeys(("setup", "start", "train", "wave", "cycles", "total"))
        self._begin = time.monotonic()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the time of a block for a part."""
        begin = time.monotonic()
        yield
        self.seconds[name] = round((self.seconds[name] or 0.0) + time.monotonic() - begin, 3)

    def stop(self) -> dict[str, float | None]:
        """Everything so far, the total included."""
        self.seconds["total"] = round(time.monotonic() - self._begin, 3)
        return self.seconds


class Demo:
    """One run; what it finds out is kept in lists until the summary.

    Attributes:
        outcomes, problems, notes: so far.
        trained: what became of learning, None before it or where nothing was reported.
        complete: every node became ready, and the host of all nodes lived to the end.
    """

    def __init__(self, options: Options, stage: Stage):
        """Nothing is started yet."""
        self.options = options
        self.outcomes: list[Outcome] = []
        self.problems: list[str] = []
        self.notes: list[str] = []
        self.complete = True
        self.trained: Trained | None = None
        self.key = Ed25519PrivateKey.generate()
        self._stage = stage
        self._clock = Clock()
        self._wave_s_left = WAVE_S_MAX

    def run(self) -> dict[str, Any]:
        """Run it all and return the summary; whatever ends it, nothing started here outlives it.

        Raises:
            ValueError: what was asked cannot be done; one line each.
        """
        with ExitStack() as stack:
            with self._clock.part("setup"):
                self.plan = make_plan(self.options, self._stage)
                self.model = choose_model(self.plan.spec.name, self.plan.site, self.options.seed, self._stage)
                results = self._open_results(stack)
            with self._clock.part("start"):
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="thermesh-")))
                known, _ = passwords.load_or_make(folder, self.plan.site)
                guests = guests_of(self.plan.site, known)
                broker = stack.enter_context(open_broker(self.options.broker, folder, plain=True, guests=guests))
                site = self.plan.site if broker.own else only_ours(self.plan.site)
                link = stack.enter_context(Link(broker.host, broker.port, site.name, broker.login))
                gateway = self._make_gateway(site)
                if not broker.own:
                    stack.callback(_leave_nothing_behind, gateway, link)
                mesh = stack.enter_context(Mesh(site, self.plan.kind, folder))
                self._start_nodes(broker, mesh, folder, gateway, link)
            before = self._ask_health(gateway, link)
            gateway.traffic.clear()  # counted from here to the second question, as the nodes count
            self._run_cycles(broker, gateway, link, mesh, results)
            spent = ledger.spent(site.cells, before, self._ask_health(gateway, link))
            self._look_for_problems(gateway, link, mesh, spent)
            summary = self._summary(broker, gateway, spent)
            if results:
                results.add_summary(summary)
            return summary

    def _make_gateway(self, site: Site) -> Gateway:
        mode = MODES[self.options.mode]
        timing = Timing(PERIOD_MS)
        if mode != MODE_ALWAYS:  # silence is never complete: each cycle waits until its time is over
            gather_ms = EXCHANGE_MS if mode == MODE_CHANGE else 1  # in mode event nothing is gathered
            timing = Timing(PERIOD_MS, EXCHANGE_MS, gather_ms, report_ms=PROOF_MS_MAX)
        gateway = Gateway(site, self.model, timing, run=1)
        gateway.mode = mode
        gateway.wants_proof = True
        gateway.threshold_ccel, gateway.copies = self.plan.threshold_ccel, self.options.copies
        return gateway

    def _open_results(self, stack: ExitStack) -> Results | None:
        if not self.options.out:
            return None
        results = stack.enter_context(Results(self.options.out, self.plan.site))
        results.add_filters(self.model.filters)
        return results

    def _start_nodes(self, broker: Broker, mesh: Mesh, folder: Path, gateway: Gateway, link: Link) -> None:
        cells = self.plan.site.cells
        records = np.zeros(self.plan.readings_ccel.shape, RECORD)
        records["present"], records["ccel"] = self.plan.present, self.plan.readings_ccel
        (folder / "readings.bin").write_bytes(records.tobytes())
        sensor = {"kind": "replay", "path": "readings.bin", "cells": len(cells)}
        mesh.prepare(
            broker,
            self.model.filters.pack(gateway.site.name),
            keys.public_hex(self.key),
            {cell: sensor | {"index": index} for index, cell in enumerate(cells)},
        )
        mesh.start()
        progress = self._stage(f"starting {len(cells)} nodes")

        def all_ready() -> bool:
            ready = sum(state == "ready" for state in gateway.states.values())
            progress(ready, len(cells))
            return ready + len(mesh.ended) >= len(cells) or mesh.host_ended

        service.listen_until(gateway, link, all_ready, READY_S_MAX)
        missing = [cell for cell in cells if gateway.states.get(cell) != "ready"]
        if missing:
            self.complete = False
            self.problems.append(f"{len(missing)} nodes did not become ready, {node_name(*missing[0])} the first")

    def _ask_health(self, gateway: Gateway, link: Link) -> dict[Cell, ledger.Health]:
        """Every node's counters as they are now; nodes that do not answer are left out."""
        gateway.health.clear()
        alive = {cell for cell, state in gateway.states.items() if state == "ready"}
        link.publish_beacon(gateway.ask_health())
        service.listen_until(gateway, link, lambda: gateway.health.keys() >= alive, HEALTH_S_MAX)
        boots = {cell: facts.get("boot") for cell, facts in gateway.about.items()}
        return {cell: ledger.Health(boots.get(cell), counters) for cell, counters in gateway.health.items()}

    def _run_cycles(self, broker: Broker, gateway: Gateway, link: Link, mesh: Mesh, results: Results | None) -> None:
        cycles, note = self.plan.cycles(broker.name)
        if note:
            self.notes.append(note)
        self._train_cycles = min(self.options.train_cycles or cycles // 2, cycles)
        progress = self._stage("running cycles")
        for done in range(cycles):
            if done == self._train_cycles:
                self._send_wave(gateway, results)
            with self._clock.part("cycles"):
                outcome = service.run_cycle(gateway, link)
                gateway.settle(outcome, True)  # nothing is stored here: what came counts as kept
            self.outcomes.append(outcome)
            if results:
                results.add(outcome)
            progress(done + 1, cycles)
            if mesh.host_ended:
                self.complete = False
                break
            if gateway.rollout and not gateway.rollout.switched:
                with self._clock.part("wave"):
                    self._give_time(gateway, link, cycles - done - 1)

    def _send_wave(self, gateway: Gateway, results: Results | None) -> None:
        """Roll out what was learned if it is better, else the same weights under the next version."""
        version = gateway.highest_version + 1
        with self._clock.part("train"):
            self.trained = self._train(version)
        if self.trained and self.trained.accepted:
            model = self.trained.model
        else:
            model = self.model.numbered(version, self.model.head.revision + 1)
        if results:
            results.add_filters(model.filters)
        gateway.push(model, wave.signed(model.filters, gateway.site.name, self.key))

    def _train(self, version: int) -> Trained | None:
        records = [outcome.record for outcome in self.outcomes]
        if not any(record.has_reading.any() for record in records):
            return None
        progress = self._stage("learning")
        return train(self.model, self.plan.site, samples_of(records), version, self.options.seed, progress)

    def _give_time(self, gateway: Gateway, link: Link, cycles_left: int) -> None:
        """While a wave is on its way cycles follow each other slowly; the last ones wait until it is everywhere."""
        version = gateway.rollout.model.filters.version if gateway.rollout else 0

        def everywhere() -> bool:
            held = gateway.holdings
            return all(cell in held and held[cell].holds(version) for cell in gateway.counted_on())

        begin = time.monotonic()
        is_last = cycles_left <= CYCLES_AFTER_SWITCH
        service.listen_until(gateway, link, everywhere, self._wave_s_left if is_last else WAVE_PERIOD_S)
        self._wave_s_left = max(0.0, self._wave_s_left - (time.monotonic() - begin))

    def _look_for_problems(self, gateway: Gateway, link: Link, mesh: Mesh, spent: ledger.Spent) -> None:
        found = mesh.problems() + spent.problems()
        found += [f"gateway: {count} x {name}" for name, count in gateway.faults.items() if count]
        found += [f"nodes: {count} x {name}" for name, count in ledger.faults(spent.counters).items()]
        if link.dropped:
            found.append(f"gateway: {link.dropped} messages found its queue full")
        late = sum(outcome.record.late for outcome in self.outcomes)
        if late:
            found.append(f"{late} values came late or never")
        found += wrong_readings(self.plan, self.outcomes) + wrong_heaps(self.plan, gateway.about)
        more = len(found) - PROBLEMS_MAX
        self.problems += found[:PROBLEMS_MAX] + ([f"and {more} more"] if more > 0 else [])

    def _filters(self, gateway: Gateway, spent: ledger.Spent) -> dict[str, Any]:
        """What became of the wave; `cycles` counts the cycles that were computed with each version."""
        to = gateway.rollout.model.filters.version if gateway.rollout else None
        held = gateway.holdings.values()
        faults = ledger.faults(spent.counters)
        return {
            "from": self.model.filters.version,
            "to": to,
            "accepted": bool(self.trained and self.trained.accepted),
            "held_out": {
                "before": self.trained.accuracy_before if self.trained else None,
                "after": self.trained.accuracy_after if self.trained else None,
            },
            "confirmed": sum(to is not None and holding.has_confirmed(to) for holding in held),
            "refused": sum(count for name, count in faults.items() if name.startswith("refused")),
            "cycles": dict(Counter(str(outcome.filter_version) for outcome in self.outcomes)),
        }

    def _summary(self, broker: Broker, gateway: Gateway, spent: ledger.Spent) -> dict[str, Any]:
        runtimes = Counter(str(facts.get("runtime")) for facts in gateway.about.values())
        cycles = len(self.outcomes)
        after = gateway.rollout.model if gateway.rollout else self.model
        right = accuracy(self.plan, self.outcomes[self._train_cycles :], self.model, after)
        if right["cycles"] and right["after"] < right["before"]:
            fall = f"{right['after']} % of the cycles that followed are decided right, with the model before it"
            self.notes.append(f"what was learned did no good: {fall} {right['before']} %")
        return {
            "nodes": len(self.plan.site.cells),
            "cycles": cycles,
            "runtime": dict(runtimes),
            "heap": self.plan.kind.heap,
            "broker": broker.name,
            "site": self.plan.site.name,
            "spec": self.plan.spec.name,
            "mode": self.options.mode,
            "threshold_ccel": self.plan.threshold_ccel,
            "carried": sum(int(outcome.record.carried.sum()) for outcome in self.outcomes),
            "exact": {
                "compared": sum(outcome.exact.compared for outcome in self.outcomes),
                "equal": sum(outcome.exact.equal for outcome in self.outcomes),
            },
            "filters": self._filters(gateway, spent),
            "accuracy": right,
            "where": places(self.plan, self.outcomes),
            "ledger": bill(self.plan, gateway, spent, cycles) if cycles else None,
            "seconds": self._clock.stop(),
            "notes": self.notes,
            "problems": self.problems,
        }


def _leave_nothing_behind(gateway: Gateway, link: Link) -> None:
    """Clear what the nodes' last words left on a broker that is not ours."""
    service.listen_until(gateway, link, lambda: set(gateway.states.values()) <= {"lost"}, LAST_WORDS_S_MAX)
    cells, name = gateway.states.keys() | gateway.about.keys(), gateway.site.name
    leaves = ("state", "about", "wave")
    link.clear_retained([topic.wave(name), *(topic.of_node(name, *cell, leaf) for cell in cells for leaf in leaves)])
