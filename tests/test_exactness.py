"""The comparison with the twin: it finds a single wrong bit, and says how much it could not compare."""

import numpy as np
import pytest
from mesh_in_memory import MeshInMemory, OneFrameAtATime, Sensor, make_model, make_site

from gateway.exactness import compare
from gateway.model import SPECS
from gateway.twin import NOTHING
from protocol import report

SITE = make_site(3, 4, {(0, 3)})
every_spec = pytest.mark.parametrize("spec", SPECS)


def mesh_of(spec, seed):
    rng = np.random.default_rng(seed)
    values = 2_100 + 100 * rng.integers(0, 9, (4, *SITE.mask.shape))
    sensors = {cell: Sensor(values[:, *cell].tolist()) for cell in SITE.cells}
    return MeshInMemory(SITE, make_model(spec, SITE), sensors, OneFrameAtATime())


@pytest.fixture(params=SPECS)
def cycle(request, seed):
    """(record, filters) of a cycle in which nothing was lost."""
    mesh = mesh_of(request.param, seed)
    return mesh.run_cycle().record, mesh.gateway.model.filters


def changed(record, name, place, value):
    """The record with one number changed."""
    array = getattr(record, name).copy()
    array[place] = value
    return record._replace(**{name: array})


def test_every_reported_feature_is_compared_when_all_is_known(cycle):
    record, filters = cycle
    count = len(SITE.blocks) * filters.layers[-1].channels_out
    assert (count, count, 0) == compare(record, filters, SITE)


def test_every_single_flipped_bit_of_every_feature_is_found(cycle):
    record, filters = cycle
    count = compare(record, filters, SITE).compared
    for place in np.ndindex(record.features.shape):
        for bit in range(8):
            wrong = changed(record, "features", place, record.features[place] ^ (1 << bit))
            assert (count, count - 1, 0) == compare(wrong, filters, SITE), (place, bit)


def flips_a_bit(send, bit):
    """A report's way to the gateway on which one bit of its first feature flips."""

    def arrive(cell, data):
        at = len(data) - len(report.Report(data).features)
        send(cell, data[:at] + bytes((data[at] ^ 1 << bit,)) + data[at + 1 :])

    return arrive


@every_spec
@pytest.mark.parametrize("bit", range(8))
def test_a_bit_flipped_on_the_way_shows_in_the_outcome(spec, bit, seed):
    mesh = mesh_of(spec, seed)
    mesh._arrive_at_gateway = flips_a_bit(mesh._arrive_at_gateway, bit)
    outcome = mesh.run_cycle()
    assert len(SITE.blocks) == outcome.exact.compared - outcome.exact.equal


def test_wrong_readings_are_found_when_they_change_a_feature(cycle):
    record, filters = cycle
    exact = compare(changed(record, "readings_ccel", np.s_[:2, :], 2_200), filters, SITE)
    assert exact.equal < exact.compared


def test_a_block_without_a_report_is_not_compared(cycle):
    record, filters = cycle
    channels = filters.layers[-1].channels_out
    less = changed(changed(record, "features", (0, 0), NOTHING), "pooled", np.s_[:2, :2], False)
    exact = compare(less, filters, SITE)
    assert exact.compared + exact.beyond == (len(SITE.blocks) - 1) * channels


def test_features_that_rest_on_a_reading_that_never_came_are_beyond_comparing(cycle):
    record, filters = cycle
    exact = compare(changed(record, "has_reading", (2, 3), False), filters, SITE)
    assert exact.compared == exact.equal
    assert exact.beyond > 0
    assert compare(record, filters, SITE).compared == exact.compared + exact.beyond


def test_nothing_reported_is_nothing_compared(cycle):
    record, filters = cycle
    nothing = record._replace(
        features=np.full_like(record.features, NOTHING),
        pooled=np.zeros_like(record.pooled),
        has_reading=np.zeros_like(record.has_reading),
    )
    assert (0, 0, 0) == compare(nothing, filters, SITE)
