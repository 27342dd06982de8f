"""Fitting filters with sign: from noisy differences to what a room's labels ask for."""

from dataclasses import replace

import numpy as np
import pytest

from gateway.model import SPECS
from gateway.rule import abnormal
from gateway.samples import Samples
from gateway.sign_fit import STARTS, fit_filters
from gateway.site import lounge
from gateway.start_weights import start_filters
from sim import zones
from sim.field.lounge import Lounge, simulate

ZONE = SPECS["zone"]
# R0-14.
TRAIN, TEST = 2_400, 561


@pytest.fixture(scope="module")
def room():
    fields = simulate(Lounge(seed=77), TRAIN + TEST)
    return Samples(fields, np.ones(fields.shape, np.bool_), abnormal(fields, lounge().mask))


def test_filters_fitted_to_the_documents_2400_fields_decide_the_561_later_ones_and_are_mostly_silent(room):
    filters = fit_filters(ZONE, lounge(), room.part(slice(TRAIN)), 1)
    later = room.part(slice(TRAIN - 1, None))
    traffic = zones.simulate(filters, later.readings_ccel, later.present, lounge())
    assert 0.965 <= (traffic.states.any(axis=(1, 2)) == later.abnormal)[1:].mean()
    assert 0.1 * 425 > traffic.broadcasts[1:].mean()


def test_equal_seeds_give_equal_filters_and_progress_is_told(room):
    told, few = [], room.part(slice(300))
    site = replace(lounge(), reference_ccel=2150)
    first = fit_filters(ZONE, site, few, 1, lambda done, total: told.append((done, total)), epochs=2)
    second, other = fit_filters(ZONE, site, few, 1, epochs=2), fit_filters(ZONE, site, few, 2, epochs=2)
    assert [(epoch, 2 * STARTS) for epoch in range(1, 2 * STARTS + 1)] == told
    assert first.as_json() == second.as_json() != other.as_json()
    assert (2150, ZONE.layers) == (first.reference_ccel, tuple(layer.shape for layer in first.layers))


def test_it_does_not_start_from_the_rule(room):
    untrained = fit_filters(ZONE, lounge(), room.part(slice(300)), 1, epochs=0)
    assert start_filters(ZONE).as_json()["layers"] != untrained.as_json()["layers"]


def test_no_samples_make_no_filters(room):
    with pytest.raises(ValueError, match="samples: there are 0"):
        fit_filters(ZONE, lounge(), room.part(slice(0)), 1)
