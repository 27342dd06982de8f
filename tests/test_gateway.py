"""The gateway without I/O: what it takes in, what it refuses by name, how cycles begin and end."""

import json

import numpy as np
import pytest
from gateway_bench import SITE, VERSION, all_report, beacon_fields, gateway, name_of, report_of, say
from mesh_in_memory import RUN, TIMING, MeshInMemory, Perfect, Sensor, make_model, make_site

from gateway.cycle_numbers import AHEAD_MAX
from gateway.cycles import GONE_CYCLES
from gateway.gateway import ABOUT_SIZE_MAX, Gateway
from protocol import beacon
from protocol.health import COUNTERS, COUNTERS_LEAST

LEAVES = ("up", "state", "about", "health")

# Which number a cycle has


def opened(site, now_ms):
    return beacon_fields(site.start_cycle(now_ms)).cycle


@pytest.mark.parametrize("periods", [0.9, 1, 1.01, 1.5, 2.4])
def test_cycles_are_numbered_one_by_one_also_where_each_of_them_opens_late(periods):
    site = gateway()
    uptime_ms = 10**9
    times_ms = [uptime_ms + int(cycle * periods * TIMING.period_ms) for cycle in range(100)]
    assert [*range(100)] == [opened(site, now_ms) for now_ms in times_ms]


@pytest.mark.parametrize("periods", [2.9, 3, 3.5, 7, 1000])
def test_the_first_cycle_after_a_time_without_one_has_a_number_that_no_node_came_to_by_its_own_clock(periods):
    site = gateway()
    still_ms = int(periods * TIMING.period_ms)
    numbers = [opened(site, now_ms) for now_ms in (0, still_ms, still_ms + TIMING.period_ms)]
    assert [0, int(periods) + 1, int(periods) + 2] == numbers


def test_a_number_that_was_heard_of_is_not_given_either_after_a_time_without_a_cycle():
    site = gateway()
    site.start_cycle(0)
    say(site, (0, 0), 9, 0b1111)
    assert 10 == opened(site, 5 * TIMING.period_ms)


# What is taken in


def test_a_cycle_ends_with_the_last_report_that_is_due():
    site = gateway()
    site.start_cycle(0)
    say(site, (0, 0), 0, 0b1111)
    assert site.poll(1) is None
    say(site, (0, 2), 0, 0b0101)
    outcome = site.poll(2)
    assert (0, 0) == (outcome.record.cycle, outcome.record.late)
    assert ((16,), (16,)) == tuple(tuple(block) for block in outcome.record.features[0])
    assert site.poll(3) is None, "an outcome is given once"


def test_a_cycle_ends_when_its_time_is_over():
    site = gateway()
    site.start_cycle(100)
    due_ms = 100 + TIMING.exchange_ms + TIMING.gather_ms + TIMING.report_ms
    assert due_ms == site.due_ms()
    assert site.poll(due_ms - 1) is None
    assert 6 == site.poll(due_ms).record.late


@pytest.mark.parametrize("word", ["init", "ready", "sleeping", "disconnected", "lost"])
def test_a_nodes_state_is_one_of_five_words(word):
    site = gateway()
    site.on_message(name_of((1, 2), "state"), word.encode())
    assert ({(1, 2): word}, {}) == (site.states, site.faults)


def test_the_latest_facts_and_counters_of_a_node_are_kept():
    site = gateway()
    for boot in (1, 2):
        site.on_message(name_of((1, 2), "about"), json.dumps({"boot": boot}).encode())
        site.on_message(name_of((1, 2), "health"), np.full(COUNTERS, boot, "<u4").tobytes())
    assert {(1, 2): {"boot": 2}} == site.about
    assert [2] * COUNTERS == site.health[1, 2].tolist()


def test_counters_that_an_older_node_has_not_are_zero():
    site = gateway()
    site.on_message(name_of((1, 2), "health"), np.full(COUNTERS_LEAST, 7, "<u4").tobytes())
    assert [7] * COUNTERS_LEAST + [0] * (COUNTERS - COUNTERS_LEAST) == site.health[1, 2].tolist()


def test_what_nodes_left_at_the_broker_is_noted_where_the_site_has_a_hole():
    site = Gateway(make_site(2, 3, {(0, 1), (1, 1)}), make_model("lean", SITE), TIMING, RUN)
    site.on_message(name_of((0, 1), "state"), b"lost")
    site.on_message(name_of((1, 1), "about"), b"{}")
    site.on_message(name_of((1, 1), "about"), b"")  # cleared
    site.on_message(name_of((0, 0), "state"), b"ready")  # a node
    site.on_message(name_of((2, 0), "state"), b"ready")  # outside
    site.on_message(name_of((0, 3), "state"), b"ready")
    assert {(0, 1), (1, 1)} == site.left_behind
    site.left_behind.clear()
    site.on_message(name_of((0, 1), "up"), b"x")
    site.on_message(name_of((0, 1), "about"), b"")
    assert set() == site.left_behind


@pytest.mark.parametrize("size", [0, 4 * COUNTERS_LEAST - 4, 4 * COUNTERS_LEAST + 1, 4 * COUNTERS + 4])
def test_counters_of_no_release_are_malformed(size):
    site = gateway()
    site.on_message(name_of((1, 2), "health"), bytes(size))
    assert ({}, {"malformed": 1}) == (site.health, site.faults)


@pytest.mark.parametrize("word", ["lost", "disconnected"])
def test_nobody_waits_for_a_node_that_lost_its_connection(word):
    site = gateway()
    site.on_message(name_of((1, 1), "state"), word.encode())
    site.start_cycle(0)
    all_report(site, 0, without=(1, 1))
    record = site.poll(1).record
    assert (0, True) == (record.late, bool(record.no_reading[1, 1]))


def test_a_node_that_is_lost_within_a_cycle_is_not_waited_for_but_late():
    site = gateway()
    site.start_cycle(0)
    all_report(site, 0, without=(1, 1))
    assert site.poll(1) is None
    site.on_message(name_of((1, 1), "state"), b"lost")
    assert 1 + 5 == site.poll(2).record.late, "its unit, and its value at each of its five neighbours"


# Who is counted on


def without_anybody(site, cycles):
    """So many cycles of which nothing is heard."""
    for _ in range(cycles):
        site.start_cycle(0)
        assert site.poll(TIMING.period_ms)


def test_after_all_nodes_were_gone_a_cycle_still_waits_for_those_that_come():
    site = gateway()
    without_anybody(site, GONE_CYCLES + 1)
    site.start_cycle(0)
    assert site.poll(1) is None, "nobody is counted on, so somebody may still come"
    all_report(site, GONE_CYCLES + 1)
    assert site.poll(TIMING.period_ms).record.pooled.all()


def test_nodes_that_start_after_the_fourth_cycle_are_heard():
    """Over real nodes: the mesh is switched on when its gateway has given everybody up."""
    mesh = MeshInMemory(SITE, make_model("lean", SITE), {cell: Sensor([2200] * 20) for cell in SITE.cells}, Perfect())
    nodes, mesh.nodes = mesh.nodes, {}
    for _ in range(GONE_CYCLES + 2):
        mesh.run_cycle()
    mesh.nodes = nodes
    outcomes = [mesh.run_cycle() for _ in range(3)]
    assert [6] * 3 == [outcome.record.pooled.sum() for outcome in outcomes]
    assert all(outcome.exact.equal == outcome.exact.compared > 0 for outcome in outcomes)


@pytest.mark.parametrize("speaks", ["ready", "a late report"])
def test_whoever_speaks_outside_its_cycle_is_counted_on_again(speaks):
    site = gateway()
    without_anybody(site, GONE_CYCLES)
    if speaks == "ready":
        for cell in SITE.cells:
            site.on_message(name_of(cell, "state"), b"ready")
    else:
        all_report(site, 0)
    site.start_cycle(0)
    say(site, (0, 0), GONE_CYCLES, 0b1111)
    assert site.poll(1) is None, "the other block is waited for"
    assert not site.poll(TIMING.period_ms).record.no_reading.any(), "it is late and not absent"


# What is refused

HUGE = b"[" * 100_000
GARBAGE = {
    "nothing": b"",
    "one byte": b"\x00",
    "text": b"hello",
    "no UTF-8": b"\xff\xfe\xfa" * 30,
    "a kilobyte of brackets": b"[" * 1_024,
    "a kilobyte of braces": b'{"a":' * 200,
    "100 kB of brackets": HUGE,
    "a megabyte": bytes(1_000_000),
    "a list": b"[1, 2]",
    "a number of many digits": b"1" * 1_000,
    "UTF-16": '"text"'.encode("utf-16"),
    "half an object": b'{"boot": ',
    "a report's header": report_of((0, 0), 0, 1)[:8],
}


@pytest.mark.parametrize("leaf", LEAVES)
@pytest.mark.parametrize("payload", GARBAGE.values(), ids=GARBAGE)
def test_garbage_on_any_topic_is_counted_and_nothing_else(leaf, payload):
    site = gateway()
    site.start_cycle(0)
    site.on_message(name_of((0, 0), leaf), payload)
    assert {"malformed": 1} == site.faults
    assert ({}, {}, {}, 0) == (site.states, site.about, site.health, site.traffic["reports"])


def test_facts_longer_than_a_kilobyte_are_not_even_read():
    site = gateway()
    for extra, faults in ((0, {}), (1, {"malformed": 1})):
        payload = b'{"boot": "' + b"x" * (ABOUT_SIZE_MAX + extra - 12) + b'"}'
        assert ABOUT_SIZE_MAX + extra == len(payload)
        site.on_message(name_of((0, 0), "about"), payload)
        assert faults == site.faults


@pytest.mark.parametrize("leaf", ["", "halo", "UP", "up/", "up/x", "/up", "wave", "down/cmd", "stäte", "\0"])
def test_a_leaf_that_no_node_publishes_is_malformed(leaf):
    site = gateway()
    site.on_message(name_of((0, 0), "") + leaf, b"ready")
    assert {"malformed": 1} == site.faults


FOREIGN = {
    "a cell outside": "tm/1/memory/n/n-05-05/up",
    "far outside": "tm/1/memory/n/n-254-254/up",
    "beyond every site": "tm/1/memory/n/n-999-999/up",
    "superscripts": "tm/1/memory/n/n-⁰⁰-⁰⁰/up",
    "a zero too many": "tm/1/memory/n/n-000-00/up",
    "no name": "tm/1/memory/n//up",
    "another site": "tm/1/other/n/n-00-00/up",
    "another version": "tm/2/memory/n/n-00-00/up",
    "a block": "tm/1/memory/b/00-00",
    "the beacon": "tm/1/memory/cycle",
    "nothing at all": "",
    "slashes": "////",
}


@pytest.mark.parametrize("name", FOREIGN.values(), ids=FOREIGN)
def test_a_name_that_is_not_of_this_site_is_a_stranger(name):
    site = gateway()
    site.on_message(name, report_of((0, 0), 0, 1))
    assert {"stranger": 1} == site.faults


def test_a_name_without_the_sites_prefix_is_a_stranger():
    site = gateway()
    site.on_message("n-00-00/state", b"lost")
    assert ({"stranger": 1}, {}) == (site.faults, site.states)


def test_a_report_in_anothers_name_is_a_stranger():
    site = gateway()
    site.start_cycle(0)
    site.on_message(name_of((0, 1)), report_of((0, 0), 0, 0b1111))
    assert {"stranger": 1} == site.faults


@pytest.mark.parametrize(
    ("fault", "header"), [("other_run", (RUN + 1, VERSION)), ("other_version", (RUN, VERSION + 1))]
)
def test_a_report_of_another_run_or_version_is_counted_as_such(fault, header):
    site = gateway()
    site.start_cycle(0)
    say(site, (0, 0), 0, 0b1111, header=header)
    assert {fault: 1} == site.faults
    assert 6 == site.poll(TIMING.period_ms).record.late


def test_doubles_and_misfits_are_counted_when_the_cycle_ends():
    site = gateway()
    site.start_cycle(0)
    say(site, (0, 2), 0, 0b0011)
    say(site, (0, 0), 0, 0b1111)
    all_report(site, 0)
    site.poll(1)
    assert {"misfit": 1, "double": 1} == site.faults


def test_a_late_report_is_counted_and_never_mixed_into_another_cycle():
    site = gateway()
    site.start_cycle(0)
    site.poll(TIMING.period_ms)
    site.start_cycle(TIMING.period_ms)
    say(site, (0, 0), 0, 0b1111)
    assert {"late_report": 1} == +site.faults
    assert 6 == site.poll(2 * TIMING.period_ms).record.late


def test_a_report_before_the_first_cycle_is_of_another_one():
    site = gateway()
    all_report(site, 0)
    assert {"late_report": 2} == site.faults


# Numbers


def test_cycles_count_up_from_nothing():
    site = gateway()
    assert [0, 1, 2] == [beacon_fields(site.start_cycle(0)).cycle for _ in range(3)]


def test_the_next_cycle_lies_behind_a_mesh_that_ran_on_alone():
    site = gateway()
    site.start_cycle(0)
    site.poll(TIMING.period_ms)
    say(site, (0, 0), 41, 0b1111)
    say(site, (0, 2), 40, 0b0101)
    assert 42 == beacon_fields(site.start_cycle(0)).cycle


def test_a_report_of_the_past_turns_no_number_back():
    site = gateway()
    site.numbers.next = 100
    say(site, (0, 0), 41, 0b1111)
    assert 100 == beacon_fields(site.start_cycle(0)).cycle


@pytest.mark.parametrize(("ahead", "next_cycle", "fault"), [(-1, AHEAD_MAX, "late_report"), (0, 0, "too_far_ahead")])
def test_a_mesh_is_believed_a_hundred_cycles_ahead_and_no_further(ahead, next_cycle, fault):
    site = gateway()
    say(site, (0, 0), AHEAD_MAX + ahead, 0b1111)
    assert (next_cycle, {fault: 1}) == (site.numbers.next, site.faults)


def test_many_reports_of_one_cycle_move_the_number_no_further_than_one():
    site = gateway()
    for _ in range(5):
        say(site, (0, 0), site.numbers.next + AHEAD_MAX - 1, 0b1111)
    assert (AHEAD_MAX, 4) == (site.numbers.next, site.faults["too_far_ahead"])
    site.start_cycle(0)
    say(site, (0, 0), 2 * AHEAD_MAX, 0b1111)
    assert 2 * AHEAD_MAX + 1 == site.numbers.next


def test_numbers_above_the_low_half_are_taken_as_the_nearest():
    site = gateway()
    site.numbers.next = 65_530
    site.start_cycle(0)
    say(site, (0, 0), 65_540, 0b1111)
    assert 65_541 == site.numbers.next


def test_reports_from_the_future_never_leave_the_gateway_without_a_number():
    """Forged ones, that is: each lies as far ahead as a header can tell."""
    site = gateway()
    for _ in range(400):
        say(site, (0, 0), site.numbers.next + 32_766, 0b0001)
    assert {"too_far_ahead": 400} == site.faults
    assert 0 == beacon_fields(site.start_cycle(0)).cycle


@pytest.mark.parametrize("wire", [2, 0, "1", None, "x" * 100])
def test_a_node_that_speaks_another_wire_version_is_named(caplog, wire):
    site = gateway()
    site.on_message(name_of((0, 1), "about"), json.dumps({"wire": wire}).encode())
    assert {(0, 1): {"other_wire_version": 1}} == site.node_faults
    (line,) = [record.getMessage() for record in caplog.records]
    assert f"node n-00-01 says that it speaks wire version {str(wire)[:20]!r}, not 1: it takes no part; flash" in line


@pytest.mark.parametrize("facts", [{}, {"wire": 1}])
def test_a_node_of_this_wire_version_or_of_the_first_releases_takes_part(caplog, facts):
    site = gateway()
    site.on_message(name_of((0, 1), "about"), json.dumps(facts).encode())
    assert ({}, []) == (site.node_faults, caplog.records)


def test_in_mode_change_a_report_that_comes_between_two_cycles_stands_in_the_next():
    """It is kept, and so acknowledged: nobody says it again."""
    site = gateway()
    site.mode = beacon.MODE_CHANGE
    site.start_cycle(0)
    say(site, (0, 0), 0, 0b1111)
    assert [16, -1] == site.poll(TIMING.period_ms).record.features.ravel().tolist()
    say(site, (0, 2), 0, 0b0101)
    site.start_cycle(TIMING.period_ms)
    record = site.poll(2 * TIMING.period_ms).record
    assert ([16, 16], [True, True]) == (record.features.ravel().tolist(), record.carried.ravel().tolist())


# Beacons


def test_the_beacon_says_what_a_cycle_needs():
    fields = beacon_fields(gateway().start_cycle(0))
    assert beacon.MODE_ALWAYS | beacon.WANT_READINGS == fields.flags
    assert (RUN, 0, VERSION) == (fields.run, fields.cycle, fields.version)
    assert (TIMING.period_ms, TIMING.exchange_ms, TIMING.gather_ms) == fields[3:6]
    assert (1, 2) == (fields.block_rows, fields.block_cols)


def test_asking_for_health_opens_no_cycle_here_or_there():
    mesh = MeshInMemory(SITE, make_model("lean", SITE), {cell: Sensor([2200] * 9) for cell in SITE.cells}, Perfect())
    mesh.run_cycle()
    before = mesh.gateway.numbers.next
    mesh._spread(mesh.nodes, mesh.gateway.ask_health())
    mesh.sent.clear()
    mesh.run_alone(1_000)
    assert [] == mesh.sent
    assert (before, None) == (mesh.gateway.numbers.next, mesh.gateway.poll(mesh.now_ms))
    assert all(node.health_wanted and node.cycle == 0 for node in mesh.nodes.values())
    outcome = mesh.run_cycle()
    assert (1, 0) == (outcome.record.cycle, outcome.record.late)


def test_health_can_be_asked_before_the_first_cycle():
    fields = beacon_fields(gateway().ask_health())
    assert beacon.WANT_HEALTH | beacon.OPENS_NOTHING == fields.flags
    assert 0 == fields.cycle


def test_beacons_and_reports_are_counted_for_the_ledger():
    site = gateway()
    size = len(site.start_cycle(0)) + len(site.ask_health())
    all_report(site, 0)
    assert {"beacons": 2, "beacon_bytes": size, "reports": 2} == {
        name: site.traffic[name] for name in ("beacons", "beacon_bytes", "reports")
    }
    assert len(report_of((0, 0), 0, 0b1111)) + len(report_of((0, 2), 0, 0b0101)) == site.traffic["report_bytes"]
