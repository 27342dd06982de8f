"""Mode event of a layer with sign: silence changes no state, and a rule that is one off is found."""

from dataclasses import replace

import numpy as np
import pytest
from mesh_in_memory import random_site
from sign_layers import random_sign_layer

from gateway import twin
from gateway.model import Filters, NodeLayer
from gateway.site import site_of_cells
from sim import zones
from sim.zones import UNBOUNDED, Windows, simulate

ROUNDS = 60


def random_room(rng, cycles=12):
    """(filters, readings, present, site): small weights and thresholds, so that every limit is met some time."""
    site = random_site(rng)
    layer = random_sign_layer(rng, int(rng.integers(1, 6)), (-20, 400))
    weights = layer.weights // int(rng.integers(1, 30))
    weights[:, 0, 4] = -weights[:, 0, [5, 7, 8]].sum(axis=1)
    filters = Filters(1, 2200, (replace(layer, weights=weights),))
    steps = rng.integers(-4, 5, (cycles, *site.mask.shape)) * (rng.random((cycles, *site.mask.shape)) < 0.5)
    readings = 2200 + rng.integers(-30, 31, site.mask.shape) + steps.cumsum(axis=0)
    gone = (rng.random(readings.shape) < 0.1) & (rng.random() < 0.5)
    return filters, readings.astype(np.int16), ~gone, site


def test_after_every_cycle_the_states_from_what_was_said_are_those_of_the_nodes_twin(seed):
    rng = np.random.default_rng(seed)
    seen, silent = set(), 0
    for _ in range(ROUNDS):
        filters, readings, present, site = random_room(rng)
        traffic = simulate(filters, readings, present, site)
        for cycle, states in enumerate(traffic.states):
            here, none = present[cycle] & site.mask, np.zeros((1, *site.mask.shape), np.uint8)
            expected = twin.units(filters, readings[cycle], here, site.neighbour_masks, none)[..., 0] == 1
            assert np.array_equal(expected, states)
            seen |= set(states[here].tolist())
        silent += int((len(site.cells) - traffic.broadcasts[1:]).sum())
    assert ({True, False}, True) == (seen, silent > 1_000)


def test_a_limit_that_is_one_too_wide_is_found(seed, monkeypatch):
    right = zones._room
    monkeypatch.setattr(zones, "_room", lambda slack, magnitudes: right(slack, magnitudes) + 1)
    rng = np.random.default_rng(seed)
    rooms = [random_room(rng) for _ in range(ROUNDS)]
    with pytest.raises(ArithmeticError, match=r"cycle \d+: states from the view"):
        [simulate(*room) for room in rooms]


def test_a_box_is_as_wide_as_its_uniform_radius_allows_and_not_wider(seed):
    """At the limits in the worst direction the state stays; one step more of all members and it may change."""
    rng = np.random.default_rng(seed)
    changed = 0
    for _ in range(ROUNDS):
        filters, readings, _, _ = random_room(rng, cycles=1)
        view = readings[0].astype(np.int64) - 2200
        windows = Windows(filters, np.ones(view.shape, np.bool_))
        rise, fall = windows.limits(view)
        for _ in range(20):
            up = rng.random(view.shape) < 0.5
            moved = view + np.where(up, np.minimum(rise, 1_000), -np.minimum(fall, 1_000))
            assert np.array_equal(windows.states(view), windows.states(moved))
            beyond = moved + np.where(up, rise < UNBOUNDED, -(fall < UNBOUNDED).astype(int))
            changed += np.any(windows.states(view) != windows.states(beyond))
    assert changed


def test_drift_away_from_the_threshold_is_free():
    weights = np.array([[[0, 0, 0, 0, -100, 100, 0, 0, 0]]], np.int8)
    filters = Filters(1, 2200, (NodeLayer("conv3x3", 1, 1, 0, np.array([-30_000], np.int32), weights, "sign"),))
    site = site_of_cells("pair", {(0, 0), (0, 1)})
    readings = np.array([[[2200, 2200]], [[2400, 2000]], [[2600, 1800]]], np.int16)
    traffic = simulate(filters, readings, np.ones(readings.shape, np.bool_), site)
    assert [2, 0, 0] == traffic.broadcasts.tolist()
    towards = simulate(filters, readings[..., ::-1], np.ones(readings.shape, np.bool_), site)
    assert ([2, 2, 0], [[False, False], [True, False], [True, False]]) == (
        towards.broadcasts.tolist(),
        towards.states[:, 0].tolist(),
    )
    assert [[True], [True], [False]] == towards.upward[:, 0].tolist()
    assert [(2 * 31 + 26), (2 * 31 + 26), 0] == towards.bytes_on_air(10, 5).tolist()


def test_a_node_that_loses_or_regains_its_reading_says_so_once(seed):
    filters, readings, _, _ = random_room(np.random.default_rng(seed), cycles=1)
    still = np.repeat(readings, 4, axis=0)
    site = site_of_cells("full", set(np.ndindex(still.shape[1:])))
    present = np.ones(still.shape, np.bool_)
    present[1:3, 0, 0] = False
    assert [len(site.cells), 1, 0, 1] == simulate(filters, still, present, site).broadcasts.tolist()
