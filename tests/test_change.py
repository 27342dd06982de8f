"""Mode change: what is said is enough for everybody to know all, and nothing of it was known before."""

from collections import Counter

import numpy as np
import pytest
from change_listeners import Listeners
from mesh_in_memory import MeshInMemory, Perfect, make_model, random_site
from test_mesh_exact import CYCLES, SITE, made_up_readings, sensor_at
from test_twin import random_filters

from firmware.quiet import HEARTBEAT, heartbeat_due
from gateway import twin
from gateway.model import CONV1X1, CONV3X3, SPECS, Filters, LayerShape, ModelSpec, NodeLayer
from gateway.site import block_of, site_of_cells
from protocol import frame
from protocol.frame import HAS_READING, HEADER_SIZE, KINDS
from protocol.report import Report
from sim.change import always, owners, traffic, words

ROUNDS = 12
PAIR = site_of_cells("pair", {(0, 0), (0, 1)})
# Three exchanges, and a layer without one before the second.
DEEP = ModelSpec(
    "deep",
    (LayerShape(CONV3X3, 1, 2), LayerShape(CONV1X1, 2, 3), LayerShape(CONV3X3, 3, 2), LayerShape(CONV3X3, 2, 2)),
    (),
    appends_maximum=False,
)
EVERY_SPEC = pytest.mark.parametrize("spec", [*SPECS.values(), DEEP], ids=lambda spec: spec.name)


def passing(exchanges):
    """Layers that pass the own value on: activations are degrees over 22.00, in ccel."""
    taps = np.array([[[0, 0, 0, 0, 64, 0, 0, 0, 0]]], np.int8)
    layer = NodeLayer("conv3x3", 1, 1, 6, np.array([0], np.int32), taps)
    return Filters(1, 2200, (layer,) * exchanges)


def told(rows, threshold=25, heartbeats=False, site=PAIR):
    """Words of rows with one reading a node, None where there is none."""
    rows = [[np.nan if value is None else value for value in row] for row in rows]
    readings = np.array(rows, float).reshape(-1, *site.mask.shape)
    present = ~np.isnan(readings)
    return words(np.where(present, readings, 0).astype(np.int16), present, site, threshold, heartbeats)


def counted(found):
    """By cycle the frames by kind, without those that nobody sent."""
    by_kind = {kind: counts.tolist() for kind, counts in found.frames().items()}
    cycles = range(len(found.features))
    return [{kind: counts[cycle] for kind, counts in by_kind.items() if counts[cycle]} for cycle in cycles]


def random_room(rng, cycles=60):
    """(readings, present, site): a room that moves a little now and then, in which readings come and go."""
    site = random_site(rng)
    shape = (cycles, *site.mask.shape)
    steps = rng.integers(-30, 31, shape) * (rng.random(shape) < 0.3)
    gone = (np.cumsum(rng.random(shape) < 0.03, axis=0) % 2 == 1) & (rng.random() < 0.7)
    readings = 2200 + rng.integers(-400, 401, site.mask.shape) + steps.cumsum(axis=0)
    return readings.astype(np.int16), ~gone, site


# By hand


def test_a_reading_is_said_when_it_is_further_than_the_threshold_from_what_was_said_last():
    found = told([[2210, 2220], [2230, 2220], [2235, 2220], [2236, 2220], [2211, 2220], [2210, 2220]])
    assert [[True, True], [False] * 2, [False] * 2, [True, False], [False] * 2, [True, False]] == [
        said[0] for said in found.said.tolist()
    ]
    assert [2210, 2210, 2210, 2236, 2236, 2210] == found.view_ccel[:, 0, 0].tolist()


def test_in_the_first_cycle_everybody_says_a_word_whatever_it_is():
    assert [[True, True]] == told([[0, None]]).said[:, 0].tolist()


def test_readings_at_both_ends_of_int16_are_far_apart():
    assert [True, True] == told([[-32768, 0], [32767, 0]]).said[:, 0, 0].tolist()


def test_frames_follow_from_what_changed():
    found = traffic(passing(1), told([[2210, 2220], [2235, 2220], [2236, 2220], [2236, 2246], [2236, 2200]]), PAIR)
    assert [
        {"reading": 2, "member": 1, "report": 1},
        {},
        {"reading": 1, "report": 1},  # the owner's own activations are handed to nobody
        {"reading": 1, "member": 1, "report": 1},
        {"reading": 1, "member": 1, "report": 1},
    ] == counted(found)
    assert [20, 20, 36, 46, 36] == found.features.ravel().tolist()
    reading, member, report = 21 + 10, 21 + 10, 21 + 20
    assert [2 * reading + member + report, 0, reading + report] == found.bytes_on_air()[:3].tolist()
    assert [[2, 2], [0, 0], [2, 0]] == found.frames_by_node()[:3, 0].tolist()


def test_what_does_not_raise_the_maximum_is_handed_over_and_not_reported():
    found = traffic(passing(1), told([[2250, 2200], [2250, 2230]]), PAIR)
    assert {"reading": 1, "member": 1} == counted(found)[1]


def test_a_word_that_changes_no_activations_stays_the_only_frame():
    found = traffic(passing(1), told([[2100, 2100], [2000, 2100]]), PAIR)
    assert {"reading": 1} == counted(found)[1]


def test_activations_are_said_before_each_further_exchange_and_only_when_they_changed():
    found = traffic(passing(3), told([[2210, 2220], [2210, 2220], [2210, 2250], [2100, 2250], [2000, 2250]]), PAIR)
    assert [
        {"reading": 2, "activations": 4, "member": 1, "report": 1},
        {},
        {"reading": 1, "activations": 2, "member": 1, "report": 1},
        {"reading": 1, "activations": 2},
        {"reading": 1},
    ] == counted(found)
    assert 21 + 10 == found.bytes_on_air()[4]
    assert 2 * (21 + 10) == found.bytes_on_air()[3] - found.bytes_on_air()[4]


def test_losing_and_regaining_a_reading_is_said_once_and_by_both_sides():
    rows = [[2210, 2220], [2210, None], [2210, None], [2210, 2220], [None, 2220], [2210, 2220], [None, None]]
    found = traffic(passing(2), told(rows), PAIR)
    assert [
        {"no_reading": 1, "report": 1},
        {},
        {"reading": 1, "activations": 1, "member": 1, "report": 1},
        {"no_reading": 1, "member": 1, "report": 1},
        {"reading": 1, "activations": 1, "member": 1, "report": 1},
        {"no_reading": 2, "report": 1},
    ] == counted(found)[1:]
    assert [20, 10, 10, 20, 20, 20, -1] == found.features.ravel().tolist()
    sizes = {kind: sizes.max(axis=(1, 2)).tolist() for kind, sizes in found.sent}
    assert [20, 22, 0, 20, 22, 20, 19] == sizes["report"]  # two absence bytes of one member
    assert [10, 0, 0, 10, 12, 10, 0] == sizes["member"]


def test_other_filters_begin_with_everything_but_words():
    heard = told([[2210, 2220]] * 4)
    assert [{"activations": 2, "member": 1, "report": 1}, {}] == counted(
        traffic(passing(2), heard.part(slice(2, None)), PAIR)
    )


def test_in_a_still_room_each_node_says_everything_once_in_a_heartbeat_at_its_own_time():
    site = site_of_cells("room", set(np.ndindex(4, 5)) - {(1, 1)})
    heard = told([[2200] * 20] * (2 * HEARTBEAT), heartbeats=True, site=site)
    found = traffic(passing(2), heard, site)
    for cell in site.cells:
        expected = [cycle == 0 or heartbeat_due(*cell, cycle) for cycle in range(2 * HEARTBEAT)]
        assert expected == heard.said[:, *cell].tolist()
        assert {0, 3} == set(found.frames_by_node()[:, *cell].tolist())
    assert not heard.said[:, 1, 1].any()


def test_a_heartbeat_says_the_reading_of_its_cycle():
    readings = [[2200 + cycle // 2, 2200] for cycle in range(HEARTBEAT)]
    due = next(cycle for cycle in range(1, HEARTBEAT + 1) if heartbeat_due(0, 0, cycle))
    view = told([*readings, [2224, 2200]], heartbeats=True).view_ccel[:, 0, 0].tolist()
    assert [2200, 2200 + due // 2] == view[due - 1 : due + 1]


# Properties


@EVERY_SPEC
def test_who_only_knows_what_was_said_knows_every_feature_and_nothing_is_said_twice(seed, spec):
    rng = np.random.default_rng(seed)
    for round_ in range(ROUNDS):
        readings, present, site = random_room(rng)
        filters = random_filters(spec, rng)
        heard = words(readings, present, site, int(rng.integers(-1, 40)), heartbeats=bool(round_ % 2))
        found = traffic(filters, heard, site)
        assert np.array_equal(twin.features(filters, heard.view_ccel, present, site), found.features)
        listeners = Listeners(filters, site)
        for cycle in range(len(readings)):
            listeners.hear(readings[cycle], cycle, found, heard.due[cycle])
            assert np.array_equal(found.features[cycle], listeners.features), f"cycle {cycle}"


@pytest.mark.parametrize("threshold", [-1, 0])
@EVERY_SPEC
def test_without_room_for_change_the_view_is_what_nodes_read(seed, spec, threshold):
    rng = np.random.default_rng(seed)
    for _ in range(ROUNDS):
        readings, present, site = random_room(rng)
        heard = words(readings, present, site, threshold, heartbeats=False)
        here = present & site.mask
        assert np.array_equal(readings[here], heard.view_ccel[here])
        filters = random_filters(spec, rng)
        full = traffic(filters, always(readings, present, site), site)
        assert np.array_equal(full.features, traffic(filters, heard, site).features)


def test_the_view_is_never_further_off_than_the_threshold(seed):
    rng = np.random.default_rng(seed)
    furthest = 0
    for _ in range(ROUNDS):
        readings, present, site = random_room(rng)
        heard = words(readings, present, site, 25, heartbeats=False)
        here = present & site.mask
        furthest = max(furthest, np.abs(readings.astype(int) - heard.view_ccel)[here].max(initial=0))
    assert 25 == furthest


@EVERY_SPEC
def test_nothing_is_said_where_nothing_moves(seed, spec):
    rng = np.random.default_rng(seed)
    for _ in range(ROUNDS):
        readings, present, site = random_room(rng, cycles=1)
        still = words(readings.repeat(5, axis=0), present.repeat(5, axis=0), site, 0, heartbeats=False)
        assert not traffic(random_filters(spec, rng), still, site).frames_by_node()[1:].any()


@pytest.mark.parametrize("spec", SPECS)
def test_mode_always_is_counted_as_real_nodes_send_it(seed, spec):
    readings, present = made_up_readings(np.random.default_rng(seed))
    model = make_model(spec, SITE)
    mesh = MeshInMemory(SITE, model, {cell: sensor_at(readings, present, cell) for cell in SITE.cells}, Perfect())
    found = traffic(model.filters, always(readings.astype(np.int16), present, SITE), SITE)
    for cycle in range(CYCLES):
        mesh.sent.clear()
        mesh.run_cycle()
        sent = Counter((cell, KINDS[data[0] & 15], without_readings(data)) for cell, _, data in mesh.sent)
        expected = Counter()
        for kind, sizes in found.sent:
            expected.update((cell, kind, int(sizes[cycle][cell])) for cell in SITE.cells if sizes[cycle][cell])
        assert expected == sent, f"cycle {cycle}"


def without_readings(data):
    """A frame's length without the readings that a gateway may ask for beside the rest."""
    kind = frame.kind_of(data)
    if kind == frame.MEMBER and data[HEADER_SIZE] & HAS_READING:
        return len(data) - 2
    if kind == frame.REPORT:
        return len(data) - 2 * sum(reading is not None for reading in Report(data).readings)
    return len(data)


def test_a_block_has_one_owner_the_lowest_corner_that_exists(seed):
    rng = np.random.default_rng(seed)
    for _ in range(ROUNDS):
        site = random_site(rng)
        expected = {min(cell for cell in site.cells if block_of(cell) == block) for block in site.blocks}
        assert expected == {tuple(cell) for cell in np.argwhere(owners(site)).tolist()}


@EVERY_SPEC
def test_every_frame_is_short_enough_for_one_frame_on_the_air(seed, spec):
    rng = np.random.default_rng(seed)
    readings, present, site = random_room(rng)
    found = traffic(random_filters(spec, rng), always(readings, present, site), site)
    assert all(sizes.max() <= frame.NODE_FRAME_MAX for _, sizes in found.sent)
