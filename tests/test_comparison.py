"""The mesh beside its alternatives: the same control traffic for all, relayed where frames go hop by hop."""

from collections import Counter

import numpy as np
import pytest

from gateway import ledger
from gateway.comparison import comparison
from gateway.site import site_of_cells
from protocol import frame
from protocol.health import COUNTERS, SENT, SENT_BYTES, TAKEN, TAKEN_BYTES

# Three in a row, the first next to the gateway: one, two and three hops.
SITE = site_of_cells("chain", {(0, 0), (0, 1), (0, 2)})
NEAR, MIDDLE, FAR = SITE.cells
HEALTH = 4 * COUNTERS
HEALTH_FRAMES = 3
READINGS = np.full((2, 1, 3), 2000, np.int16)


def counters(sent=None, taken=None):
    """A node's, by kind: (frames, bytes)."""
    found = np.zeros(COUNTERS, np.int64)
    for place, size_place, kinds in ((SENT, SENT_BYTES, sent), (TAKEN, TAKEN_BYTES, taken)):
        for kind, (frames, size) in (kinds or {}).items():
            found[[place + kind, size_place + kind]] = frames, size
    return found


def compared(by_node=None, **traffic):
    """Two cycles with one beacon of 43 bytes each, and a health message of each node."""
    spent = ledger.Spent({cell: counters() for cell in SITE.cells} | (by_node or {}), (), ())
    traffic = Counter({"beacons": 2, "beacon_bytes": 86} | traffic)
    found = comparison(SITE, spent, traffic, 2, READINGS, np.ones(READINGS.shape, np.bool_))
    return found, ledger.ledger(SITE, spent, traffic, 2)


def test_in_the_star_the_mesh_costs_what_the_ledger_counted():
    sent = {frame.VALUE: (4, 32), frame.STATE: (1, 9), frame.FILTERS: (2, 28), frame.PROOF: (2, 22)}
    found, bill = compared({MIDDLE: counters(sent)}, holdings=1, waves=1, wave_bytes=158, copies=3, copy_bytes=474)
    star, total = found["mesh"]["star"], bill["total"]
    assert (total["bytes"], total["bytes_on_air"]) == (star["bytes"], star["bytes_on_air"])
    frames = 2 + 4 + 1 + 2 + 2 * (1 + 3) + 3 * HEALTH_FRAMES  # a filter set takes two frames on the air
    assert frames / 2 == star["frames"]
    assert {"node": "n-00-01", "frames": (7 + 2 + HEALTH_FRAMES) / 2} == star["hottest"]


def test_in_the_tree_relays_repeat_beacons_and_hand_on_health_messages():
    """The gateway and two relays send the beacon, the health messages take one, two and three hops."""
    found, _ = compared()
    tree = found["mesh"]["tree"]
    assert ((3 * 2 + 6 * HEALTH_FRAMES) / 2, (3 * 86 + 6 * HEALTH) / 2) == (tree["frames"], tree["bytes"])
    assert {"node": "n-00-00", "frames": (2 + 3 * HEALTH_FRAMES) / 2} == tree["hottest"]


def test_in_the_tree_what_goes_up_takes_as_many_frames_as_hops_and_what_neighbours_say_one():
    silent = compared()[0]["mesh"]["tree"]
    for kind, size, hops in ((frame.STATE, 9, 3), (frame.REPORT, 24, 3), (frame.VALUE, 8, 1), (frame.MEMBER, 14, 1)):
        spoken = compared({FAR: counters({kind: (2, 2 * size)})})[0]["mesh"]["tree"]
        assert (hops, hops * size) == (spoken["frames"] - silent["frames"], spoken["bytes"] - silent["bytes"])


def test_of_word_of_filters_as_much_goes_up_as_the_gateway_heard():
    silent = compared()[0]["mesh"]["tree"]
    spoken = compared({FAR: counters({frame.FILTERS: (4, 56)})}, holdings=2)[0]["mesh"]["tree"]
    assert (4 + 2 * 2, 56 + 2 * 28) == (
        2 * (spoken["frames"] - silent["frames"]),
        2 * (spoken["bytes"] - silent["bytes"]),
    )


def test_alternatives_carry_the_same_control_traffic_as_a_silent_mesh():
    found, _ = compared()
    for topology, frames, size in (("star", 3, 30), ("tree", 6, 60)):
        mesh, raw = found["mesh"][topology], found["alternatives"]["raw_gather"][topology]
        assert (frames, size) == (raw["frames"] - mesh["frames"], raw["bytes"] - mesh["bytes"])
        assert size + 21 * frames == pytest.approx(raw["bytes_on_air"] - mesh["bytes_on_air"])


def test_filter_sets_burden_the_mesh_alone():
    without, _ = compared()
    found, _ = compared(waves=1, wave_bytes=100, copies=3, copy_bytes=300)
    assert without["alternatives"] == found["alternatives"]
    for topology in ("star", "tree"):
        assert 4 / 2 == found["mesh"][topology]["frames"] - without["mesh"][topology]["frames"]


def test_raw_readings_have_the_brokers_share_too():
    found, _ = compared()
    star = found["alternatives"]["raw_gather"]["star"]
    assert star["bytes_on_air"] == found["raw_gather"]["total"]["bytes_on_air"]
    assert 3 + 3 * 1 + 3 / 2 == found["raw_gather"]["broker"]["messages_out"]


def test_a_node_that_nobody_counted_sends_nothing_in_the_mesh():
    spent = ledger.Spent({NEAR: counters({frame.VALUE: (2, 16)})}, (MIDDLE, FAR), ())
    found = comparison(SITE, spent, Counter(), 2, READINGS, np.ones(READINGS.shape, np.bool_))
    assert (2 + HEALTH_FRAMES) / 2 == found["mesh"]["star"]["frames"]


def test_energy_tells_the_mean_node_from_the_hottest_for_mesh_and_alternatives():
    heard = {frame.VALUE: (2, 16), frame.BEACON: (2, 86)}
    found = compared({FAR: counters({frame.VALUE: (2, 16)}), MIDDLE: counters(taken=heard)})[0]["energy"]
    assert {"nrf52840": "tree", "esp32_espnow": "star", "esp32_wifi": "star"} == {
        board: nodes["topology"] for board, nodes in found.items()
    }
    nrf = found["nrf52840"]
    assert nrf["raw_gather"]["mean"]["transmit"] < nrf["raw_gather"]["hottest"]["transmit"]
    assert nrf["raw_gather"]["mean"]["beacon"] == nrf["mesh"]["hottest"]["beacon"] > 0
    listen = nrf["mesh"]["mean"]["listen"]
    # One word a cycle, said by one node of three and heard by another.
    assert 2 / 3 * listen < nrf["mesh_wake_tone"]["mean"]["listen"] < 0.7 * listen
    assert 0 == nrf["raw_gather"]["mean"]["listen"] < nrf["mesh"]["mean"]["receive"]
    assert "mesh_wake_tone" not in found["esp32_espnow"]
