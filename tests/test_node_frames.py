"""The node machine and what is of no use to it: other filters, other runs, lies, failing sensors, our own mistakes."""

import itertools

import pytest
from mesh_in_memory import RUN
from node_bench import (
    AROUND,
    CENTRE,
    EXCHANGE_MS,
    GATHER_MS,
    PERIOD_MS,
    READING_CCEL,
    SQUARE,
    VERSION,
    Bench,
    Raising,
    Steady,
    activations_of,
    beacon_of,
    head_of,
    member_of,
    no_reading_of,
    quiet_mesh,
    reading_of,
    readings_of,
    whole_cycle,
)

from firmware.stages import COLLECT, DONE, GATHER, IDLE, TO_HALO
from protocol import beacon, frame, grid
from protocol.report import Report

# Filter versions


def test_a_node_without_the_cycles_filters_gives_its_reading_and_abstains_from_the_rest():
    bench = Bench()
    bench.hear(beacon_of(5, version=VERSION + 1))
    assert (["reading"], DONE) == (bench.kinds(), bench.node.state)
    bench.wait(EXCHANGE_MS * 3)
    assert ["reading"] == bench.kinds()


def test_a_node_without_a_reading_and_without_the_cycles_filters_reports_no_block():
    bench = Bench(cell=(0, 0), sensor=Steady(None))
    bench.hear(beacon_of(5, version=VERSION + 1))
    assert (["no_reading"], DONE) == (bench.kinds(), bench.node.state)
    bench.hear(*[no_reading_of(cell, 5) for cell in [(0, 1), (1, 0), (1, 1)]])
    bench.wait(EXCHANGE_MS * 3)
    assert ["no_reading"] == bench.kinds()


def test_a_neighbour_with_other_filters_gives_its_reading_and_is_waited_for_no_further():
    bench = Bench()
    bench.hear(beacon_of(5))
    bench.hear(reading_of((0, 1), 5, version=9), *readings_of([cell for cell in AROUND if cell != (0, 1)], 5))
    bench.hear(*[activations_of(cell, 5) for cell in AROUND if cell != (0, 1)])
    assert ["reading", "activations", "member"] == bench.kinds()
    slot = grid.slot_of(*CENTRE, 0, 1)
    assert bytes((0, 1 << slot)) == bench.said[-1][1][9:11]
    assert {} == bench.faults()


@pytest.mark.parametrize("kind", [activations_of, member_of])
def test_units_of_other_filters_are_never_taken_in(kind):
    bench = Bench(cell=(0, 0))
    bench.hear(beacon_of(5))
    bench.hear(*readings_of([(0, 1), (1, 0)], 5), kind(CENTRE, 5, (255,) * 5, version=9))
    assert 0 == bench.node.mode._neighbours.arrived[1]
    assert 0 == bench.node.mode._block.pooled


def test_an_owner_with_other_filters_is_passed_over():
    bench = Bench(cell=(0, 1), site=SQUARE)
    mates = [(0, 0), (1, 0), (1, 1)]
    bench.hear(beacon_of(5))
    bench.hear(reading_of((0, 0), 5, version=9), *readings_of([(0, 2), (1, 0), (1, 1), (1, 2)], 5))
    bench.hear(*[activations_of(cell, 5) for cell in [(0, 2), (1, 0), (1, 1), (1, 2)]])
    told = Report(bench.hear(*[member_of(cell, 5) for cell in mates[1:]])[-1][1])
    assert 0b1110 == told.pooled


def test_a_node_without_a_reading_owns_the_block_when_the_lowest_has_other_filters():
    """(0, 0) has other filters for good, (0, 1) no reading: the other two still have to reach the gateway."""
    mesh = quiet_mesh(readings={(0, 1): [None] * 60})
    mesh.nodes[0, 0].wave.active.version = 9
    for _ in range(5):
        outcome = mesh.run_cycle()
    assert [True, True] == outcome.record.pooled[1, :2].tolist()


# What others send that is of no use


def busy_bench():
    """A node in mid-cycle that knows some things."""
    bench = Bench()
    whole_cycle(bench, 40)
    bench.hear(beacon_of(41), *readings_of(AROUND[:4], 41), activations_of((0, 0), 41))
    return bench


USELESS = {
    "of another run": ("stale", reading_of((1, 2), 41, run=RUN + 1)),
    "of an earlier cycle": ("stale", reading_of((1, 2), 40)),
    "too far ahead": ("stale", reading_of((1, 2), 45)),
    "of half the numbers ahead": ("stale", reading_of((1, 2), 41 + 32_768)),
    "from a stranger": ("stranger", reading_of((1, 3), 41)),
    "from far away": ("stranger", reading_of((200, 254), 41)),
    "a reading said again": ("double", reading_of((0, 0), 41, 999)),
    "activations said again": ("double", activations_of((0, 0), 41, (7,) * 5)),
    "activations of four channels": ("other_shape", activations_of((1, 2), 41, (7,) * 4)),
    "activations for an exchange that is none": ("other_shape", activations_of((1, 2), 41, exchange=2)),
    "activations for the first exchange": ("other_shape", activations_of((1, 2), 41, exchange=0)),
    "nothing": ("malformed", b""),
    "one byte short": ("malformed", reading_of((1, 2), 41)[:-1]),
    "one byte long": ("malformed", reading_of((1, 2), 41) + b"\0"),
    "another wire version": ("malformed", b"\x22" + reading_of((1, 2), 41)[1:]),
    "an unknown kind": ("malformed", b"\x1f" + reading_of((1, 2), 41)[1:]),
    "a report": ("malformed", head_of(frame.REPORT, (1, 2), 41) + bytes(12)),
    "a beacon cut short": ("malformed", beacon_of(42)[:-1]),
    "a beacon with a byte too many": ("malformed", beacon_of(42) + b"\0"),
    "a member's frame that says nothing": ("malformed", head_of(frame.MEMBER, (0, 0), 41)),
}


@pytest.mark.parametrize("name", USELESS)
def test_what_is_of_no_use_is_counted_under_its_name_and_changes_nothing(name):
    counter, data = USELESS[name]
    bench = busy_bench()
    before = bench.memory()
    assert [] == bench.hear(data)
    assert {counter: 1} == bench.faults()
    # The ring of faults remembers it; and who sends units of another shape lives all the same.
    apart = {"ring", "alive"} if counter == "other_shape" else {"ring"}
    assert [] == [name for name, what in bench.memory().items() if what != before[name] and name not in apart]


@pytest.mark.parametrize("data", [beacon_of(41), beacon_of(40), beacon_of(0)], ids=["the same", "earlier", "long ago"])
def test_a_beacon_of_this_run_that_is_no_later_than_the_last_changes_nothing(data):
    bench = busy_bench()
    before = bench.memory()
    assert [] == bench.hear(data)
    assert before == bench.memory()


def test_a_nodes_own_block_frames_come_back_and_are_nothing():
    bench = busy_bench()
    before, counters = bench.memory(), list(bench.node.trace.counters)
    bench.hear(member_of(CENTRE, 41), reading_of(CENTRE, 41, run=9))
    assert (before, counters) == (bench.memory(), list(bench.node.trace.counters))


def test_three_cycles_ahead_is_believed_and_four_is_not():
    for ahead, cycle in ((3, 44), (4, 41)):
        bench = busy_bench()
        bench.hear(reading_of((1, 2), 41 + ahead))
        assert cycle == bench.node.cycle


def test_a_no_reading_said_again_is_counted_as_a_double():
    bench = busy_bench()
    bench.hear(no_reading_of((1, 2), 41), no_reading_of((1, 2), 41))
    assert {"double": 1} == bench.faults()


CONTRADICTIONS = {
    "no reading after a reading": (reading_of, no_reading_of),
    "a reading after none": (no_reading_of, reading_of),
    "activations after no reading": (no_reading_of, activations_of),
    "a member after no reading": (no_reading_of, member_of),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_of_frames_that_contradict_each_other_the_first_counts_and_the_second_is_a_double(name):
    first, second = CONTRADICTIONS[name]
    bench = Bench(cell=(0, 0))
    bench.hear(beacon_of(41), first((0, 1), 41))
    before = bench.memory()
    bench.hear(second((0, 1), 41))
    assert {"double": 1} == bench.faults()
    assert before | {"ring": None} == bench.memory() | {"ring": None}


def test_a_member_of_another_shape_is_counted_as_such():
    bench = Bench(cell=(0, 0))
    bench.hear(beacon_of(5), member_of((0, 1), 5, (1,) * 4))
    assert {"other_shape": 1} == bench.faults()


def test_a_member_that_contradicts_itself_does_not_cost_its_block_the_report():
    bench = Bench(cell=(0, 0), sensor=Steady(None))
    bench.hear(beacon_of(5), member_of((0, 1), 5), no_reading_of((0, 1), 5), no_reading_of((1, 0), 5))
    (_, data) = bench.hear(no_reading_of((1, 1), 5))[-1]
    assert 0b0010 == Report(data).pooled


# The beacon's wishes


@pytest.mark.parametrize("flags", [beacon.WANT_HEALTH, beacon.WANT_HEALTH | beacon.OPENS_NOTHING])
def test_a_beacon_may_ask_for_health(flags):
    bench = Bench()
    bench.hear(beacon_of(5, flags=flags))
    assert bench.node.health_wanted
    assert (IDLE if flags & beacon.OPENS_NOTHING else COLLECT) == bench.node.state


@pytest.mark.parametrize("wanted", [True, False])
def test_readings_are_carried_along_only_when_asked_for(wanted):
    bench = Bench(cell=(0, 0), sensor=Steady())
    bench.hear(beacon_of(5, flags=beacon.WANT_READINGS if wanted else 0))
    bench.wait(2 * EXCHANGE_MS)
    told = Report(bench.wait(GATHER_MS)[-1][1])
    assert [READING_CCEL if wanted else None, None, None, None] == told.readings


@pytest.mark.parametrize(
    ("field", "value"),
    [("period_ms", 0), ("period_ms", beacon.PERIOD_MS_MAX + 1), ("exchange_ms", 0), ("gather_ms", 0)],
)
def test_a_beacon_with_a_time_out_of_its_range_is_malformed(field, value):
    """With a period of nothing a node would race, with one beyond the limit its ticks would wrap meanwhile."""
    bench = Bench()
    fields = beacon.unpack(beacon_of(5))._replace(**{field: value})
    assert [] == bench.hear(beacon.pack(fields, b"\0"))
    assert (IDLE, {"malformed": 1}) == (bench.node.state, bench.faults())


def test_the_longest_period_that_a_beacon_can_carry_is_waited_for():
    bench = Bench(sensor=Steady(None))
    fields = beacon.unpack(beacon_of(5))._replace(period_ms=beacon.PERIOD_MS_MAX)
    bench.hear(beacon.pack(fields, b"\0"))
    bench.wait(3 * beacon.PERIOD_MS_MAX - 1)
    assert 5 == bench.node.cycle
    bench.wait(1)
    assert 8 == bench.node.cycle


def test_one_beacon_from_the_far_future_does_not_make_a_node_deaf():
    bench = Bench()
    whole_cycle(bench, 5)
    bench.hear(beacon_of(0xFFFFFFFF))
    for cycle in range(6, 20):
        bench.wait(PERIOD_MS)
        bench.hear(beacon_of(cycle))
    assert 19 == bench.node.cycle


# Our own mistakes and the sensor's

ALLOWED = {IDLE: {COLLECT}, COLLECT: {COLLECT, GATHER, DONE}, GATHER: {COLLECT, DONE}, DONE: {COLLECT}}


@pytest.mark.parametrize(("state", "to"), list(itertools.product(ALLOWED, ALLOWED)))
def test_only_the_tables_changes_of_state_are_possible(state, to):
    bench = Bench()
    bench.node.state = state
    if to in ALLOWED[state]:
        bench.node.go(to)
        assert to == bench.node.state
    else:
        with pytest.raises(RuntimeError, match=f"no way from state {state} to {to}"):
            bench.node.go(to)


@pytest.mark.parametrize("error", [OSError(19), ValueError("no such cycle")])
def test_a_driver_that_raises_counts_a_sensor_fault_and_gives_no_reading(error):
    bench = Bench(sensor=Raising(error))
    assert [(TO_HALO, no_reading_of(CENTRE, 5))] == bench.hear(beacon_of(5))
    assert {"sensor_fault": 1} == bench.faults()


@pytest.mark.parametrize(
    "error", [OverflowError("an offset of 2^31 on a 32-bit board"), RuntimeError(), TypeError(), KeyError(7)]
)
def test_a_driver_may_raise_anything(error):
    bench = Bench(sensor=Raising(error))
    bench.hear(beacon_of(5))
    assert {"sensor_fault": 1} == bench.faults()
