"""Whom a node believes: beacons the gateway, what a node says that node alone, on its own topic, acknowledgements too.

A broker with an access list lets each node publish on its own topics only; then nobody is heard in another's name.
"""

import pytest
from link_bench import Bench
from node_bench import beacon_of, head_of, member_of, reading_of

from protocol import frame, health, report
from protocol.grid import node_name

BASE = "tm/1/memory/"
EAST = BASE + "n/n-00-01/halo"
READING = reading_of((0, 1), 1)
MEMBER = member_of((0, 1), 1, (7,))
ACK = BASE + "n/n-00-00/down/ack"


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """Node (0, 0), whose only neighbour is (0, 1); it is in a cycle."""
    made = Bench(tmp_path, 1, monkeypatch)
    say(made, BASE + "cycle", beacon_of(1))
    return made


def say(bench, name, data):
    bench.link._on_message(memoryview(name.encode()), memoryview(data))


def counted(bench):
    counters = bench.link.node.trace.counters
    return counters[health.STRANGER], sum(counters[health.TAKEN : health.TAKEN_BYTES])


HONEST = [(EAST, READING), (BASE + "b/00-00/n-00-01", MEMBER), (BASE + "cycle", beacon_of(2))]
FORGED = [
    (EAST, beacon_of(2)),
    (BASE + "b/00-00/n-00-01", beacon_of(2)),
    (BASE + "b/00-00/n-01-00", MEMBER),
    (BASE + "cycle", READING),
    (BASE + "cycle", MEMBER),
    (BASE + "b/00-00/n-00-01", member_of((0, 3), 1, (7,))),
    (BASE + "n/n-01-00/halo", READING),
]


@pytest.mark.parametrize(("name", "data"), HONEST)
def test_what_comes_from_whose_topic_it_is_is_taken_in(bench, name, data):
    strangers, taken = counted(bench)
    say(bench, name, data)
    assert (strangers, taken + 1) == counted(bench)


@pytest.mark.parametrize(("name", "data"), FORGED)
def test_what_comes_on_anothers_topic_is_a_strangers_and_changes_nothing(bench, name, data):
    node = bench.link.node
    (strangers, taken), before = counted(bench), (node.cycle, node.state, bytes(node.mode._neighbours.arrived))
    say(bench, name, data)
    assert (strangers + 1, taken) == counted(bench)
    assert before == (node.cycle, node.state, bytes(node.mode._neighbours.arrived))


def test_a_name_that_begins_as_another_is_that_of_no_neighbour_of_both():
    """So the node drops it: n-00-100 begins as n-00-10 does, and nobody is next to both."""
    cells = [(row, col) for row in (0, 9, 10, 99, 100, 101) for col in (0, 9, 10, 99, 100, 101)]
    names = {cell: node_name(*cell) for cell in cells}
    both = [(one, other) for one in cells for other in cells if one != other and names[one] in names[other]]
    assert both
    assert all(max(abs(one[0] - other[0]), abs(one[1] - other[1])) > 2 for one, other in both)


@pytest.mark.parametrize("size", range(frame.HEADER_SIZE))
def test_what_is_no_frame_is_malformed_on_any_topic(bench, size):
    malformed = bench.link.node.trace.counters[health.MALFORMED]
    for name in (EAST, BASE + "b/00-00/n-00-01", BASE + "cycle"):
        say(bench, name, READING[:size])
    assert malformed + 3 == bench.link.node.trace.counters[health.MALFORMED]


def test_only_the_gateway_acknowledges_a_report(bench):
    node = bench.link.node
    data = report.pack(head_of(frame.REPORT, (0, 0), 1), node.boot, 1, Nothing(), b"")
    node.tell_gateway(data)
    word = report.pack_ack(node.boot, 1, ())
    for name in (EAST, BASE + "b/00-00/n-00-01", BASE + "cycle"):
        say(bench, name, word)
        assert [data] == node.ring
    say(bench, ACK, word[:-1])
    assert [data] == node.ring
    say(bench, ACK, word)
    assert [] == node.ring


class Nothing:
    """A block of which nothing was gathered."""

    pooled = no_reading = 0
    exchanges, absence, readings, with_readings = 1, bytes(4), (0,) * 4, False
