"""The ledger: whose counters are summed, who is named instead, and what a cycle comes to by hand."""

from collections import Counter

import numpy as np
import pytest

from gateway import ledger
from gateway.ledger import Health, spent
from gateway.site import site_of_cells
from protocol import frame
from protocol.health import (
    COUNTERS,
    DEADLINE,
    MQTT_BYTES_IN,
    MQTT_BYTES_OUT,
    MQTT_PACKETS_IN,
    MQTT_PACKETS_OUT,
    SENT,
    SENT_BYTES,
    TAKEN,
    TAKEN_BYTES,
)

SITE = site_of_cells("pair", {(0, 0), (0, 1)})
FIRST, SECOND = SITE.cells
# tm/1/pair/n/n-00-00/health, .../up, tm/1/pair/cycle and tm/1/pair/wave
HEALTH = 4 * COUNTERS
HEALTH_TOPIC, UP_TOPIC, CYCLE_TOPIC, WAVE_TOPIC = 26, 22, 15, 14


def health(boot=1, at=None):
    """A health message with some counters set, by place."""
    found = np.zeros(COUNTERS, np.uint32)
    for place, value in (at or {}).items():
        found[place] = value
    return Health(boot, found)


def counted(nodes=2, at=None):
    """What nodes spent, worked out, all of it by the first."""
    by_node = {cell: np.zeros(COUNTERS, np.int64) for cell in SITE.cells[:nodes]}
    by_node[FIRST] += health(at=at).counters
    return ledger.Spent(by_node, (), ())


# Whose counters


def test_the_differences_of_all_nodes_are_summed():
    before = {FIRST: health(at={SENT: 10}), SECOND: health(2, {SENT: 5, DEADLINE: 1})}
    after = {FIRST: health(at={SENT: 13}), SECOND: health(2, {SENT: 9, DEADLINE: 1})}
    found = spent(SITE.cells, before, after)
    assert (7, 0, 2) == (found.counters[SENT], found.counters[DEADLINE], found.nodes)
    assert [] == found.problems()


def test_a_counter_that_wrapped_at_2_to_the_30_is_summed_rightly():
    before, after = ({FIRST: health(at={SENT: value})} for value in ((1 << 30) - 2, 3))
    assert 5 == spent([FIRST], before, after).counters[SENT]


def test_a_node_that_started_anew_is_left_out_of_the_sums_and_named():
    before = {FIRST: health(7, {SENT: 100}), SECOND: health(8, {SENT: 100})}
    after = {FIRST: health(7, {SENT: 104}), SECOND: health(9, {SENT: 1})}
    found = spent(SITE.cells, before, after)
    assert (4, 1) == (found.counters[SENT], found.nodes)
    assert ["ledger: without 1 nodes that started anew meanwhile: n-00-01"] == found.problems()


@pytest.mark.parametrize("silent_before", [True, False])
@pytest.mark.parametrize("silent_after", [True, False])
def test_a_node_that_did_not_answer_twice_is_left_out_of_the_sums_and_named(silent_before, silent_after):
    before = {FIRST: health()} | ({} if silent_before else {SECOND: health(at={SENT: 1})})
    after = {FIRST: health()} | ({} if silent_after else {SECOND: health(at={SENT: 3})})
    found = spent(SITE.cells, before, after)
    if silent_before or silent_after:
        assert (0, 1) == (found.counters[SENT], found.nodes)
        assert ["ledger: without 1 nodes that did not say what they had counted: n-00-01"] == found.problems()
    else:
        assert (2, 2, []) == (found.counters[SENT], found.nodes, found.problems())


def test_of_many_nodes_left_out_five_are_named():
    cells = [(0, col) for col in range(7)]
    (line,) = spent(cells, {}, {}).problems()
    assert line.endswith(": n-00-00, n-00-01, n-00-02, n-00-03, n-00-04 and 2 more")


# What a cycle comes to


def test_frames_and_control_traffic_are_rows_and_the_total_is_their_sum():
    """In two cycles: four readings, three beacons of 29 bytes (the third asked for health), a health message a node."""
    at = {SENT + frame.READING: 4, SENT_BYTES + frame.READING: 40}
    found = ledger.ledger(SITE, counted(at=at), Counter(beacons=3, beacon_bytes=87), 2)
    assert {"frames": 2, "bytes": 20} == found["kinds"]["reading"]
    assert {"frames": 1.5, "bytes": 43.5} == found["kinds"]["beacon"]
    assert {"frames": 1, "bytes": HEALTH} == found["kinds"]["health"]
    assert (4.5, 63.5 + HEALTH) == (found["total"]["frames"], found["total"]["bytes"])
    assert (1.5, 10 + HEALTH / 2) == (found["per_node"]["frames"], found["per_node"]["bytes"])


def test_a_node_left_out_of_the_sums_does_not_lower_the_mean_of_a_node():
    at = {SENT + frame.READING: 4, SENT_BYTES + frame.READING: 40}
    found = ledger.ledger(SITE, counted(1, at), Counter(), 4)
    assert (1.25, 10 + HEALTH / 4) == (found["per_node"]["frames"], found["per_node"]["bytes"])


def test_the_node_that_sends_most_is_named_with_all_that_it_sends():
    by_node = {FIRST: health().counters.astype(np.int64), SECOND: health().counters.astype(np.int64)}
    by_node[SECOND][[SENT + frame.VALUE, SENT_BYTES + frame.VALUE]] = 6, 48
    by_node[SECOND][[SENT + frame.PROOF, SENT_BYTES + frame.PROOF]] = 2, 22
    found = ledger.ledger(SITE, ledger.Spent(by_node, (), ()), Counter(copies=2, copy_bytes=316), 2)["per_node"]
    assert {"node": "n-00-01", "frames": 4, "bytes": (48 + 158 + HEALTH) / 2} == found["hottest"]
    assert (2.5, (24 + 158 + HEALTH) / 2) == (found["frames"], found["bytes"])


def test_every_kind_stands_in_one_layer_and_the_layers_sum_up_to_the_total():
    kinds = {kind: 10 * kind for kind in range(frame.READING, frame.PROOF)}
    at = {SENT + kind: 1 for kind in kinds} | {SENT_BYTES + kind: size for kind, size in kinds.items()}
    traffic = Counter(beacons=1, beacon_bytes=29, waves=1, wave_bytes=158, copies=2, copy_bytes=316)
    found = ledger.ledger(SITE, counted(at=at), traffic, 1)
    layers = found["layers"]
    assert (3, 20 + 30 + 80) == (layers["halo_1"]["frames"], layers["halo_1"]["bytes"])
    assert (1, 40) == (layers["halo_2"]["frames"], layers["halo_2"]["bytes"])
    assert (3, 50 + 60 + 90) == (layers["upward"]["frames"], layers["upward"]["bytes"])
    assert (2 + 1 + 2 + 3, 70 + 100 + 29 + 2 * HEALTH + 3 * 158) == (
        layers["control"]["frames"],
        layers["control"]["bytes"],
    )
    assert {key: sum(layer[key] for layer in layers.values()) for key in found["total"]} == found["total"]
    assert set(found["kinds"]) == {name for names in ledger.LAYERS.values() for name in names}


def test_nodes_of_which_none_answered_have_no_hottest():
    found = ledger.ledger(SITE, ledger.Spent({}, SITE.cells, ()), Counter(), 1)
    assert {"frames": 0, "bytes": 0, "hottest": None} == found["per_node"]


def test_frames_are_told_apart_by_kind_whether_sent_or_taken_in():
    at = {SENT + frame.STATE: 2, SENT_BYTES + frame.STATE: 18, TAKEN + frame.VALUE: 3, TAKEN_BYTES + frame.VALUE: 24}
    counters = counted(at=at | {SENT + frame.BEACON: 1, TAKEN + frame.BEACON: 5, SENT + frame.PROOF: 7}).counters
    assert ((2, 18), (3, 24)) == (ledger.sent_of(counters), ledger.taken_of(counters))
    assert ((0, 0), (2, 18)) == tuple(ledger.sent_of(counters, kinds) for kinds in ((frame.VALUE,), (frame.STATE,)))


def test_the_broker_gets_what_nodes_and_gateway_send_and_delivers_what_they_get():
    """One cycle: what nodes count at MQTT, the gateway's beacon and two words in, reports and health out."""
    at = {MQTT_PACKETS_OUT: 10, MQTT_BYTES_OUT: 1000, MQTT_PACKETS_IN: 20, MQTT_BYTES_IN: 2000}
    traffic = Counter(beacons=1, beacon_bytes=29, reports=1, report_bytes=24, acks=2, ack_bytes=32)
    found = ledger.ledger(SITE, counted(at=at), traffic, 1)["broker"]
    acks = 2 * (16 + len("tm/1/pair/n/n-00-00/down/ack") + 4)
    beacon, report, healths = 29 + CYCLE_TOPIC + 4, 24 + UP_TOPIC + 4, 2 * (HEALTH + HEALTH_TOPIC + 5)
    assert (13, 1000 + beacon + acks) == (found["messages_in"], found["bytes_in"])
    assert (23, 2000 + report + healths) == (found["messages_out"], found["bytes_out"])


def test_raw_gather_is_a_reading_a_node_with_the_same_control_traffic():
    control = ledger.control(counted(), Counter(beacons=2, beacon_bytes=58), 2)
    found = ledger.raw_gather(SITE, {"frames": 2, "bytes": 20}, control)
    assert (2 + 1 + 1, 20 + 29 + HEALTH) == (found["total"]["frames"], found["total"]["bytes"])
    readings, beacon, healths = 2 * (10 + UP_TOPIC + 4), 29 + CYCLE_TOPIC + 4, HEALTH + HEALTH_TOPIC + 5
    assert {
        "messages_in": 4,
        "bytes_in": readings + beacon + healths,
        "messages_out": 5,
        "bytes_out": readings + 2 * beacon + healths,
    } == found["broker"]


def test_on_the_air_a_frame_costs_21_bytes_more_and_a_long_one_as_many_as_it_takes():
    at = {SENT + frame.READING: 2, SENT_BYTES + frame.READING: 20}
    found = ledger.ledger(SITE, counted(1, at), Counter(), 1)["total"]
    assert 112 * 2 < HEALTH <= 112 * 3
    assert 20 + HEALTH + 21 * (2 + 3) == found["bytes_on_air"]


def test_proofs_stand_beside_the_bill_and_in_no_sum():
    proofs = {SENT + frame.PROOF: 2, SENT_BYTES + frame.PROOF: 22}
    said = {SENT + frame.STATE: 1, SENT_BYTES + frame.STATE: 9}
    sent = {MQTT_PACKETS_OUT: 10, MQTT_BYTES_OUT: 1000}
    packets = {MQTT_PACKETS_OUT: 12, MQTT_BYTES_OUT: 1000 + 22 + 2 * (UP_TOPIC + 4)}
    traffic = Counter(states=1, state_bytes=9, proofs=2, proof_bytes=22)
    with_proofs = ledger.ledger(SITE, counted(at=proofs | said | packets), traffic, 1)
    without = ledger.ledger(SITE, counted(at=said | sent), Counter(states=1, state_bytes=9), 1)
    assert {"frames": 2, "bytes": 22} == with_proofs.pop("proof")
    assert {"frames": 0, "bytes": 0} == without.pop("proof")
    assert without == with_proofs
    assert 1 + 2 == without["broker"]["messages_out"]


def test_a_packet_of_128_bytes_and_more_needs_a_second_byte_for_its_length():
    short, long = (ledger._on_mqtt("t", 1, size) for size in (124, 125))
    assert (124 + 5, 125 + 6) == (short, long)


def test_faults_that_did_not_happen_are_left_out():
    assert {"deadline": 3} == ledger.faults(counted(at={DEADLINE: 3}).counters)


def test_the_brokers_deliveries_hold_the_wave_and_what_nodes_say_of_it():
    traffic = {"beacons": 0, "beacon_bytes": 0, "reports": 0, "report_bytes": 0}
    counted = ledger.Spent({}, (), ())
    wave = {"waves": 2, "wave_bytes": 850, "holdings": 3, "holding_bytes": 42}
    bill = ledger.ledger(SITE, counted, traffic | wave, 1)
    assert (2, 3) == (bill["broker"]["messages_in"], bill["broker"]["messages_out"])
    assert bill["broker"]["bytes_in"] == 850 + 2 * (3 + 2 + WAVE_TOPIC)
    assert bill["broker"]["bytes_out"] == 42 + 3 * (2 + 2 + UP_TOPIC)
