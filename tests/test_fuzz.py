"""A hundred thousand messages that nobody means, on every topic that is heard: all are counted and none leaves a trace.

The cycles in which they come may go wrong, for a frame that is whole is believed. What follows is exact again.
"""

import gc
import sys
from collections import Counter

import paho.mqtt.client as paho
import pytest
from broker_bench import needs_mosquitto
from mesh_in_memory import TIMING, MeshInMemory, Perfect, make_model, make_site
from noise import ModeNoise, Noise, hearers, verdict
from real_mesh import TIMING as REAL_TIMING
from real_mesh import real_mesh

from firmware.mqtt import IN_MAX
from firmware.quiet import HEARTBEAT
from gateway.gateway import Timing
from protocol import health, topic
from protocol.beacon import MODE_ALWAYS, MODE_CHANGE, MODE_EVENT

MESSAGES = 100_000
SITE = make_site(3, 3)
# Cycles after the last message until all is as if there had been none.
SETTLE_CYCLES = 3


class Sensor:
    """A reading for every number that a cycle can have."""

    def __init__(self, cell):
        self._start = 31 * cell[0] + 17 * cell[1]

    def read(self, cycle):
        return 2_000 + (self._start + cycle) * 7_919 % 500


def check_whole(outcome, where):
    """Everything was reported and compared, and nothing differs."""
    record, exact = outcome.record, outcome.exact
    assert (len(SITE.cells), 0) == (record.pooled.sum(), record.late), where
    assert exact.compared == exact.equal == record.features.size, where


# In memory

ROUNDS = 40
# In a cycle of mode change or event.
MODE_MESSAGES = 1_000


class NoisyMesh(MeshInMemory):
    """A mesh that counts what it is told.

    Attributes:
        told: by cell, how often which verdict was due.
        unanswered: by leaf, messages to the gateway that no count of it tells of.
    """

    def __init__(self, spec="seed", mode=MODE_ALWAYS):
        super().__init__(SITE, make_model(spec, SITE), {cell: Sensor(cell) for cell in SITE.cells}, Perfect())
        self.gateway.mode, self.gateway.wants_proof = mode, mode != MODE_ALWAYS
        self.told = {cell: Counter() for cell in SITE.cells}
        self.unanswered = Counter()
        self._hearers = hearers(SITE)

    def deliver(self, name, payload):
        for cell in self._hearers[name]:
            self._arrive(cell, payload)
        if "/n/" in name and not name.endswith("halo"):
            self._tell_gateway(name, payload)

    def _tell_gateway(self, name, payload):
        before = self._answers()
        self.gateway.on_message(name, payload)
        if self._answers() == before:
            self.unanswered[name.rpartition("/")[2]] += 1

    def _answers(self):
        taken = ("reports", "holdings", "states", "proofs")
        return sum(self.gateway.faults.values()) + sum(self.gateway.traffic[name] for name in taken)

    def _arrive(self, cell, frame):
        self.told[cell][verdict(SITE, cell, frame)] += 1
        super()._arrive(cell, frame)

    def hear_noise(self, noise, rounds, messages=MESSAGES // ROUNDS):
        """So many cycles, with so many messages in each, at any instant."""
        for _ in range(rounds):
            noise.cycle = self.gateway.numbers.next
            for at in range(messages):
                self.at(at * TIMING.period_ms // messages, lambda: self.deliver(*noise.message()))
            self.run_cycle()
            self.sent.clear()

    def settle(self, cycles=SETTLE_CYCLES):
        """Quiet cycles; gives the blocks of memory in use after them."""
        for _ in range(cycles):
            self.run_cycle()
        self.sent.clear()
        self._events = sorted(event for event in self._events if self._is_due(*event))
        gc.collect()
        return sys.getallocatedblocks()

    def _is_due(self, at_ms, _order, poll):
        """Between cycles nothing is under way but polls; one that an earlier poll made needless is the test's own."""
        return at_ms == self._poll_ms.get(*poll.args)


@pytest.mark.slow
def test_after_a_hundred_thousand_random_messages_the_mesh_in_memory_is_exact(seed):
    mesh, noise = NoisyMesh(), Noise(seed, SITE)
    mesh.hear_noise(noise, ROUNDS // 4)
    blocks = mesh.settle()
    mesh.hear_noise(noise, ROUNDS * 3 // 4)
    grown = mesh.settle() - blocks
    for cycle in range(5):
        check_whole(mesh.run_cycle(), f"cycle {cycle} after the noise")
    check_counters(mesh)
    assert {"state", "about", "health"} == mesh.unanswered.keys()
    assert grown < 500, f"{MESSAGES * 3 // 4} messages left {grown} blocks of memory behind"


@pytest.mark.slow
@pytest.mark.parametrize(("spec", "mode"), [("zone", MODE_EVENT), ("seed", MODE_CHANGE)])
def test_a_mesh_whose_nodes_keep_what_they_are_told_is_exact_two_heartbeats_after_random_messages(spec, mode, seed):
    mesh, noise = NoisyMesh(spec, mode), ModeNoise(seed, SITE)
    mesh.hear_noise(noise, 4, MODE_MESSAGES)
    blocks = mesh.settle(2 * HEARTBEAT + 1)
    mesh.hear_noise(noise, 8, MODE_MESSAGES)
    grown = mesh.settle(2 * HEARTBEAT + 1) - blocks
    for _ in range(5):
        exact = mesh.run_cycle().exact
        assert (exact.compared, 0) == (exact.equal, exact.beyond)
        assert exact.compared > 0
    check_refusals(mesh)
    assert grown < 500, f"{8 * MODE_MESSAGES} messages left {grown} blocks of memory behind"


def check_counters(mesh):
    """Each frame that reached a node is counted once: as taken in, or as one of the faults that refuse it."""
    check_refusals(mesh)
    for cell, node in mesh.nodes.items():
        counters, told = node.trace.counters, mesh.told[cell]
        taken = sum(counters[health.TAKEN : health.TAKEN_BYTES])
        refused = sum(counters[place] for place in (health.MALFORMED, health.STRANGER, health.STALE))
        assert sum(told.values()) - told["own"] == taken + refused
        assert taken > MESSAGES // 100
    faults = mesh.gateway.faults
    assert {"malformed", "stranger", "other_run", "other_version", "late_report", "too_far_ahead"} <= faults.keys()


def check_refusals(mesh):
    """What a node has to refuse whatever it is doing is in its counters, to the last frame."""
    for cell, node in mesh.nodes.items():
        counters, told = node.trace.counters, mesh.told[cell]
        assert [told["malformed"], told["stranger"]] == [counters[health.MALFORMED], counters[health.STRANGER]]
        assert min(counters[place] for place in (health.MALFORMED, health.STRANGER, health.STALE)) > 0


# Over a real broker, to real nodes

# The broker drops what a client that is slow has not taken of a thousand messages.
BATCH = 800
# While there is noise, no cycle is worth waiting for.
HASTE = Timing(period_ms=20_000, exchange_ms=100, gather_ms=100, report_ms=100)


class NoiseClient:
    """Publishes noise; asks every node for its counters behind each batch, and waits for them, so that no queue fills.

    Attributes:
        due: by cell, how often which verdict is due in its counters.
        too_long: by cell, messages that do not fit its input buffer.
    """

    def __init__(self, real, noise):
        self.due = {cell: Counter() for cell in SITE.cells}
        self.too_long = Counter()
        self._real, self._noise = real, noise
        self._hearers = hearers(SITE)
        self._answered = set()
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2)
        self._client.max_queued_messages_set(0)
        self._client.on_connect = lambda client, *_: client.subscribe(topic.base(SITE.name) + "n/+/health")
        self._client.on_message = lambda *arguments: self._answered.add(arguments[2].topic)
        self._client.connect(real.broker.host, real.broker.port)
        self._client.on_subscribe = lambda *_: self._answered.add("subscribed")
        self._client.loop_start()
        assert real.listen_until(lambda: self._answered, 30.0)

    def publish(self, count):
        for _ in range(count):
            name, payload = self._noise.message()
            self._client.publish(name, payload)
            self._expect(name, payload)
        self._answered.clear()
        self._client.publish(topic.cycle(SITE.name), self._real.gateway.ask_health())
        assert self._real.listen_until(lambda: len(self._answered) == len(SITE.cells), 30.0), sorted(self._answered)

    def _expect(self, name, payload):
        body = 2 + len(name) + len(payload)
        for cell in self._hearers[name]:
            if body + (2 if body < 128 else 3) > IN_MAX:
                self.too_long[cell] += 1
            else:
                self.due[cell][verdict(SITE, cell, payload, name)] += 1

    def close(self):
        self._client.disconnect()
        self._client.loop_stop()


@needs_mosquitto
@pytest.mark.slow
def test_after_a_hundred_thousand_random_messages_a_mesh_of_real_nodes_is_exact(seed, tmp_path):
    """Nine MicroPython nodes with 32 KB of heap: all of them live on, and every message is in their counters."""
    with real_mesh(tmp_path, SITE, "seed") as real:
        check_whole(real.run_cycle(), "before the noise")
        noise = Noise(seed, SITE)
        client = NoiseClient(real, noise)
        real.gateway._timing = HASTE
        for _ in range(MESSAGES // BATCH):
            noise.cycle = real.gateway.numbers.next
            client.publish(BATCH)
            real.run_cycle()
        client.close()
        real.gateway._timing = REAL_TIMING
        outcomes = [real.run_cycle() for _ in range(SETTLE_CYCLES + 3)]
        for outcome in outcomes[SETTLE_CYCLES:]:
            check_whole(outcome, f"cycle {outcome.record.cycle} after the noise")
        check_real_counters(real.ask_health(), client)
        assert [] == real.mesh.problems()


def check_real_counters(counted, client):
    """What a node must refuse whatever it is doing was counted, to the last frame; nobody lost its connection."""
    for cell, counters in counted.items():
        due = client.due[cell]
        assert (due["malformed"], due["stranger"]) == (counters[health.MALFORMED], counters[health.STRANGER]), cell
        assert client.too_long[cell] <= counters[health.MQTT_SKIPPED], cell
        assert 0 == counters[health.MQTT_LOST], cell
