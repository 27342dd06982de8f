"""Mode event: nodes of a layer with sign keep silent, and yet every state is that of a full exchange.

Real nodes and the real gateway on a virtual clock; every node proves its state and reading after each cycle.
"""

import json
import random
from collections import Counter

import numpy as np
import pytest
from mesh_in_memory import RUN, TIMING, MeshInMemory, OneFrameAtATime, Perfect, Sensor, make_model, make_node, make_site
from node_bench import AROUND, CENTRE, Bench, Steady, beacon_of, head_of, no_reading_of, reading_of

from firmware.quiet import HEARTBEAT
from firmware.stages import TO_GATEWAY, TO_HALO
from gateway.carried import States
from gateway.gateway import Gateway
from protocol import beacon, frame, health, topic
from protocol.filter_set import TRIAL
from tools import cli
from tools.demo.plan import DemoError, Options, make_plan

CYCLES = 30
WORDS = (frame.READING, frame.NO_READING, frame.VALUE)
EVENT = beacon.MODE_EVENT


def wandering(site, seed, cycles=CYCLES, silent=0.02):
    """Readings that walk about the threshold, cell by cell, some of them missing: {cell: [ccel or None]}."""
    draw = random.Random(seed)
    found = {}
    for cell in site.cells:
        value, values = 2_200 + draw.randint(-200, 200), []
        for _ in range(cycles):
            value += draw.choice((0, 0, draw.randint(-20, 20), draw.randint(-300, 300)))
            values.append(None if draw.random() < silent else value)
        found[cell] = values
    return found


def event_mesh(site, readings, transport=None, spec="zone"):
    sensors = {cell: Sensor(values) for cell, values in readings.items()}
    mesh = MeshInMemory(site, make_model(spec, site), sensors, transport or Perfect())
    mesh.gateway.mode, mesh.gateway.wants_proof = EVENT, True
    return mesh


def kinds(mesh):
    """How many frames of each kind were sent since the last look, by name."""
    counted = Counter(frame.KINDS[data[0] & 15] for _, _, data in mesh.sent)
    mesh.sent.clear()
    return counted


def assert_exact(outcome, site, why=""):
    exact = outcome.exact
    blocks = len({(row // 2, col // 2) for row, col in site.cells})
    assert exact.compared == exact.equal, why
    assert (exact.beyond, outcome.record.late) == (0, 0), why
    assert exact.compared > blocks, why


# Whole meshes


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("transport", [Perfect, OneFrameAtATime])
def test_after_every_cycle_each_nodes_state_is_that_of_a_full_exchange(seed, transport):
    draw = random.Random(seed)
    rows, cols = draw.randint(2, 6), draw.randint(2, 6)
    holes = [(row, col) for row in range(rows) for col in range(cols) if draw.random() < 0.1]
    site = make_site(rows, cols, holes)
    mesh = event_mesh(site, wandering(site, seed), transport())
    for cycle in range(CYCLES):
        assert_exact(mesh.run_cycle(), site, f"seed {seed} cycle {cycle}")


@pytest.mark.parametrize("seed", range(4))
def test_no_node_says_more_than_one_word_in_a_cycle(seed):
    site = make_site(5, 5)
    mesh = event_mesh(site, wandering(site, seed), OneFrameAtATime())
    for cycle in range(CYCLES):
        mesh.run_cycle()
        said = Counter(cell for cell, _, data in mesh.sent if data[0] & 15 in WORDS)
        assert max(said.values(), default=0) <= 1, f"seed {seed} cycle {cycle}"
        mesh.sent.clear()


def test_a_mesh_whose_readings_stay_says_nothing_but_heartbeats_and_proofs():
    site = make_site(4, 4)
    mesh = event_mesh(site, {cell: [2_200] * 3 * HEARTBEAT for cell in site.cells})
    mesh.run_cycle()
    assert {"refresh": 16, "value": 16, "state": 16, "proof": 16} == kinds(mesh)
    beats = Counter()
    for _ in range(HEARTBEAT):
        assert_exact(mesh.run_cycle(), site)
        beats += kinds(mesh)
    assert {"reading": 16, "proof": 16 * HEARTBEAT} == beats


def test_without_proofs_decisions_rest_on_carried_states_that_are_marked():
    site = make_site(4, 4)
    readings = {cell: [2_200] * 6 for cell in site.cells}
    readings[0, 0] = [2_200] * 3 + [3_200] * 3
    mesh = event_mesh(site, readings)
    mesh.gateway.wants_proof = False
    records = [mesh.run_cycle().record for _ in range(6)]
    assert [0, 0, 0, 1, 1, 1] == [int(record.features[0, 0, 0]) for record in records]
    assert [16, 0, 0, 1, 0, 0] == [int(record.pooled.sum()) for record in records]
    assert all((record.features >= 0).all() for record in records)


def test_a_spec_without_zones_is_computed_in_mode_always_whatever_is_asked():
    site = make_site(4, 4)
    mesh = event_mesh(site, wandering(site, 1, silent=0), spec="seed")
    outcome = mesh.run_cycle()
    assert outcome.exact.compared == outcome.exact.equal == outcome.record.features.size
    assert not {"value", "state", "proof"} & kinds(mesh).keys()


def test_a_mesh_that_goes_from_one_mode_to_the_other_and_back_stays_exact():
    site = make_site(5, 4, [(2, 2)])
    mesh = event_mesh(site, wandering(site, 3), OneFrameAtATime())
    for cycle in range(CYCLES):
        mesh.gateway.mode = EVENT if cycle // 5 % 2 else beacon.MODE_ALWAYS
        outcome = mesh.run_cycle()
        assert (0, outcome.exact.equal) == (outcome.record.late, outcome.exact.compared), cycle
        assert outcome.exact.compared >= 5, cycle


# What is lost, and comes back


def test_a_node_that_starts_again_asks_for_the_last_words_and_is_exact_at_once():
    site, restarted = make_site(5, 5), (2, 2)
    readings = wandering(site, 5, silent=0)
    mesh = event_mesh(site, readings)
    for cycle in range(CYCLES):
        if cycle % 4 == 3:
            mesh.nodes[restarted] = make_node(site, restarted, mesh.gateway.model.filters, Sensor(readings[restarted]))
            mesh._poll_ms.pop(restarted, None)
        assert_exact(mesh.run_cycle(), site, cycle)
        if cycle % 4 == 3:
            asked = kinds(mesh)
            assert 1 == asked["refresh"]
        mesh.sent.clear()


def test_a_node_whose_connection_was_lost_says_its_word_and_state_again():
    site, lost = make_site(3, 3), (1, 1)
    mesh = event_mesh(site, {cell: [2_200] * 9 for cell in site.cells})
    for _ in range(3):
        mesh.run_cycle()
    kinds(mesh)
    mesh.nodes[lost].rejoined = True
    assert_exact(mesh.run_cycle(), site)
    assert [frame.REFRESH, frame.VALUE, frame.STATE, frame.PROOF] == [
        data[0] & 15 for cell, _, data in mesh.sent if cell == lost and data[0] & 15 != frame.READING
    ]
    answers = [cell for cell, _, data in mesh.sent if data[0] & 15 == frame.READING]
    assert 8 == len(answers)


def test_a_gateway_that_starts_again_is_told_every_state_and_no_value():
    site = make_site(4, 4)
    mesh = event_mesh(site, {cell: [2_200] * 9 for cell in site.cells})
    for _ in range(3):
        mesh.run_cycle()
    kinds(mesh)
    again = Gateway(site, mesh.gateway.model, TIMING, RUN + 1)
    again.mode, again.wants_proof, again.numbers.next = EVENT, True, mesh.gateway.numbers.next
    mesh.gateway = again
    assert_exact(mesh.run_cycle(), site)
    said = kinds(mesh)
    assert (16, 0) == (said["state"], said["value"])


def test_a_state_that_no_beacon_acknowledges_is_said_again():
    site = make_site(2, 2)
    readings = {cell: [2_200] * 9 for cell in site.cells} | {(0, 0): [2_200] * 3 + [3_200] * 6}
    mesh = event_mesh(site, readings)
    mesh.gateway.wants_proof = False
    for _ in range(3):
        mesh.run_cycle()
    take, lost = mesh.gateway.on_message, []

    def lossy(name, payload):
        if payload and payload[0] & 15 == frame.STATE and not lost:
            lost.append(payload)
        else:
            take(name, payload)

    mesh.gateway.on_message = lossy
    assert 0 == mesh.run_cycle().record.features[0, 0, 0]
    assert 1 == mesh.run_cycle().record.features[0, 0, 0]
    kinds(mesh)
    mesh.run_cycle()
    assert 0 == kinds(mesh)["state"]


def test_a_node_known_to_be_gone_counts_for_nothing():
    site = make_site(2, 4)
    readings = {cell: [2_200] * 9 for cell in site.cells} | {(0, 0): [3_200] * 9}
    mesh = event_mesh(site, readings)
    mesh.gateway.wants_proof = False
    assert 1 == mesh.run_cycle().record.features[0, 0, 0]
    mesh.kill((0, 0), will=True)
    assert 0 == mesh.run_cycle().record.features[0, 0, 0]


# One node


def quiet_bench():
    """A node in mode event whose neighbours all said their word."""
    bench = Bench(spec="zone", sensor=Steady())
    bench.hear(beacon_of(1, flags=EVENT))
    bench.hear(*[value_of(cell, 1) for cell in AROUND])
    bench.said.clear()
    return bench


def value_of(cell, cycle, reading_ccel=2_200):
    return frame.value(head_of(frame.VALUE, cell, cycle), reading_ccel)


def test_a_word_that_comes_late_still_changes_the_state_and_it_is_said_at_once():
    bench = quiet_bench()
    bench.wait(TIMING.exchange_ms)
    assert [frame.STATE] == [data[0] & 15 for _, data in bench.said]
    bench.said.clear()
    bench.hear(value_of((1, 2), 1, 9_000))
    assert [(TO_GATEWAY, 1)] == [(to, data[8]) for to, data in bench.said if data[0] & 15 == frame.STATE]


def test_a_word_of_an_earlier_cycle_does_not_replace_a_later_one():
    bench = quiet_bench()
    bench.hear(value_of((1, 2), 3, 2_200))
    bench.hear(value_of((1, 2), 2, 9_000))
    bench.wait(TIMING.exchange_ms)
    assert 0 == bench.said[-1][1][8]
    assert 1 == bench.faults()["stale"]


def test_a_node_that_missed_its_acknowledgement_says_its_state_again():
    bench = quiet_bench()
    bench.wait(TIMING.exchange_ms)
    bench.said.clear()
    bench.hear(beacon_of(3, flags=EVENT))
    bench.wait(TIMING.exchange_ms)
    bench.hear(beacon_of(4, flags=EVENT, acked=[(0, 0)]))
    bench.wait(TIMING.exchange_ms)
    assert [3] == [frame.cycle_of(data, 3) for _, data in bench.said if data[0] & 15 == frame.STATE]


def test_words_before_the_beacon_that_says_the_mode_are_kept():
    """They are not said again: whoever asks in the same cycle is taken to have heard them."""
    bench = Bench(spec="zone", sensor=Steady())
    bench.hear(value_of((1, 2), 1, 9_000))
    bench.hear(beacon_of(1, flags=EVENT))
    bench.wait(TIMING.exchange_ms)
    assert [1] == [data[8] for _, data in bench.said if data[0] & 15 == frame.STATE]


def test_who_is_asked_repeats_its_last_word_and_not_its_reading():
    bench = quiet_bench()
    bench.node._sensor = Steady(2_201)
    bench.hear(beacon_of(2, flags=EVENT))
    assert [] == bench.said
    bench.hear(head_of(frame.REFRESH, (0, 0), 2), head_of(frame.REFRESH, (0, 1), 2))
    assert [(TO_HALO, reading_of(CENTRE, 2, 2_200))] == bench.said


def test_a_sensor_that_gives_nothing_is_said_once_and_its_state_is_none():
    bench = quiet_bench()
    bench.node._sensor = Steady(None)
    for cycle in (2, 3):
        bench.hear(beacon_of(cycle, flags=EVENT))
        bench.wait(TIMING.exchange_ms)
    said = [data for _, data in bench.said]
    assert 1 == said.count(no_reading_of(CENTRE, 2))
    assert frame.STATE_NONE == next(data[8] for data in said if data[0] & 15 == frame.STATE)


def test_frames_of_the_other_mode_are_counted_and_change_nothing():
    bench = quiet_bench()
    bench.hear(head_of(frame.STATE, (0, 1), 1) + b"\1", head_of(frame.PROOF, (0, 1), 1) + b"\1\0\0")
    always = Bench(spec="seed")
    always.hear(beacon_of(1))
    always.hear(value_of((0, 1), 1), head_of(frame.REFRESH, (0, 1), 1))
    assert (2, 2) == (bench.faults()["stale"], always.faults()["stale"])


def test_a_node_without_the_cycles_filters_says_its_readings_and_no_state():
    bench = quiet_bench()
    bench.hear(beacon_of(2, flags=EVENT, version=7))
    bench.node._sensor = Steady(2_201)
    bench.hear(beacon_of(3, flags=EVENT, version=7))
    bench.wait(TIMING.exchange_ms)
    assert [value_of(CENTRE, 3, 2_201)] == [data for _, data in bench.said]


def test_a_node_that_starts_without_the_cycles_filters_says_its_reading_too():
    bench = Bench(spec="zone", sensor=Steady())
    bench.hear(beacon_of(1, flags=EVENT, version=7))
    assert [frame.REFRESH, frame.VALUE] == [data[0] & 15 for _, data in bench.said]


def test_cycles_of_other_filters_do_not_confirm_those_on_trial():
    bench = quiet_bench()
    bench.node.wave.phase = TRIAL
    bench.wait(TIMING.exchange_ms)
    assert 1 == bench.node.wave.completed
    bench.hear(beacon_of(2, flags=EVENT, version=7))
    bench.wait(TIMING.exchange_ms)
    assert 1 == bench.node.wave.completed


# Real nodes


@pytest.mark.slow
def test_real_nodes_and_a_real_broker_stay_exact_in_silence_and_over_new_filters(tmp_path, capsys):
    site = tmp_path / "site.toml"
    site.write_text('name = "small"\nrows = 7\ncols = 7\nholes = ["n-00-00", "n-03-03"]\n')
    assert 0 == cli.demo(site=site, runtime="micropython", spec="zone", mode="event", cycles=16, as_json=True)
    summary = json.loads(capsys.readouterr().out)
    exact, filters, bill = summary["exact"], summary["filters"], summary["ledger"]
    assert 16 * 47 < exact["compared"] == exact["equal"]
    assert (47, 0, {"1", "2"}) == (filters["confirmed"], filters["refused"], set(filters["cycles"]))
    assert bill["kinds"]["value"]["frames"] < 10 < bill["proof"]["frames"] == 47
    # Each node published the new set once for its neighbours; the gateway at least once.
    assert 48 <= round(16 * bill["kinds"]["wave"]["frames"])


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"spec": "seed", "mode": "event"}, "--mode event: spec seed has no zones to be silent in; write --spec zone"),
        ({"spec": "zone", "mode": "never"}, "--mode never: is not always, change, event"),
        ({"copies": 2}, "--copies 2: only mode event has them; write --spec zone --mode event"),
        ({"spec": "zone", "mode": "event", "copies": 5}, "--copies 5: is not in 0..4"),
    ],
)
def test_mode_event_is_refused_where_it_cannot_be_had(asked, said):
    with pytest.raises(DemoError, match=said):
        make_plan(Options(**asked), lambda name: lambda done, all: None)


# The gateway


def test_a_state_said_late_counts_from_the_next_cycle_on_and_never_undoes_a_later_one():
    states = States(make_site(2, 2))
    assert states.take((0, 0), 5, 1)
    assert not states.take((0, 0), 4, 0)
    assert 1 == states.latest[0, 0]


@pytest.mark.parametrize("payload", [b"", b"\x19", bytes(8), b"\x19\0\0\4\0\0\0\0\3", b"\x1b" + bytes(10)])
def test_what_is_no_state_of_this_node_is_counted(payload):
    site = make_site(2, 2)
    gateway = Gateway(site, make_model("zone", site), TIMING, RUN)
    gateway.mode = EVENT
    gateway.start_cycle(0)
    gateway.on_message(topic.of_node(site.name, 1, 1, "up"), payload)
    assert 1 == sum(gateway.faults[name] for name in ("malformed", "stranger", "other_run"))
    assert (gateway._node_states.latest > frame.STATE_NONE).all()


def test_proofs_that_contradict_a_full_exchange_are_found():
    site = make_site(3, 3)
    mesh = event_mesh(site, {cell: [2_200] * 3 for cell in site.cells})
    take = mesh.gateway.on_message

    def lying(name, payload):
        if payload and payload[0] & 15 == frame.PROOF and name == topic.of_node(site.name, 1, 1, "up"):
            payload = payload[:8] + b"\1" + payload[9:]
        take(name, payload)

    mesh.gateway.on_message = lying
    exact = mesh.run_cycle().exact
    assert 1 == exact.compared - exact.equal


def test_the_counters_of_frames_know_every_kind():
    bench = quiet_bench()
    taken = np.array(bench.node.trace.counters)[health.TAKEN : health.TAKEN_BYTES]
    assert 8 == taken[frame.VALUE]
    assert len(taken) == len(frame.KINDS)
