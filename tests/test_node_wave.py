"""The node machine and its wave: when it works on a set, in which cycle it switches, what it says of it and hears."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from mesh_in_memory import RUN
from node_bench import (
    AROUND,
    CENTRE,
    PERIOD_MS,
    SQUARE,
    Bench,
    Steady,
    activations_of,
    beacon_of,
    head_of,
    reading_of,
    readings_of,
)
from wave_sets import KEY, SECRET_KEY

import firmware.layerwise
from firmware.layerwise import Layerwise
from firmware.neighbours import Neighbours
from firmware.node import Node
from firmware.stages import COLLECT, DONE, IDLE, TO_GATEWAY, TO_HALO
from firmware.start import prepare_filters
from firmware.wave import PULLING, QUIET, RECEIVED, STRAY_CYCLES, TRIAL_CYCLES
from gateway import wave
from gateway.model import SPECS
from gateway.start_weights import start_filters
from protocol import beacon, frame, grid, health
from protocol.filter_set import CONFIRMED, RETURNED, STAGED, TRIAL

FILTERS = start_filters(SPECS["seed"])
SLOT = grid.slot_of(*CENTRE, 0, 0)


def signed(version):
    filters = type(FILTERS)(version, FILTERS.reference_ccel, FILTERS.layers)
    return wave.signed(filters, SQUARE.name, Ed25519PrivateKey.from_private_bytes(SECRET_KEY))


@pytest.fixture
def bench(tmp_path):
    (tmp_path / "f").write_bytes(FILTERS.pack(SQUARE.name))
    made = Bench()
    made.boot = lambda: boot(made, str(tmp_path / "f"))
    made.boot()
    return made


def boot(bench, path):
    """Put a node with a key and files in the place of the bench's."""
    prepared = prepare_filters(path, SQUARE.name, KEY)
    exists = int(SQUARE.neighbour_masks[CENTRE])
    bench.node = Node(*CENTRE, exists, prepared, Steady(), boot=1)


def feed(bench, data):
    """A set comes in as a whole."""
    bench.node.wave.feed(0, len(data), data, bench.now_ms)


def work(bench):
    """Poll as long as the node has something to do at once; gives how often."""
    polls = 1
    while bench.poll() is not None and bench.wake_ms == 0:
        polls += 1
    return polls


def complete(bench, cycle, version):
    """A cycle with all neighbours."""
    bench.hear(beacon_of(cycle, version=version))
    bench.hear(*[reading_of(cell, cycle, version=version) for cell in AROUND])
    return bench.hear(*[activations_of(cell, cycle, version=version) for cell in AROUND])


def staged(bench, version=2):
    """Bring a node that has completed cycle 5 to hold a set."""
    complete(bench, 5, 1)
    feed(bench, signed(version))
    work(bench)
    assert STAGED == bench.node.wave.phase
    bench.said.clear()
    return bench


def filters_frame(bench, cycle, phase, version=1, highest=2, refused=0):
    return frame.filters(frame.header(frame.FILTERS, *CENTRE, RUN, cycle, version), highest, phase, refused)


# Work


def test_a_set_is_worked_on_between_cycles_and_not_within_one(bench):
    bench.hear(beacon_of(5))
    feed(bench, signed(2))
    for _ in range(10):
        bench.poll()
        assert (COLLECT, RECEIVED) == (bench.node.state, bench.node.wave.state)
        assert bench.wake_ms > 0
    bench.hear(*readings_of(AROUND, 5))
    bench.hear(*[activations_of(cell, 5) for cell in AROUND])
    assert (DONE, 0) == (bench.node.state, bench.wake_ms)
    assert 500 < work(bench)
    assert STAGED == bench.node.wave.phase


def test_a_cycle_that_opens_in_mid_proof_is_served_first(bench):
    complete(bench, 5, 1)
    feed(bench, signed(2))
    for _ in range(100):
        bench.poll()
    state = bench.node.wave.state
    said = bench.hear(beacon_of(6))
    assert [(TO_HALO, reading_of(CENTRE, 6))] == said
    assert (COLLECT, state, True) == (bench.node.state, bench.node.wave.state, bench.wake_ms > 0)


def test_a_node_works_on_a_set_before_its_first_beacon_but_says_nothing(bench):
    feed(bench, signed(2))
    work(bench)
    assert (IDLE, STAGED, []) == (bench.node.state, bench.node.wave.phase, bench.said)


# The switch


def test_the_beacon_that_names_the_staged_set_switches_before_anything_is_said(bench):
    staged(bench)
    said = bench.hear(beacon_of(6, version=2))
    assert [reading_of(CENTRE, 6, version=2)] == [data for _, data in said if data[0] & 15 == frame.READING]
    assert (TRIAL, 2) == (bench.node.wave.phase, bench.node.wave.active.version)


@pytest.mark.parametrize(
    "where", [(Layerwise, "_change_filters"), (Neighbours, "use"), (firmware.layerwise, "Block")], ids=lambda it: it[1]
)
@pytest.mark.parametrize(
    ("opening", "again", "cycle"),
    [
        (beacon_of(6, version=2), beacon_of(7, version=2), 7),
        (reading_of(AROUND[0], 6, version=2), beacon_of(6, version=2), 6),
    ],
    ids=["the beacon's", "a neighbour's"],
)
def test_a_cycle_that_there_is_no_room_to_begin_is_left_out_until_a_beacon(
    opening, again, cycle, where, bench, monkeypatch
):
    def fill(*_):
        raise MemoryError

    staged(bench)
    with monkeypatch.context() as patch:
        patch.setattr(*where, fill)
        with pytest.raises(MemoryError):
            bench.hear(opening)
    heard = [reading_of(cell, 6, version=2) for cell in AROUND]
    assert [] == bench.hear(*heard) + bench.hear(*[activations_of(cell, 6, version=2) for cell in AROUND])
    assert [] == bench.wait(2 * PERIOD_MS)
    said = bench.hear(again)
    assert [reading_of(CENTRE, cycle, version=2)] == [data for _, data in said if data[0] & 15 == frame.READING]
    assert (TRIAL, 2) == (bench.node.wave.phase, bench.node.wave.active.version)
    said = bench.hear(*[reading_of(cell, cycle, version=2) for cell in AROUND])
    assert [("activations", 2)] == [(frame.KINDS[data[0] & 15], frame.version_of(data)) for _, data in said]


def test_a_neighbour_that_opens_the_cycle_with_the_staged_set_switches_too(bench):
    staged(bench)
    bench.hear(reading_of((0, 0), 6, version=2))
    assert (6, 2, TRIAL) == (bench.node.cycle, bench.node.wave.active.version, bench.node.wave.phase)


@pytest.mark.parametrize("version", [1, 3, 0xFFFF])
def test_a_cycle_of_another_version_does_not_switch(version, bench):
    staged(bench)
    bench.hear(beacon_of(6, version=version))
    assert (STAGED, 1) == (bench.node.wave.phase, bench.node.wave.active.version)


def test_within_a_cycle_nothing_switches(bench):
    """The beacon of a cycle that is open already, and frames of a neighbour that is ahead in version only."""
    staged(bench)
    bench.hear(reading_of((0, 0), 6, version=1))
    bench.hear(beacon_of(6, version=2), reading_of((0, 1), 6, version=2))
    assert (6, STAGED, 1) == (bench.node.cycle, bench.node.wave.phase, bench.node.wave.active.version)


def test_a_cycle_by_the_own_clock_is_computed_with_what_is_active(bench):
    staged(bench)
    bench.wait(3 * PERIOD_MS)
    assert (8, STAGED, 1) == (bench.node.cycle, bench.node.wave.phase, bench.node.wave.active.version)


def test_three_complete_cycles_confirm_and_one_that_was_cut_short_does_not_count(bench):
    staged(bench)
    complete(bench, 6, 2)
    bench.hear(beacon_of(7, version=2))
    assert 1 == TRIAL_CYCLES - 2
    complete(bench, 8, 2)
    assert (TRIAL, 1) == (bench.node.wave.phase, bench.count(health.ABANDONED))
    complete(bench, 9, 2)
    assert CONFIRMED == bench.node.wave.phase


def test_a_node_that_returned_abstains_from_the_cycles_of_the_set_that_failed(bench):
    staged(bench)
    bench.hear(beacon_of(6, version=2))
    bench.boot()
    bench.said.clear()
    bench.hear(beacon_of(7, version=2))
    assert (DONE, RETURNED) == (bench.node.state, bench.node.wave.phase)
    assert [reading_of(CENTRE, 7), filters_frame(bench, 7, RETURNED)] == [data for _, data in bench.said]


def switched_by_a_neighbour(bench):
    """A node on trial while the gateway's cycles are of the version before."""
    staged(bench)
    bench.hear(reading_of((0, 0), 6, version=2))
    assert (TRIAL, 2) == (bench.node.wave.phase, bench.node.wave.active.version)
    return bench


def test_a_trial_that_the_gateway_knows_nothing_of_ends_and_the_node_takes_part_again(bench):
    """Otherwise it would abstain from every cycle, and take no set either."""
    switched_by_a_neighbour(bench)
    for cycle in range(6, 6 + STRAY_CYCLES - 1):
        complete(bench, cycle, 1)
        assert TRIAL == bench.node.wave.phase
    bench.said.clear()
    complete(bench, 6 + STRAY_CYCLES - 1, 1)
    assert (RETURNED, 1) == (bench.node.wave.phase, bench.node.wave.active.version)
    assert 1 == bench.count(health.SET_RETURNED)
    kinds = [data[0] & 15 for _, data in bench.said]
    assert [frame.READING, frame.FILTERS, frame.ACTIVATIONS, frame.MEMBER] == kinds
    feed(bench, signed(3))
    work(bench)
    assert (STAGED, 3) == (bench.node.wave.phase, bench.node.wave.highest)


def test_a_gateway_that_starts_again_counts_its_cycles_anew(bench):
    switched_by_a_neighbour(bench)
    for run in (RUN, RUN + 1):
        for cycle in range(6, 6 + STRAY_CYCLES - 1):
            bench.hear(beacon_of(cycle, run=run, version=1))
    assert TRIAL == bench.node.wave.phase
    complete(bench, 100, 2)
    assert TRIAL == bench.node.wave.phase


def test_beacons_that_are_late_or_open_nothing_end_no_trial(bench):
    switched_by_a_neighbour(bench)
    bench.hear(beacon_of(6, version=1))
    for _ in range(2 * STRAY_CYCLES):
        bench.hear(beacon_of(6, version=1), beacon_of(7, version=1, flags=beacon.OPENS_NOTHING))
    assert TRIAL == bench.node.wave.phase


def test_a_node_without_a_reading_does_not_confirm_a_set_in_cycles_of_another(bench):
    switched_by_a_neighbour(bench)
    bench.node._sensor = Steady(None)
    for cycle in range(6, 6 + STRAY_CYCLES - 1):
        bench.hear(beacon_of(cycle, version=1))
        assert TRIAL == bench.node.wave.phase


def test_a_node_without_a_reading_confirms_a_set_in_cycles_of_that_set(bench):
    """It can take no next one otherwise."""
    staged(bench)
    bench.node._sensor = Steady(None)
    for cycle in range(6, 6 + TRIAL_CYCLES):
        assert CONFIRMED != bench.node.wave.phase
        bench.hear(beacon_of(cycle, version=2))
    assert CONFIRMED == bench.node.wave.phase


# What is said


def test_a_node_that_holds_a_set_tells_its_neighbours_and_the_gateway_at_once(bench):
    complete(bench, 5, 1)
    bench.said.clear()
    feed(bench, signed(2))
    work(bench)
    told = filters_frame(bench, 5, STAGED)
    assert [(TO_HALO, told), (TO_GATEWAY, told)] == bench.said


def test_a_node_that_waits_to_switch_tells_its_neighbours_and_nobody_else_in_every_cycle(bench):
    staged(bench)
    for cycle in (6, 7, 8):
        bench.said.clear()
        complete(bench, cycle, 1)
        told = [entry for entry in bench.said if entry[1][0] & 15 == frame.FILTERS]
        assert [(TO_HALO, filters_frame(bench, cycle, STAGED))] == told


def test_trial_and_confirmation_are_told_to_the_gateway_only(bench):
    staged(bench)
    for cycle in (6, 7, 8):
        complete(bench, cycle, 2)
    told = [(where, frame.phase_of(data)) for where, data in bench.said if data[0] & 15 == frame.FILTERS]
    assert [(TO_GATEWAY, TRIAL), (TO_GATEWAY, CONFIRMED)] == told


def test_a_refusal_is_told_to_the_gateway_with_their_number(bench):
    complete(bench, 5, 1)
    bench.said.clear()
    feed(bench, signed(2)[:-1])
    work(bench)
    assert [(TO_GATEWAY, filters_frame(bench, 5, CONFIRMED, highest=1, refused=1))] == bench.said


def test_a_beacon_may_ask_what_a_node_holds(bench):
    complete(bench, 5, 1)
    bench.said.clear()
    bench.hear(beacon_of(6, flags=beacon.WANT_FILTERS))
    assert (TO_GATEWAY, filters_frame(bench, 6, CONFIRMED, highest=1)) in bench.said
    bench.said.clear()
    bench.hear(beacon_of(7))
    assert [frame.READING] == [data[0] & 15 for _, data in bench.said]


# What is heard


def test_a_neighbour_that_holds_a_newer_set_is_pulled_from(bench):
    complete(bench, 5, 1)
    bench.hear(frame.filters(head_of(frame.FILTERS, (0, 0), 5), 2, STAGED, 0))
    assert (PULLING, SLOT) == (bench.node.wave.state, bench.node.wave.slot)


def test_a_neighbour_that_computes_with_a_newer_set_is_pulled_from(bench):
    complete(bench, 5, 1)
    bench.hear(reading_of((0, 0), 6, version=2))
    assert (PULLING, SLOT) == (bench.node.wave.state, bench.node.wave.slot)


def test_a_neighbour_that_returned_has_nothing_to_give(bench):
    complete(bench, 5, 1)
    bench.hear(frame.filters(head_of(frame.FILTERS, (0, 0), 5), 2, RETURNED, 0))
    assert QUIET == bench.node.wave.state


def test_a_stranger_is_not_pulled_from(bench):
    complete(bench, 5, 1)
    bench.hear(frame.filters(head_of(frame.FILTERS, (1, 3), 5), 2, STAGED, 0))
    assert (QUIET, {"stranger": 1}) == (bench.node.wave.state, bench.faults())


def test_what_was_asked_for_and_never_came_is_given_up_over_the_wrap_of_the_ticks(bench):
    complete(bench, 5, 1)
    bench.hear(frame.filters(head_of(frame.FILTERS, (0, 0), 5), 2, STAGED, 0))
    bench.wait(15_000)
    assert ({"wave_broken": 1}, -1) == (bench.faults(), bench.node.wave.slot)


def test_a_node_that_switched_on_a_neighbours_frame_takes_part_in_that_cycle(bench):
    """Its beacon comes a little later, or never: a broker hands out beacons one by one."""
    staged(bench)
    bench.hear(*[reading_of(cell, 6, version=2) for cell in AROUND])
    bench.hear(*[activations_of(cell, 6, version=2) for cell in AROUND])
    bench.hear(beacon_of(6, version=2))
    kinds = [data[0] & 15 for _, data in bench.said if data[0] & 15 != frame.FILTERS]
    assert [frame.READING, frame.ACTIVATIONS, frame.MEMBER] == kinds
