"""The node machine over its cycles: how it enters one, whom it waits for, what it says, who owns the block."""


import numpy as np
import pytest
from mesh_in_memory import RUN
from node_bench import (
    AROUND,
    CENTRE,
    EXCHANGE_MS,
    GATHER_MS,
    MATES,
    PERIOD_MS,
    READING_CCEL,
    SQUARE,
    Bench,
    Steady,
    activations_of,
    beacon_of,
    member_of,
    no_reading_of,
    quiet_mesh,
    reading_of,
    readings_of,
    whole_cycle,
)

from firmware.stages import COLLECT, DONE, GATHER, IDLE, TO_BLOCK, TO_GATEWAY, TO_HALO
from gateway import twin
from gateway.model import SPECS
from gateway.start_weights import start_filters
from protocol import beacon, frame, grid, health
from protocol.compat import TICKS_PERIOD
from protocol.report import Report

# How a cycle is entered


def test_a_node_waits_for_its_first_beacon_and_says_nothing_until_then():
    bench = Bench()
    assert IDLE == bench.node.state
    assert [] == bench.wait(10 * PERIOD_MS)
    assert [] == bench.hear(reading_of((0, 0), 0))
    assert (IDLE, {"stale": 1}) == (bench.node.state, bench.faults())


def test_a_node_enters_the_cycle_of_a_beacon_and_says_its_reading():
    bench = Bench()
    assert [(TO_HALO, reading_of(CENTRE, 70_000))] == bench.hear(beacon_of(70_000))
    assert (COLLECT, RUN, 70_000) == (bench.node.state, bench.node.run, bench.node.cycle)


def test_a_node_enters_the_next_cycle_on_a_neighbours_first_frame():
    bench = Bench()
    whole_cycle(bench, 5)
    assert [(TO_HALO, reading_of(CENTRE, 6))] == bench.hear(reading_of((0, 0), 6))
    assert (COLLECT, 6) == (bench.node.state, bench.node.cycle)
    assert [] == bench.hear(beacon_of(6)), "its beacon comes behind and starts nothing anew"
    assert {} == bench.faults()


@pytest.mark.parametrize("kind", [reading_of, no_reading_of, activations_of, member_of])
def test_any_neighbours_frame_opens_the_cycle(kind):
    bench = Bench()
    whole_cycle(bench, 5)
    bench.hear(kind((0, 0), 6))
    assert 6 == bench.node.cycle


def test_the_low_half_of_a_cycle_number_is_enough_over_its_own_wrap():
    bench = Bench()
    whole_cycle(bench, 65_535)
    bench.hear(reading_of((0, 0), 65_536))
    assert 65_536 == bench.node.cycle


@pytest.mark.parametrize("wrap_in_ms", [1, 1_000, 15_000, 29_999, 35_000])
def test_after_two_missed_beacons_a_node_goes_on_by_its_own_clock(wrap_in_ms):
    """The beacons of 6 and 7 are missed; 8 is due three periods after 5, and then one cycle a period."""
    sensor = Steady()
    bench = Bench(sensor=sensor)
    bench.now_ms = TICKS_PERIOD - wrap_in_ms
    whole_cycle(bench, 5)
    assert 3 * PERIOD_MS == bench.wake_ms
    assert [] == bench.wait(3 * PERIOD_MS - 1)
    assert [(TO_HALO, reading_of(CENTRE, 8))] == bench.wait(1)[:1]
    bench.hear(*readings_of(AROUND, 8), *[activations_of(cell, 8) for cell in AROUND])
    assert [5, 8] == sensor.asked
    assert DONE == bench.node.state
    bench.wait(PERIOD_MS - 1)
    assert 8 == bench.node.cycle
    bench.wait(1)
    assert (9, 2) == (bench.node.cycle, bench.count(health.OWN_CLOCK))


def test_a_beacon_ends_the_time_by_the_own_clock():
    bench = Bench()
    whole_cycle(bench, 5)
    bench.wait(3 * PERIOD_MS)
    bench.hear(*readings_of(AROUND, 8), *[activations_of(cell, 8) for cell in AROUND])
    whole_cycle(bench, 9)
    assert 3 * PERIOD_MS == bench.wake_ms


def test_the_beacon_of_a_cycle_that_the_own_clock_opened_ends_the_time_by_the_own_clock():
    """The time until the next beacon is counted from it, not from when the node entered."""
    bench = Bench()
    whole_cycle(bench, 5)
    bench.wait(3 * PERIOD_MS)
    bench.hear(*readings_of(AROUND, 8), *[activations_of(cell, 8) for cell in AROUND])
    bench.wait(1_000)
    assert (8, PERIOD_MS - 1_000) == (bench.node.cycle, bench.wake_ms)
    bench.hear(beacon_of(8))
    assert (8, 3 * PERIOD_MS) == (bench.node.cycle, bench.wake_ms)


def test_a_whole_mesh_lives_on_alone_with_the_numbers_that_the_gateway_would_give():
    """Seven periods without a beacon: then the gateway opens the cycle behind the one that is due, and it is exact."""
    mesh = quiet_mesh()
    for _ in range(3):
        mesh.run_cycle()
    mesh.run_alone(7 * PERIOD_MS)
    assert {9} == {node.cycle for node in mesh.nodes.values()}
    outcome = mesh.run_cycle()
    assert (11, 0) == (outcome.record.cycle, outcome.record.late)
    assert outcome.exact.compared == outcome.exact.equal > 0


def test_another_run_starts_anew_whatever_its_cycle_number():
    bench = Bench()
    whole_cycle(bench, 500)
    bench.hear(beacon_of(0, run=RUN + 1))
    assert (RUN + 1, 0) == (bench.node.run, bench.node.cycle)


def test_a_beacon_brings_back_a_node_that_was_drawn_ahead():
    bench = Bench()
    whole_cycle(bench, 5)
    bench.hear(reading_of((0, 0), 8))
    bench.hear(beacon_of(6))
    assert 6 == bench.node.cycle


def test_a_cycle_cut_short_by_the_next_is_counted():
    bench = Bench()
    bench.hear(beacon_of(5))
    bench.hear(beacon_of(6))
    assert (6, {"abandoned": 1}) == (bench.node.cycle, bench.faults())


# What is said, and how often


@pytest.mark.parametrize(
    ("spec", "kinds"), [("seed", ["reading", "activations", "member"]), ("lean", ["reading", "member"])]
)
def test_a_member_says_everything_once_a_cycle(spec, kinds):
    bench = Bench(spec=spec)
    for _ in range(2):
        bench.hear(beacon_of(5))
    for _ in range(2):
        bench.hear(*readings_of(AROUND, 5))
    if spec == "seed":
        for _ in range(2):
            bench.hear(*[activations_of(cell, 5) for cell in AROUND])
    bench.wait(GATHER_MS)
    assert kinds == bench.kinds()
    assert DONE == bench.node.state
    assert [TO_HALO] * (len(kinds) - 1) + [TO_BLOCK] == [destination for destination, _ in bench.said]


def test_an_owner_pools_its_members_and_reports_once():
    bench = Bench(cell=(0, 0))
    whole = [beacon_of(5, flags=beacon.WANT_READINGS), *readings_of([(0, 1), (1, 0), (1, 1)], 5)]
    bench.hear(*whole)
    bench.hear(*[activations_of(cell, 5) for cell in [(0, 1), (1, 0), (1, 1)]])
    assert GATHER == bench.node.state
    values = {(0, 1): (9, 0, 0, 0, 1), (1, 0): (0, 255, 0, 0, 2), (1, 1): (0, 0, 0, 7, 3)}
    said = bench.hear(*[member_of(cell, 5, values[cell]) for cell in values])
    assert [TO_GATEWAY] == [destination for destination, _ in said]
    told = Report(said[0][1])
    assert (1, 0b1111, 0, 2) == (told.seq, told.pooled, told.no_reading, told.exchanges)
    assert [READING_CCEL] * 4 == told.readings
    assert (9, 255, 0, 7, 3) == tuple(told.features)
    assert [] == bench.hear(*[member_of(cell, 5, (255,) * 5) for cell in values])
    assert ["reading", "activations", "report"] == bench.kinds()


def test_a_node_without_a_reading_says_so_once_and_nothing_more():
    bench = Bench(sensor=Steady(None))
    whole_cycle(bench, 5)
    assert [(TO_HALO, no_reading_of(CENTRE, 5))] == bench.said
    assert DONE == bench.node.state


def test_nobody_waits_for_a_node_without_a_reading():
    bench = Bench()
    bench.hear(beacon_of(5))
    bench.hear(*readings_of(AROUND[1:], 5))
    assert ["reading"] == bench.kinds()
    bench.hear(no_reading_of((0, 0), 5))
    assert ["reading", "activations"] == bench.kinds()
    bench.hear(*[activations_of(cell, 5) for cell in AROUND[1:]])
    assert ["reading", "activations", "member"] == bench.kinds()
    assert {} == bench.faults()


def test_an_owner_without_a_reading_still_reports_its_block():
    bench = Bench(cell=(0, 0), sensor=Steady(None))
    bench.hear(beacon_of(5))
    bench.hear(member_of((0, 1), 5, (3,) * 5), no_reading_of((1, 0), 5))
    told = Report(bench.hear(member_of((1, 1), 5, (8,) * 5))[-1][1])
    assert (0b1010, 0b0101, (8,) * 5) == (told.pooled, told.no_reading, tuple(told.features))


def test_a_block_without_any_reading_is_reported_without_features():
    bench = Bench(cell=(0, 0), sensor=Steady(None))
    bench.hear(beacon_of(5))
    told = Report(bench.hear(*[no_reading_of(cell, 5) for cell in [(0, 1), (1, 0), (1, 1)]])[-1][1])
    assert (0, 0b1111, b"") == (told.pooled, told.no_reading, told.features)


# Waiting in vain


def test_a_neighbour_that_stays_away_is_replaced_at_the_deadline_and_its_absence_bit_is_set():
    """The unit is that of a node whose lost neighbour has the node's own reading, once a layer."""
    bench = Bench()
    bench.hear(beacon_of(5))
    bench.hear(*[reading_of(cell, 5, READING_CCEL + 400) for cell in AROUND if cell != (0, 1)])
    assert [] == bench.wait(EXCHANGE_MS - 1)
    (said,) = bench.wait(1)
    assert {"deadline": 1} == bench.faults()
    assert activations_of(CENTRE, 5, unit_of(lost=(0, 1))) == said[1]
    bench.hear(*[activations_of(cell, 5) for cell in AROUND if cell != (0, 1)])
    (handed,) = bench.wait(EXCHANGE_MS)
    slot = grid.slot_of(*CENTRE, 0, 1)
    assert bytes((1 << slot, 1 << slot)) == handed[1][9:11]
    assert {"deadline": 2} == bench.faults()


def unit_of(lost):
    """The twin's first layer at the centre, all neighbours 4 degrees warmer, one of them lost."""
    readings = np.full((3, 3), READING_CCEL + 400)
    readings[CENTRE] = READING_CCEL
    filters = start_filters(SPECS["seed"])
    absence = np.zeros((1, 3, 3), np.uint8)
    absence[0][CENTRE] = 1 << grid.slot_of(*CENTRE, *lost)
    first = type("First", (), {"reference_ccel": filters.reference_ccel, "layers": filters.layers[:1]})
    units = twin.units(first, readings, np.ones((3, 3), bool), SQUARE.neighbour_masks, absence)
    return units[CENTRE].tolist()


def test_the_deadline_of_the_second_exchange_is_counted_from_the_beginning_of_the_cycle():
    bench = Bench()
    bench.hear(beacon_of(5))
    bench.wait(EXCHANGE_MS)
    assert EXCHANGE_MS == bench.wake_ms
    bench.wait(EXCHANGE_MS)
    assert ["reading", "activations", "member"] == bench.kinds()


def test_an_owner_reports_what_it_has_when_the_time_for_gathering_is_over():
    bench = Bench(cell=(0, 0))
    bench.hear(beacon_of(5))
    bench.hear(*readings_of([(0, 1), (1, 0), (1, 1)], 5))
    bench.hear(*[activations_of(cell, 5) for cell in [(0, 1), (1, 0), (1, 1)]])
    bench.hear(member_of((0, 1), 5, (4,) * 5))
    assert [] == bench.wait(2 * EXCHANGE_MS + GATHER_MS - 1)
    told = Report(bench.wait(1)[0][1])
    assert (0b0011, 0) == (told.pooled, told.no_reading)


def test_a_neighbour_unheard_for_two_cycles_is_not_waited_for():
    bench = Bench()
    whole_cycle(bench, 5)
    for cycle in (6, 7):
        whole_cycle(bench, cycle, AROUND[:-1])
        assert COLLECT == bench.node.state, f"cycle {cycle}: still waited for"
        bench.wait(EXCHANGE_MS)
        bench.wait(EXCHANGE_MS)
    before = bench.count(health.DEADLINE)
    whole_cycle(bench, 8, AROUND[:-1])
    assert (DONE, before) == (bench.node.state, bench.count(health.DEADLINE))
    slot = grid.slot_of(*CENTRE, *AROUND[-1])
    assert bytes((1 << slot, 1 << slot)) == bench.said[-1][1][9:11]


def test_the_return_of_a_neighbour_is_noticed_at_once():
    """In its first cycle back its values count if they come in time; from the next on it is waited for again."""
    bench = Bench()
    whole_cycle(bench, 5)
    for cycle in (6, 7, 8):
        whole_cycle(bench, cycle, AROUND[:-1])
        bench.wait(2 * EXCHANGE_MS)
    bench.hear(beacon_of(9), reading_of(AROUND[-1], 9))
    bench.hear(*readings_of(AROUND[:-1], 9))
    bench.hear(*[activations_of(cell, 9) for cell in AROUND[:-1]])
    assert COLLECT == bench.node.state
    bench.hear(activations_of(AROUND[-1], 9))
    assert 0 == bench.said[-1][1][8] & frame.HAS_ABSENCE
    whole_cycle(bench, 10, AROUND[:-1])
    assert COLLECT == bench.node.state


# Ownership


def test_ownership_passes_to_the_next_member_when_the_owner_dies():
    """In the cycle after its death nobody reports the block, then the next member does."""
    mesh = quiet_mesh()
    mesh.run_cycle()
    mesh.kill((0, 0))
    reporters = []
    for _ in range(6):
        mesh.sent.clear()
        mesh.run_cycle()
        reporters.append([cell for cell, where, _ in mesh.sent if where == TO_GATEWAY and cell in MATES])
    assert [[], *[[(0, 1)]] * 5] == reporters


def test_a_returned_owner_takes_its_block_back():
    mesh = quiet_mesh()
    away = mesh.nodes.pop((0, 0))
    for _ in range(4):
        mesh.run_cycle()
    mesh.nodes[(0, 0)] = away
    mesh.run_cycle()
    mesh.sent.clear()
    outcome = mesh.run_cycle()
    assert [(0, 0)] == [cell for cell, where, _ in mesh.sent if where == TO_GATEWAY and cell in (*MATES, CENTRE)]
    assert 0 == outcome.record.late


def test_of_two_owners_the_gateway_takes_the_element_wise_maximum():
    """(0, 1) never hears (0, 0), so both report, each with what reached it; the twin agrees with the maximum."""
    mesh = quiet_mesh(readings={(0, 0): [READING_CCEL + 290] * 60})
    deaf = mesh.nodes[0, 1].on_frame
    mesh.nodes[0, 1].on_frame = lambda data, now_ms: None if (data[1], data[2]) == (0, 0) else deaf(data, now_ms)
    for _ in range(3):
        mesh.run_cycle()
    mesh.sent.clear()
    outcome = mesh.run_cycle()
    told = {cell: Report(data) for cell, where, data in mesh.sent if where == TO_GATEWAY and cell in MATES}
    assert {(0, 0), (0, 1)} == told.keys()
    assert (0b1101, 0b1110) == (told[0, 0].pooled, told[0, 1].pooled)
    assert told[0, 0].features != told[0, 1].features
    maximum = np.maximum(*[list(report.features) for report in told.values()])
    assert maximum.tolist() == outcome.record.features[0, 0].tolist()
    assert outcome.exact.compared == outcome.exact.equal > 0
    assert 0 < outcome.record.late, "a neighbour that has a reading was replaced"
