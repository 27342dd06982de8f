"""What the gateway acknowledges: the beacon's bits, and words to single nodes, of what is kept and nothing else."""

import json

import pytest
from gateway_bench import VERSION, all_report, beacon_fields, gateway, name_of, report_of, say
from mesh_in_memory import RUN, TIMING

from gateway.cycle_numbers import AHEAD_MAX
from gateway.cycles import GONE_CYCLES
from gateway.received import Received, Reporter
from protocol import beacon, report


@pytest.mark.parametrize(("owners", "acked"), [((), ()), ([(0, 0)], [(0, 0)]), ([(0, 0), (0, 2)], [(0, 0), (0, 1)])])
def test_the_next_beacon_acknowledges_the_blocks_that_reported(owners, acked):
    site = gateway()
    first = site.start_cycle(0)
    assert not any(beacon.acknowledged(first, 0, col) for col in range(2))
    for owner in owners:
        say(site, owner, 0, 0b0101 if owner == (0, 2) else 0b1111)
    site.poll(TIMING.period_ms)
    second = site.start_cycle(TIMING.period_ms)
    assert 0 == beacon_fields(second).acked_cycle
    assert [(0, col) in acked for col in range(2)] == [beacon.acknowledged(second, 0, col) for col in range(2)]


def acked_blocks(data):
    return [beacon.acknowledged(data, 0, col) for col in range(2)]


def acknowledged(site):
    """What single nodes are told: by cell, which of the first hundred reports are kept."""
    found = {}
    for cell, data in site.acknowledgements():
        assert report.is_ack(data)
        kept = [seq for seq in range(1, 101) if report.is_acknowledged(data, report_of(cell, 0, 1, seq=seq))]
        found[cell] = kept
    return found


def test_a_block_with_a_missing_member_is_not_acknowledged_but_who_reported_it_is():
    """It may have been owner, too, and its report may be lost."""
    site = gateway()
    for cycle in range(GONE_CYCLES + 2):
        data = site.start_cycle(0)
        assert [False, cycle > 0] == acked_blocks(data)
        say(site, (0, 0), cycle, 0b0111, seq=cycle + 1)
        say(site, (0, 2), cycle, 0b0101)
        site.settle(site.poll(TIMING.period_ms), True)
        assert {(0, 0): list(range(1, cycle + 2))} == acknowledged(site)


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("version", [VERSION, VERSION + 1])
def test_a_block_of_which_a_report_came_that_is_in_no_cycle_is_not_acknowledged(version, late):
    """Another node of it was taken for gone, or uses other filters; its report is kept with the next outcome."""
    site = gateway()
    site.start_cycle(0)
    all_report(site, 0)
    if late:
        site.settle(site.poll(1), True)
    if late or version != VERSION:
        say(site, (1, 1), 0, 0b1000, header=(RUN, version), seq=7)
    if not late:
        site.settle(site.poll(1), True)
    told = late or version != VERSION
    assert ({(0, 0), (1, 1)} if told and not late else set()) == set(acknowledged(site))
    data = site.start_cycle(TIMING.period_ms)
    assert [not told, True] == acked_blocks(data)
    late_ones = site.poll(2 * TIMING.period_ms).arrivals.late
    assert ([((1, 1), 1, 7)] if late else []) == [found.key for found in late_ones]


def test_what_cannot_be_kept_is_not_acknowledged_and_is_taken_again():
    site = gateway()
    site.start_cycle(0)
    said = [report_of((0, 0), 0, 0b0111, seq=1), report_of((0, 2), 0, 0b0101, seq=1)]
    for data in said:
        site.on_message(name_of((data[1], data[2])), data)
    site.settle(site.poll(TIMING.period_ms), False)
    assert {} == acknowledged(site)
    assert [False, False] == acked_blocks(site.start_cycle(TIMING.period_ms))
    for data in said:
        site.on_message(name_of((data[1], data[2])), data)
    outcome = site.poll(2 * TIMING.period_ms)
    assert said == [frame for _, frame in outcome.arrivals.late]
    site.settle(outcome, True)
    assert {(0, 0): [1], (0, 2): [1]} == acknowledged(site)


def test_a_block_is_acknowledged_by_name_while_an_earlier_report_of_its_owner_is_lacking():
    """It may be of the very same cycle, and the beacon's bit would confirm it."""
    site = gateway()
    site.start_cycle(0)
    older = report.marked(report_of((0, 0), 0, 0b1111, seq=2), report.HAS_OLDER, True)
    site.on_message(name_of((0, 0)), older)
    say(site, (0, 2), 0, 0b0101)
    site.settle(site.poll(1), True)
    assert {(0, 0): [2]} == acknowledged(site)
    assert [False, True] == acked_blocks(site.start_cycle(TIMING.period_ms))


def test_a_node_that_heard_no_beacon_of_the_cycle_is_told_by_name_and_the_others_of_its_block_are_not():
    site = gateway()
    site.start_cycle(0)
    site.on_message(name_of((0, 0)), report.marked(report_of((0, 0), 0, 0b0011, seq=4), report.NO_BEACON, True))
    say(site, (1, 0), 0, 0b1100)
    say(site, (0, 2), 0, 0b0101)
    site.settle(site.poll(1), True)
    assert {(0, 0): [1, 2, 3, 4]} == acknowledged(site)
    assert [True, True] == acked_blocks(site.start_cycle(TIMING.period_ms))


def test_a_block_is_not_acknowledged_while_a_report_is_lacking_of_a_node_that_another_one_pooled():
    """It may have been in this very cycle before, alone and by its own clock."""
    site = gateway()
    site.received = Received({(0, 1): [Reporter(1, 7, frozenset({6}))]})
    site.start_cycle(0)
    all_report(site, 0)
    site.settle(site.poll(1), True)
    assert {(0, 0)} == acknowledged(site).keys()
    assert [False, True] == acked_blocks(site.start_cycle(TIMING.period_ms))


def test_a_node_that_started_anew_ends_its_former_start_though_it_reports_no_more():
    site = gateway()
    site.start_cycle(0)
    all_report(site, 0)
    site.settle(site.poll(1), True)
    for boot in (1, 2, 2, "x"):
        site.on_message(name_of((0, 0), "about"), json.dumps({"boot": boot}).encode())
    site.start_cycle(2)
    (gap,) = site.poll(2 + TIMING.period_ms).arrivals.gaps
    assert ((0, 0), 1, None) == (gap.cell, gap.boot, gap.last)


def test_a_report_that_is_kept_is_acknowledged_again_and_taken_no_more():
    site = gateway()
    site.start_cycle(0)
    all_report(site, 0)
    data = report_of((0, 0), 0, 0b1111, seq=3)
    site.on_message(name_of((0, 0)), data)
    site.settle(site.poll(TIMING.period_ms), True)
    site.acknowledgements()
    for _ in range(2):
        site.on_message(name_of((0, 0)), data)
    assert {(0, 0): [3]}.keys() == acknowledged(site).keys()
    assert ((), ()) == site.received.arrivals()[:2]
    assert 3 == site.faults["double"]  # it said nothing new when it came first


def test_a_late_report_that_is_kept_takes_no_acknowledgement_back():
    site = gateway()
    site.start_cycle(0)
    data = report_of((0, 0), 0, 0b1111)
    site.on_message(name_of((0, 0)), data)
    say(site, (0, 2), 0, 0b0101)
    site.settle(site.poll(1), True)
    site.on_message(name_of((0, 0)), data)
    assert [True, True] == acked_blocks(site.start_cycle(TIMING.period_ms))


def test_a_report_to_another_run_or_from_the_future_is_kept_in_no_cycle():
    site = gateway()
    site.start_cycle(0)
    say(site, (0, 0), 0, 0b0111, header=(RUN - 1, VERSION))
    say(site, (0, 2), AHEAD_MAX + 1, 0b0101)
    outcome = site.poll(TIMING.period_ms)
    assert [(0, 0), (0, 2)] == [late.key.cell for late in outcome.arrivals.late]
    assert not outcome.record.pooled.any()
    assert {"other_run": 1, "too_far_ahead": 1} == +site.faults


def test_a_block_is_acknowledged_in_the_cycle_after_and_not_for_ever():
    site = gateway()
    site.start_cycle(0)
    all_report(site, 0)
    site.poll(1)
    site.start_cycle(2)
    site.poll(2 + TIMING.period_ms)
    third = site.start_cycle(2 + TIMING.period_ms)
    assert 1 == beacon_fields(third).acked_cycle
    assert not beacon.acknowledged(third, 0, 0)
