"""A node that sends more than it can need: who is shut out, for how long, and that the others go on without it."""

import json
import logging
from unittest.mock import Mock

import pytest
from gateway_bench import all_report, gateway, name_of, report_of, say
from mesh_in_memory import RUN, TIMING

from gateway.quarantine import GOOD_CYCLES, Quarantine, allowed
from gateway.upkeep import Chores, Upkeep
from protocol.health import COUNTERS

PERIOD_MS = TIMING.period_ms
BOUND = allowed(1, PERIOD_MS)
FLOODER, OTHER = (0, 2), (0, 0)


def flood(site, cell=FLOODER, count=BOUND + 1, leaf="up", payload=b"noise"):
    for _ in range(count):
        site.on_message(name_of(cell, leaf), payload)


def quarantined(site):
    return list(site.quarantine.cells)


@pytest.mark.parametrize(
    ("periods", "period_ms", "bound"),
    [(1, 1_000, 64 + 40), (1, 100, 64 + 20), (1, 1_800_000, 64 + 1_200), (100, 1_000, 6_400 + 1_200)],
)
def test_the_bound_is_what_a_node_says_in_a_cycle_and_on_connections(periods, period_ms, bound):
    assert bound == allowed(periods, period_ms)


@pytest.mark.parametrize("leaf", ["up", "state", "about", "health", "nothing"])
def test_a_node_may_say_as_much_as_it_can_need_and_no_more(leaf):
    site = gateway()
    site.start_cycle(0)
    flood(site, count=BOUND, leaf=leaf)
    assert [] == quarantined(site)
    flood(site, count=1, leaf=leaf)
    assert [FLOODER] == quarantined(site)
    assert {"malformed": BOUND, "flood": 1} == site.faults


def test_what_comes_from_a_node_in_quarantine_changes_nothing():
    site = gateway()
    site.start_cycle(0)
    flood(site)
    for leaf, payload in {
        "up": report_of(FLOODER, 0, 0b0101),
        "state": b"ready",
        "about": json.dumps({"boot": 1}).encode(),
        "health": bytes(4 * COUNTERS),
    }.items():
        site.on_message(name_of(FLOODER, leaf), payload)
    assert ({}, {}, {}, {}) == (site.states, site.about, site.health, site.holdings)
    assert {FLOODER: 5} == site.quarantine.dropped
    assert {"beacons", "beacon_bytes"} == site.traffic.keys()


def test_a_block_is_not_waited_for_when_its_owner_floods():
    site = gateway()
    site.start_cycle(0)
    say(site, OTHER, 0, 0b1111)
    assert site.poll(1) is None
    flood(site)
    outcome = site.poll(2)
    assert ((16,), (-1,)) == tuple(tuple(block) for block in outcome.record.features[0])
    assert outcome.record.pooled[:, :2].all()
    assert not outcome.record.pooled[:, 2].any()
    site.start_cycle(PERIOD_MS)
    say(site, OTHER, 1, 0b1111)
    assert site.poll(PERIOD_MS + 1).record.no_reading[FLOODER]


def test_a_mate_that_reports_in_its_place_is_heard():
    site = gateway()
    site.start_cycle(0)
    flood(site)
    say(site, OTHER, 0, 0b1111)
    say(site, (1, 2), 0, 0b0101)
    assert ((16,), (16,)) == tuple(tuple(block) for block in site.poll(1).record.features[0])


def test_a_node_is_heard_again_after_whole_cycles_in_which_it_behaved():
    site = gateway()
    site.start_cycle(0)
    flood(site)
    for cycle in range(1, GOOD_CYCLES + 1):
        site.start_cycle(cycle * PERIOD_MS)
        assert [FLOODER] == quarantined(site)
        flood(site, count=BOUND)
    site.start_cycle((GOOD_CYCLES + 1) * PERIOD_MS)
    assert [] == quarantined(site)
    all_report(site, GOOD_CYCLES + 1)
    assert site.poll((GOOD_CYCLES + 1) * PERIOD_MS + 1).record.pooled.all()


def test_who_floods_again_begins_anew():
    site = gateway()
    for cycle in range(2 * GOOD_CYCLES):
        site.start_cycle(cycle * PERIOD_MS)
        if cycle % GOOD_CYCLES == 0:
            flood(site)
    assert [FLOODER] == quarantined(site)


def test_what_a_node_said_of_its_connection_before_does_not_stand_after_quarantine():
    site = gateway()
    site.on_message(name_of(FLOODER, "state"), b"lost")
    for cycle in range(GOOD_CYCLES + 2):
        site.start_cycle(cycle * PERIOD_MS)
        if cycle == 0:
            flood(site)
    assert {} == site.states
    assert FLOODER in site.counted_on()


def test_a_gateway_that_stood_still_finds_what_was_said_meanwhile():
    site = gateway()
    site.start_cycle(0)
    site.start_cycle(50 * PERIOD_MS)
    flood(site, count=allowed(50, PERIOD_MS))
    assert [] == quarantined(site)
    flood(site, count=1)
    assert [FLOODER] == quarantined(site)


@pytest.mark.parametrize("jump_ms", [-(10**12), 0, 10**12])
def test_no_clock_lets_more_through_than_a_hundred_periods(jump_ms):
    found = Quarantine(PERIOD_MS)
    found.start_cycle(0)
    found.start_cycle(jump_ms)
    periods = 100 if jump_ms > 0 else 1
    assert [True] * allowed(periods, PERIOD_MS) == [found.admits(OTHER) for _ in range(allowed(periods, PERIOD_MS))]
    assert not found.admits(OTHER)


def test_a_node_is_named_once_and_counted_always(caplog):
    site = gateway()
    with caplog.at_level(logging.WARNING):
        for cycle in range(20):
            site.start_cycle(cycle * PERIOD_MS)
            if cycle % 10 == 0:
                flood(site, count=BOUND + 7)
    line = "node n-00-02 sends more than it can need: not listened to until it behaves"
    assert [line] == [record.message for record in caplog.records]
    assert 14 == site.faults["flood"] == site.node_faults[FLOODER]["flood"] == site.quarantine.dropped[FLOODER]


def test_every_kind_of_fault_is_counted_for_the_node_that_it_came_from():
    site = gateway()
    site.start_cycle(0)
    all_report(site, 0)
    say(site, OTHER, 0, 0b1111)  # a double
    site.on_message(name_of(OTHER), report_of(FLOODER, 0, 0b0101))  # in another's name
    say(site, OTHER, 0, 0b1111, header=(RUN + 1, 1))
    say(site, OTHER, 5_000, 0b1111)
    say(site, OTHER, 0, 0b1111, header=(RUN, 2))
    site.on_message(name_of(FLOODER, "about"), b"[")
    site.on_message(name_of((0, 1), "state"), b"well")
    assert {
        OTHER: {"double": 1, "stranger": 1, "other_run": 1, "too_far_ahead": 1, "other_version": 1},
        FLOODER: {"malformed": 1},
        (0, 1): {"malformed": 1},
    } == site.node_faults
    site.on_message(name_of((9, 9)), b"")
    assert 3 == len(site.node_faults)


def test_what_nodes_did_is_told_to_other_programs_the_worst_first(tmp_path):
    site = gateway()
    site.start_cycle(0)
    site.on_message(name_of(OTHER, "state"), b"well")
    flood(site)
    facts = Upkeep(tmp_path, site, Mock(), Chores(None, Learning, None), "none").facts()
    assert {"n-00-02": 1} == facts["quarantine"]
    assert [("n-00-02", {"malformed": BOUND, "flood": 1}), ("n-00-00", {"malformed": 1})] == [*facts["faults"].items()]


class Learning:
    """Learns nothing."""

    @staticmethod
    def facts():
        return {}
