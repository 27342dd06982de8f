"""The rows of mode change: what they count and judge, on rooms small enough for a test."""

import numpy as np
import pytest

from gateway import rule
from gateway.acceptance import Trained
from gateway.model import SPECS, Model
from gateway.samples import Samples
from gateway.site import lounge
from gateway.start_weights import load_start, sign_head, start_filters
from tools import change
from tools.change import RULE, in_mode_always, in_mode_change

SITE = lounge()
LEARNED, JUDGED = 40, 21


@pytest.fixture
def samples(seed, monkeypatch):
    """A room that drifts, with a warm spot every other cycle or so, and a division of its own."""
    monkeypatch.setattr(change, "TRAIN", LEARNED)
    rng = np.random.default_rng(seed)
    shape = (LEARNED + JUDGED, *SITE.mask.shape)
    readings = 2200 + rng.integers(-8, 9, shape).cumsum(axis=0)
    readings[:, 5, 7] += rng.integers(0, 600, len(readings))
    present = np.broadcast_to(SITE.mask, shape)
    return Samples(readings.astype(np.int16), present, rule.abnormal(readings, SITE.mask))


def ruling():
    spec = SPECS["zone"]
    return Model("zone", start_filters(spec), sign_head(spec, SITE))


def test_with_no_room_for_change_mode_change_decides_as_mode_always_and_says_every_reading(samples):
    always, row = in_mode_always(RULE, ruling(), SITE, samples), in_mode_change(RULE, ruling(), SITE, samples, -1)
    assert (1.0, 1.0, 1.0) == (always.on_readings, row.on_readings, row.on_views)
    assert 425 == always.frames["reading"] == row.frames["reading"]
    assert row.quiet < row.bytes_on_air < always.bytes_on_air == always.quiet
    assert 425 * 31 + 308 * 31 + 117 * 41 == always.bytes_on_air
    assert 2 == always.hottest


def test_a_wide_threshold_costs_accuracy_and_saves_bytes(samples):
    narrow, wide = (in_mode_change(RULE, ruling(), SITE, samples, threshold) for threshold in (5, 400))
    assert narrow.on_views > wide.on_views
    assert narrow.bytes_on_air > 2 * wide.bytes_on_air
    assert narrow.hottest > wide.hottest


def test_only_what_is_said_in_the_cycles_that_are_judged_is_counted(samples):
    readings = samples.readings_ccel.copy()
    readings[LEARNED - 1 :] = 2200
    readings[LEARNED - 1 :: 2, 5, 7] = 2300
    one_moves = samples._replace(readings_ccel=readings)
    row, still = (in_mode_change(RULE, ruling(), SITE, one_moves, threshold) for threshold in (50, 500))
    assert (31, 0) == (row.quiet, still.quiet)  # differences of a degree change nobody's state
    assert 1 <= row.hottest
    assert 0.2 > still.hottest


def test_models_learn_from_the_cycles_before_those_that_are_judged_and_from_views(samples, monkeypatch):
    learned = []

    def refused(model, _site, given, *_):
        learned.append(given)
        return Trained(model, None, None, accepted=False)

    monkeypatch.setattr(change, "train", refused)
    row = in_mode_change("lean", load_start("lean", SITE), SITE, samples, 50)
    (given,) = learned
    assert (LEARNED, False, row.on_views) == (given.cycles, row.taken, row.tuned)
    assert np.array_equal(samples.abnormal[:LEARNED], given.abnormal)
    assert 50 == np.abs(given.readings_ccel.astype(int) - samples.readings_ccel[:LEARNED]).max()
