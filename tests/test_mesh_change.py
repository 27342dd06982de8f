"""Mode change on whole meshes of real nodes: what is said is what sim/change.py says, and features are the view's."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from mesh_in_memory import (
    RUN,
    TIMING,
    Lossy,
    MeshInMemory,
    OneFrameAtATime,
    Perfect,
    WaveMesh,
    make_model,
    make_node,
    make_site,
)
from store_bench import new_store
from test_change import random_room
from test_mesh_exact import sensor_at
from test_twin import random_filters
from wave_sets import KEY, SECRET_KEY

from firmware.quiet import GONE, HEARTBEAT, heartbeat_due
from firmware.stages import TO_GATEWAY
from gateway import wave
from gateway.decision import LIMITS_DEFAULT, init
from gateway.gateway import Gateway
from gateway.model import SPECS
from gateway.recompute import recompute
from gateway.store import Basis
from protocol import beacon, frame, topic
from sim.change import owners, traffic, words
from tools import cli
from tools.demo.plan import DemoError, Options, make_plan

CYCLES = 60
SITE = make_site(4, 5)
THRESHOLD_CCEL = 25
EVERY_SPEC = pytest.mark.parametrize("spec", SPECS)


def change_mesh(site, model, readings, present, transport=None, threshold_ccel=THRESHOLD_CCEL):
    """Real nodes with these readings, and a gateway that asks for mode change and for proofs."""
    sensors = {cell: sensor_at(readings, present, cell) for cell in site.cells}
    mesh = MeshInMemory(site, model, sensors, transport or Perfect())
    mesh.gateway.mode, mesh.gateway.wants_proof = beacon.MODE_CHANGE, True
    mesh.gateway.threshold_ccel = threshold_ccel
    return mesh


def random_model(spec, site, rng):
    return replace(make_model(spec, site), filters=random_filters(SPECS[spec], rng))


def said(mesh):
    """Frames by node, kind and size since the last look, without proofs."""
    counted = Counter((cell, frame.KINDS[data[0] & 15], len(data)) for cell, _, data in mesh.sent)
    mesh.sent.clear()
    return Counter({key: count for key, count in counted.items() if key[1] != "proof"})


def expected(found, site, cycle):
    """The same of sim/change.py."""
    counted = Counter()
    for kind, sizes in found.sent:
        counted.update((cell, kind, int(sizes[cycle][cell])) for cell in site.cells if sizes[cycle][cell])
    return counted


def assert_exact(outcome, heard, why=""):
    """Every feature was compared with the twin's for the view, and nodes proved that view."""
    record, exact = outcome.record, outcome.exact
    assert (0, 0) == (record.late, exact.beyond), why
    assert exact.compared == exact.equal == (record.features >= 0).sum(), why
    present = heard.present[record.cycle]
    assert np.array_equal(present, record.has_reading), why
    assert np.array_equal(heard.view_ccel[record.cycle][present], record.readings_ccel[present]), why


@pytest.mark.parametrize("transport", [Perfect, OneFrameAtATime])
@pytest.mark.parametrize("part", range(4))
@EVERY_SPEC
def test_real_nodes_say_frame_for_frame_what_the_simulation_says(spec, part, transport, seed):
    rng = np.random.default_rng(seed + part)
    readings, present, site = random_room(rng, CYCLES)
    model, threshold_ccel = random_model(spec, site, rng), int(rng.integers(0, 40))
    mesh = change_mesh(site, model, readings, present, transport(), threshold_ccel)
    heard = words(readings, present, site, threshold_ccel)
    found = traffic(model.filters, heard, site)
    asked = Counter((cell, "refresh", 8) for cell in site.cells)
    for cycle in range(CYCLES):
        outcome = mesh.run_cycle()
        assert expected(found, site, cycle) + (Counter() if cycle else asked) == said(mesh), f"cycle {cycle}"
        assert np.array_equal(found.features[cycle], outcome.record.features), f"cycle {cycle}"
        assert_exact(outcome, heard, f"cycle {cycle}")


# Filters, modes, runs


class LastFor:
    """A room's readings, the last of them for ever: a wave takes as long as it takes."""

    def __init__(self, sensor, cycles):
        self._sensor, self._cycles = sensor, cycles

    def read(self, cycle):
        return self._sensor.read(min(cycle, self._cycles - 1))


@EVERY_SPEC
def test_in_the_cycle_of_new_filters_everything_but_words_is_said_as_the_simulation_says_it(spec, tmp_path, seed):
    rng = np.random.default_rng(seed)
    readings, present, site = random_room(rng, CYCLES)
    model = random_model(spec, site, rng)
    sensors = {cell: sensor_at(readings, present, cell) for cell in site.cells}
    mesh = WaveMesh(site, model, sensors, Perfect(), folder=tmp_path, key=KEY)
    mesh.gateway.mode, mesh.gateway.wants_proof = beacon.MODE_CHANGE, True
    other = replace(model, filters=replace(random_filters(SPECS[spec], rng), version=2))
    heard = words(readings, present, site, THRESHOLD_CCEL)
    found, versions = traffic(model.filters, heard, site), []
    for cycle in range(CYCLES):
        if cycle == 20:
            mesh.push(other, wave.signed(other.filters, site.name, Ed25519PrivateKey.from_private_bytes(SECRET_KEY)))
        mesh.sent.clear()
        outcome = mesh.run_cycle()
        versions.append(outcome.filter_version)
        if versions[-2:] == [1, 2]:
            found = traffic(other.filters, heard.part(slice(cycle, None)), site)
        counted = Counter({key: count for key, count in said(mesh).items() if key[1] not in ("filters", "refresh")})
        assert expected(found, site, cycle - versions.count(1) * (versions[-1] == 2)) == counted, f"cycle {cycle}"
        assert_exact(outcome, heard, f"cycle {cycle}")
    assert {1, 2} == set(versions)


@pytest.mark.parametrize("transport", [Perfect, OneFrameAtATime])
@EVERY_SPEC
def test_a_mesh_that_goes_from_mode_to_mode_and_back_stays_exact(spec, transport, seed):
    rng = np.random.default_rng(seed)
    readings, present, site = random_room(rng, CYCLES)
    mesh = change_mesh(site, random_model(spec, site, rng), readings, present, transport())
    for cycle in range(CYCLES):
        mesh.gateway.mode = rng.permutation(3)[0].item() if cycle % 5 == 0 else mesh.gateway.mode
        outcome = mesh.run_cycle()
        assert (0, outcome.exact.equal) == (outcome.record.late, outcome.exact.compared), f"cycle {cycle}"
        assert outcome.exact.compared or not present[cycle][site.mask].any(), f"cycle {cycle}"


def still_mesh(site=SITE, spec="seed", cycles=400, transport=None):
    """A mesh whose readings never move, after its first three cycles."""
    readings = 2200 + 40 * np.arange(site.mask.size).reshape(site.mask.shape) % 700
    fields = np.broadcast_to(readings, (cycles, *readings.shape))
    mesh = change_mesh(site, make_model(spec, site), fields, np.ones(fields.shape, np.bool_), transport)
    for _ in range(3):
        mesh.run_cycle()
    mesh.sent.clear()
    return mesh


def kinds(mesh):
    """How many frames of each kind were sent since the last look, without proofs and heartbeats."""
    counted = Counter()
    for cell, _, data in mesh.sent:
        if data[0] & 15 != frame.PROOF and not heartbeat_due(*cell, frame.u16(data, 4)):
            counted[frame.KINDS[data[0] & 15]] += 1
    mesh.sent.clear()
    return counted


def is_exact(outcome):
    exact, record = outcome.exact, outcome.record
    return record.late == 0 and exact.compared == exact.equal == record.features.size


def test_a_gateway_that_starts_again_is_told_every_block_and_no_word():
    mesh = still_mesh()
    again = Gateway(SITE, mesh.gateway.model, TIMING, RUN + 1)
    again.mode, again.wants_proof, again.numbers.next = beacon.MODE_CHANGE, True, mesh.gateway.numbers.next
    mesh.gateway = again
    assert is_exact(mesh.run_cycle())
    assert {"report": len(SITE.blocks)} == kinds(mesh)


# What is carried


def test_features_that_nobody_spoke_of_are_carried_and_marked():
    mesh = still_mesh()
    mesh.nodes[0, 0]._sensor = sensor_at(np.full((400, 1, 1), 3_000), np.ones((400, 1, 1), np.bool_), (0, 0))
    record = mesh.run_cycle().record
    reported = {tuple(cell) for cell in np.argwhere(~record.carried).tolist()}
    sent = {(cell[0] // 2, cell[1] // 2) for cell, _, data in mesh.sent if data[0] & 15 == frame.REPORT}
    assert sent == reported
    assert (0, 0) in reported
    assert 0 < record.carried.sum() < len(SITE.blocks)
    assert (record.features >= 0).all()


def test_a_stored_cycle_with_carried_features_is_recomputed_to_the_bit(tmp_path, seed):
    rng = np.random.default_rng(seed)
    readings, present, _ = random_room(rng, 12)
    site = make_site(*present.shape[1:])
    model = random_model("seed", site, rng)
    mesh, carried = change_mesh(site, model, readings, present), 0
    with new_store(tmp_path, model, site) as store:
        for cycle in range(12):
            outcome = mesh.run_cycle()
            store.add_cycle(RUN, 0.0, outcome, Basis(init(), LIMITS_DEFAULT, site.cells))
            stored = store.cycle(RUN, cycle)
            assert np.array_equal(outcome.record.carried, stored.outcome.record.carried)
            again = recompute(store, stored)
            assert outcome.exact == again.exact
            assert outcome.decision.scores == pytest.approx(again.decision.scores, abs=1e-5)
            carried += int(outcome.record.carried.sum())
    assert carried


def test_without_proofs_a_cycle_lasts_until_its_time_is_over_and_its_features_are_the_same():
    mesh = still_mesh()
    before = mesh.run_cycle().record.features
    mesh.gateway.wants_proof = False
    mesh.sent.clear()
    outcome = mesh.run_cycle()
    assert np.array_equal(before, outcome.record.features)
    assert (0, 0) == (outcome.exact.compared, outcome.record.late)
    assert frame.PROOF not in {data[0] & 15 for _, _, data in mesh.sent}


def test_a_report_that_no_beacon_acknowledges_is_said_until_one_does():
    mesh, lost = still_mesh(), []
    take = mesh.gateway.on_message

    def lossy(name, payload):
        if payload and payload[0] & 15 == frame.REPORT and len(lost) < 3:
            lost.append(payload)
        else:
            take(name, payload)

    mesh.gateway.on_message = lossy
    mesh.nodes[0, 0].mode._reported[0] = 0  # so it has to report, and nothing else happens
    for _ in range(3):
        assert is_exact(mesh.run_cycle())
    assert 3 == len(lost)
    kinds(mesh)
    assert [1, 0] == [(mesh.run_cycle(), kinds(mesh)["report"])[1] for _ in range(2)]


def test_the_report_of_a_node_known_to_be_lost_counts_for_nothing_and_is_said_again_when_it_is_back():
    mesh, block = still_mesh(), (1, 1)
    owner = next(cell for cell in SITE.cells if owners(SITE)[cell] and (cell[0] // 2, cell[1] // 2) == block)
    node = mesh.nodes[owner]
    mesh.kill(owner, will=True)
    outcome = mesh.run_cycle()
    assert (outcome.record.features[block] == -1).all()
    assert outcome.record.late >= 3
    mesh.nodes[owner] = make_node(SITE, owner, mesh.gateway.model.filters, node._sensor)
    mesh._poll_ms.pop(owner, None)
    mesh.gateway.on_message(topic.of_node(SITE.name, *owner, "state"), b"ready")
    assert is_exact(mesh.run_cycle())


# What is lost, late, or comes back


@EVERY_SPEC
def test_a_node_that_starts_again_asks_for_the_last_words_and_is_exact_at_once(spec, seed):
    rng = np.random.default_rng(seed)
    readings, present, site = random_room(rng, CYCLES)
    mesh = change_mesh(site, random_model(spec, site, rng), readings, present, OneFrameAtATime())
    for cycle in range(CYCLES):
        if cycle % 3 == 2:
            cell = site.cells[rng.integers(len(site.cells))]
            mesh.nodes[cell] = make_node(site, cell, mesh.gateway.model.filters, mesh.nodes[cell]._sensor)
            mesh._poll_ms.pop(cell, None)
        outcome = mesh.run_cycle()
        record, exact = outcome.record, outcome.exact
        assert (0, 0) == (record.late, exact.beyond), f"cycle {cycle}"
        assert exact.compared == exact.equal == (record.features >= 0).sum(), f"cycle {cycle}"


def test_who_lost_its_connection_says_everything_and_neighbours_their_last_words_again():
    mesh, lost = still_mesh(), (1, 1)
    around = [cell for cell in SITE.cells if max(abs(cell[0] - 1), abs(cell[1] - 1)) <= 1]
    mesh.run_cycle()
    kinds(mesh)
    mesh.nodes[lost].rejoined = True  # in a cycle in which no neighbour has its heartbeat
    assert is_exact(mesh.run_cycle())
    members = [cell for cell in around if not owners(SITE)[cell]]
    assert {"refresh": 1, "reading": 9, "activations": 9, "member": len(members)} == kinds(mesh)
    mesh.run_cycle()
    assert not kinds(mesh)


class LosesReadings:
    """Perfect, but for deliveries of READING frames while `loses` is set."""

    loses = False

    def delays_ms(self, _now_ms):
        return () if self.loses else (1,)


def test_what_a_lost_word_cost_is_mended_by_the_next_heartbeat():
    mesh = still_mesh(transport=(transport := LosesReadings()))
    send, moved = mesh._send, (2, 2)

    def losing(cell, destination, data):
        transport.loses = cell == moved and data[0] & 15 == frame.READING and frame.u16(data, 4) == 3
        send(cell, destination, data)
        transport.loses = False

    mesh._send = losing
    mesh.nodes[moved]._sensor = sensor_at(np.full((400, 3, 3), 2_900), np.ones((400, 3, 3), np.bool_), moved)
    exact = [is_exact(mesh.run_cycle()) for _ in range(3, 3 + HEARTBEAT + 1)]
    due = next(cycle for cycle in range(4, 4 + HEARTBEAT) if heartbeat_due(*moved, cycle))
    assert not exact[0]
    assert all(exact[due - 3 :])


def let_overtake(mesh, transport):
    """Use this transport from now on between nodes; what a node says to the gateway stays in its order."""
    send, mesh._transport = mesh._send, transport

    def in_order(cell, destination, data):
        mesh._transport = Perfect() if destination == TO_GATEWAY else transport
        send(cell, destination, data)
        mesh._transport = transport

    mesh._send = in_order


@pytest.mark.parametrize("part", range(3))
@EVERY_SPEC
def test_frames_that_overtake_each_other_and_come_twice_change_nothing(spec, part, seed):
    rng = np.random.default_rng(seed + part)
    readings, present, site = random_room(rng, CYCLES)
    mesh = change_mesh(site, random_model(spec, site, rng), readings, present)
    heard = words(readings, present, site, THRESHOLD_CCEL)
    assert_exact(mesh.run_cycle(), heard)  # before its first beacon a node takes no frames
    let_overtake(mesh, Lossy(seed + part, 0.0))
    for cycle in range(1, CYCLES):
        assert_exact(mesh.run_cycle(), heard, f"cycle {cycle}")


@EVERY_SPEC
def test_after_losses_a_mesh_is_exact_again_once_everybody_had_its_heartbeat(spec, seed):
    rng = np.random.default_rng(seed)
    steps = rng.integers(-300, 301, (40 + 2 * HEARTBEAT, 4, 5)) * (rng.random((40 + 2 * HEARTBEAT, 4, 5)) < 0.3)
    steps[40:] = 0
    readings, present = 2200 + steps.cumsum(axis=0), np.ones(steps.shape, np.bool_)
    mesh = change_mesh(SITE, make_model(spec, SITE), readings, present)
    mesh.run_cycle()
    mesh._transport, wrong = Lossy(seed, 0.1), 0
    for _ in range(39):
        exact = mesh.run_cycle().exact
        wrong += exact.compared - exact.equal
    mesh._transport = Perfect()
    for _ in range(2 * HEARTBEAT - 1):
        mesh.run_cycle()
    assert is_exact(mesh.run_cycle())
    assert wrong


def test_a_node_that_died_is_absent_once_its_words_are_too_old_and_the_next_corner_reports():
    mesh, dead = still_mesh(), (2, 2)
    mesh.kill(dead)
    mesh.gateway.wants_proof = False
    for _ in range(GONE - 3):
        record = mesh.run_cycle().record
    assert record.pooled[dead]
    assert not record.absence.any()
    for _ in range(HEARTBEAT):
        record = mesh.run_cycle().record
    assert not record.pooled[dead]
    assert record.pooled[2, 3]
    assert record.pooled[3, 2]
    assert record.absence[0][1, 1] == 1 << 7


# Real nodes


@pytest.mark.slow
@pytest.mark.parametrize("spec", SPECS)
def test_real_nodes_and_a_real_broker_compute_exactly_with_what_was_said_last(spec, tmp_path, capsys):
    site = tmp_path / "site.toml"
    site.write_text('name = "small"\nrows = 7\ncols = 7\nholes = ["n-00-00", "n-03-03"]\n')
    assert 0 == cli.demo(site=site, runtime="micropython", spec=spec, mode="change", cycles=16, as_json=True)
    summary = json.loads(capsys.readouterr().out)
    exact, filters, bill = summary["exact"], summary["filters"], summary["ledger"]
    assert 16 * 16 * SPECS[spec].channels == exact["compared"] == exact["equal"]
    assert (47, 0, {"1", "2"}) == (filters["confirmed"], filters["refused"], set(filters["cycles"]))
    assert bill["kinds"]["reading"]["frames"] < 20 < bill["proof"]["frames"] == 47
    assert 16 * 16 > summary["carried"] > 16 * 8


@pytest.mark.parametrize(
    ("asked", "threshold_ccel"),
    [({"mode": "change"}, 25), ({"mode": "change", "threshold": 0.125}, 13), ({"mode": "always"}, 0)],
)
def test_the_threshold_is_rounded_to_ccel_and_belongs_to_mode_change(asked, threshold_ccel):
    assert threshold_ccel == plan_of(**asked).threshold_ccel


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"mode": "always", "threshold": 0.5}, "--threshold 0.5: only mode change has one; write --mode change"),
        ({"mode": "change", "threshold": -1}, "--threshold -1: is not in 0..655.35 degrees Celsius"),
        ({"mode": "change", "threshold": 656}, "--threshold 656: is not in 0..655.35 degrees Celsius"),
    ],
)
def test_a_threshold_that_cannot_be_had_is_refused(asked, said):
    with pytest.raises(DemoError, match=said):
        plan_of(**asked)


def plan_of(**asked):
    return make_plan(Options(runtime="cpython", cycles=1, **asked), lambda name: lambda done, all: None)
