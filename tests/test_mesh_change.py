"""Mode change on whole meshes of real nodes: what is said is what sim/change.py says, and features are the view's."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from mesh_in_memory import MeshInMemory, OneFrameAtATime, Perfect, make_model
from test_change import random_room
from test_mesh_exact import sensor_at
from test_twin import random_filters

from gateway.model import SPECS
from protocol import beacon, frame
from sim.change import traffic, words

CYCLES = 60
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
    """The same of sim/change.py; in their first cycle nodes ask for what they missed, too."""
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
