"""A wave through a whole mesh: bad sets leave no trace in what is computed, a good one reaches all in one cycle."""

import random
from dataclasses import replace

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from mesh_in_memory import TIMING, Lossy, OneFrameAtATime, Perfect, WaveMesh, make_model, make_site
from refusals import matrix
from wave_sets import KEY, SECRET_KEY

from firmware import slots
from firmware.wave import QUIET
from gateway import wave
from gateway.model import Model
from protocol import health
from protocol.filter_set import CONFIRMED, RETURNED, STAGED

SITE = make_site(4, 4, [(0, 3)])
SPEC = "seed"
# One bad set for each counter, and one of each kind of attack on a signature.
BAD = (
    "cut to 0 bytes",
    "cut to 72 bytes",
    "longer than any set",
    "signed with a byte too much",
    "signed with another key",
    "signature: all zero",
    "signature: S + 1 L",
    "signature: R with a y of p + 1",
    "an older set under a new number",
    "one byte longer",
    "of another site",
    "version 0",
    "layer 1: a bias of 536870912",
    "signed: layer 0: shift 25",
    "no self-test",
    "self-test 1: layer 2 one off",
)


class Sensor:
    """A warm room with steps in it, for as many cycles as it takes."""

    def __init__(self, cell):
        self._cell = cell

    def read(self, cycle):
        return 2_000 + (31 * self._cell[0] + 17 * self._cell[1] + cycle) * 7_919 % 900


def better(model, version):
    """The same network with other numbers."""
    layers = tuple(replace(layer, bias=layer.bias + np.int32(40 * version)) for layer in model.filters.layers)
    return Model(model.spec_name, replace(model.filters, version=version, layers=layers), model.head)


def signed(model):
    return wave.signed(model.filters, SITE.name, Ed25519PrivateKey.from_private_bytes(SECRET_KEY))


def wave_mesh(folder, transport=None):
    sensors = {cell: Sensor(cell) for cell in SITE.cells}
    return WaveMesh(SITE, make_model(SPEC, SITE), sensors, transport or Perfect(), folder=folder, key=KEY)


def send(mesh, version):
    """A better model goes on its way."""
    model = better(mesh.gateway.model, version)
    mesh.push(model, signed(model))


def run_exact(mesh, cycles=1, late=0):
    """Cycles in which every feature equals the twin's; gives the version that each of them was computed with."""
    versions = []
    for _ in range(cycles):
        outcome = mesh.run_cycle()
        exact, cycle = outcome.exact, outcome.record.cycle
        assert exact.compared == exact.equal, f"cycle {cycle}"
        if late is not None:
            assert (late, outcome.record.features.size) == (outcome.record.late, exact.compared), f"cycle {cycle}"
        versions.append(outcome.filter_version)
    return versions


def run_until(mesh, condition, cycles_max, late=0):
    versions = []
    while not condition():
        assert len(versions) < cycles_max, "waited in vain"
        versions += run_exact(mesh, late=late)
    return versions


def each(mesh, what):
    return {what(node.wave) for node in mesh.nodes.values()}


def all_confirmed(mesh, version):
    return lambda: {(version, CONFIRMED)} == each(mesh, lambda wave: (wave.active.version, wave.phase))


def faults(mesh):
    counters = np.array([list(node.trace.counters) for node in mesh.nodes.values()])[:, health.MALFORMED :]
    assert (counters == counters[0]).all(), "not all nodes counted the same"
    return {name: int(count) for name, count in zip(health.FAULTS, counters[0], strict=True) if count}


def test_every_node_refuses_every_bad_set_and_the_mesh_computes_on_bit_for_bit(tmp_path, seed):
    """Each set comes to every node in the middle of a cycle; behind them all a good one goes through."""
    mesh, dice = wave_mesh(tmp_path), random.Random(seed)
    rows = {row.says: row for row in matrix(seed)}
    run_exact(mesh, 2)
    due = {}
    for says in BAD:
        for cell in SITE.cells:
            mesh.at(dice.randrange(TIMING.period_ms // 2), mesh.hand, cell, rows[says].data)
        run_exact(mesh)
        run_until(mesh, lambda: {QUIET} == each(mesh, lambda wave: wave.state), 9)
        name = health.FAULTS[rows[says].counter - health.MALFORMED]
        due[name] = due.get(name, 0) + 1
        assert due == faults(mesh), says
        assert {(1, None, CONFIRMED, 1)} == each(mesh, lambda w: (w.active.version, w.staged, w.phase, w.highest)), says
        recorded = [slots.read_record(str(path)[: -len(".slots")])[:2] for path in tmp_path.glob("*.slots")]
        assert set(recorded) <= {(0, CONFIRMED)}, says
    assert 5 == len(due)
    send(mesh, 3)
    run_until(mesh, all_confirmed(mesh, 3), 12)


@pytest.mark.parametrize("transport", [Perfect, OneFrameAtATime])
def test_a_good_set_goes_through_the_mesh_and_every_node_switches_in_the_cycle_of_the_head(transport, tmp_path):
    mesh = wave_mesh(tmp_path, transport())
    versions = run_exact(mesh, 2)
    send(mesh, 2)
    versions += run_until(mesh, all_confirmed(mesh, 2), 12) + run_exact(mesh, 2)
    assert sorted(versions) == versions
    assert {1, 2} == set(versions)
    assert {} == faults(mesh)


def test_each_node_is_given_the_set_once_and_only_the_first_ones_by_the_gateway(tmp_path):
    mesh = wave_mesh(tmp_path)
    run_exact(mesh, 2)
    send(mesh, 2)
    run_until(mesh, all_confirmed(mesh, 2), 12)
    assert sorted(SITE.cells) == sorted(taker for _, taker in mesh.handed)
    assert set(SITE.next_to_gateway) == {taker for giver, taker in mesh.handed if giver is None}
    assert len(SITE.next_to_gateway) < len(SITE.cells)


def test_a_wave_comes_through_a_mesh_that_loses_frames(tmp_path, seed):
    mesh = wave_mesh(tmp_path, Lossy(seed, 0.1))
    run_exact(mesh, 2, late=None)
    send(mesh, 2)
    run_until(mesh, all_confirmed(mesh, 2), 40, late=None)
    assert {(2, CONFIRMED)} == each(mesh, lambda wave: (wave.active.version, wave.phase))


def test_a_node_that_is_reset_on_trial_returns_and_abstains_until_a_higher_version(tmp_path):
    mesh = wave_mesh(tmp_path)
    run_exact(mesh, 2)
    send(mesh, 2)
    while mesh.nodes[1, 1].wave.active.version == 1:
        run_exact(mesh)
    mesh.boot((1, 1))
    run_exact(mesh, 4, late=None)
    assert (RETURNED, 1, 2) == (lambda w: (w.phase, w.active.version, w.highest))(mesh.nodes[1, 1].wave)
    send(mesh, 3)
    run_until(mesh, all_confirmed(mesh, 3), 20, late=None)


def test_a_node_that_comes_back_behind_the_others_pulls_what_it_missed(tmp_path):
    mesh = wave_mesh(tmp_path)
    run_exact(mesh, 2)
    mesh.kill((1, 1), will=True)
    run_exact(mesh, 4, late=None)
    send(mesh, 2)
    for _ in range(8):
        mesh.run_cycle()
    assert {2} == each(mesh, lambda wave: wave.active.version)
    mesh.boot((1, 1))
    mesh.gateway.on_message("tm/1/memory/n/n-01-01/state", b"ready")
    run_until(mesh, all_confirmed(mesh, 2), 12, late=None)
    assert ((1, 1)) in [taker for _, taker in mesh.handed]


def test_a_set_that_was_let_go_for_a_bad_one_is_taken_again(tmp_path, seed):
    """Whoever can publish on one node's topic must not keep it from what its neighbours hold."""
    mesh = wave_mesh(tmp_path)
    run_exact(mesh, 2)
    send(mesh, 2)
    while mesh.nodes[2, 2].wave.phase != STAGED:
        mesh._next_event()
    bad = next(row for row in matrix(seed) if row.says == "signature: all zero")
    mesh.hand((2, 2), bad.data)
    while mesh.nodes[2, 2].wave.staged:
        mesh._next_event()
    for _ in range(12):
        mesh.run_cycle()
    assert (2, CONFIRMED) == (mesh.nodes[2, 2].wave.active.version, mesh.nodes[2, 2].wave.phase)


def test_a_node_whose_sensor_is_silent_confirms_the_set_too(tmp_path):
    """Its cycles are complete without a unit; else it would take no later set before its next reset."""
    mesh = wave_mesh(tmp_path)
    mesh.nodes[1, 1]._sensor = type("Silent", (), {"read": lambda *_: None})()
    run_exact(mesh, 2)
    send(mesh, 2)
    run_until(mesh, all_confirmed(mesh, 2), 12)
    assert {(2, CONFIRMED)} == each(mesh, lambda wave: (wave.active.version, wave.phase))


class Overtaking:
    """Everything arrives within 30 ms, in any order: a neighbour's frame may come before the beacon."""

    def __init__(self, seed):
        self._random = random.Random(seed)

    def delays_ms(self, _now_ms):
        return (self._random.randint(1, 30),)


def test_no_cycle_is_missed_by_a_switch_though_frames_overtake_the_beacon(tmp_path, seed):
    mesh = wave_mesh(tmp_path, Overtaking(seed))
    run_exact(mesh, late=None)  # before its first beacon a node takes no frames
    run_exact(mesh)
    send(mesh, 2)
    run_until(mesh, all_confirmed(mesh, 2), 12)
    assert {(2, CONFIRMED)} == each(mesh, lambda wave: (wave.active.version, wave.phase))
