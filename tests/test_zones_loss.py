"""Mode event under loss: what goes wrong, for how long, and what mends it."""

import numpy as np
import pytest
from sign_layers import random_sign_layer
from test_zone import Rule, stored
from test_zones import random_room

from firmware import zone
from firmware.quiet import GONE, HEARTBEAT
from gateway.model import Filters, NodeLayer
from gateway.site import site_of_cells
from sim import zones, zones_loss
from sim.zones_faults import NEVER, Faults, Links, deaths
from sim.zones_loss import Policy, simulate

ROUNDS = 40
CORNER_TAPS = [4, 5, 7, 8]
# E - C >= 300.
_WEIGHTS = np.array([[[0, 0, 0, 0, -100, 100, 0, 0, 0]]], np.int8)
WARMER = Filters(1, 2200, (NodeLayer("conv3x3", 1, 1, 0, np.array([-30_000], np.int32), _WEIGHTS, "sign"),))
PAIR = site_of_cells("pair", {(0, 0), (0, 1)})
SQUARE = site_of_cells("square", set(np.ndindex(2, 2)))


NOTHING = Faults()
USUAL = Policy()


def run(readings, site=PAIR, policy=USUAL, faults=NOTHING):
    """Rows of one reading a node, in cells' order, one row a cycle."""
    rows = np.array(readings, np.int16).reshape(-1, *site.mask.shape)
    return simulate(WARMER, rows, np.ones(rows.shape, np.bool_), site, policy, faults)


@pytest.fixture
def lose(monkeypatch):
    """Lose what is sent at these places: (cycle, how many times somebody sent something before in this cycle)."""

    class Scripted(Links):
        places = ()

        def start_cycle(self, cycle):
            self.at = [cycle, -1]

        def lost(self, copies):
            self.at[1] += 1
            return np.full((len(self._bad), 9), tuple(self.at) in self.places)

    monkeypatch.setattr(zones_loss, "Links", Scripted)
    return lambda *places: setattr(Scripted, "places", places)


def test_without_loss_the_same_nodes_speak_and_the_same_states_are_found_as_in_sim_zones(seed):
    rng = np.random.default_rng(seed)
    for _ in range(ROUNDS):
        room = random_room(rng)
        expected = zones.simulate(*room)
        for policy in (Policy(heartbeat=0, challenge=0), Policy(heartbeat=0, again=1, learns=True)):
            found = simulate(*room, policy, Faults(seed=seed))
            assert expected.broadcasts.tolist() == found.values.tolist()
            assert np.array_equal(expected.states, found.states)
            assert np.array_equal(expected.states, found.expected)
            assert np.array_equal(expected.states.any(axis=(1, 2)), found.answers)
            assert np.array_equal(expected.upward.sum(axis=(1, 2)), found.upward)


def test_nodes_work_out_the_limits_that_firmware_works_out(seed):
    rng = np.random.default_rng(seed)
    for _ in range(ROUNDS):
        layer = random_sign_layer(rng, int(rng.integers(1, 6)), (-20_000, 60_000))
        view, there = rng.integers(-2_000, 2_000, (20, 9)), rng.random((20, 9)) < 0.7
        there[:, 4] = True
        taps = layer.weights[:, 0, CORNER_TAPS].astype(np.int64)
        rise, fall, abnormal = zones_loss.limits(taps, layer.bias.astype(np.int64), view, there)
        weights, bias = stored(Rule(taps.tolist(), layer.bias.tolist()))
        for node in range(20):
            out = np.zeros(zone.RESULTS, np.uint16)
            bits = sum(1 << tap for tap in np.flatnonzero(there[node]).tolist())
            zone.limits(out, [int(value) + 2**15 for value in view[node]], bits, weights, bias)
            windows = sum(int(abnormal[node, window]) << window for window in range(4))
            found = (min(rise[node], zone.FAR), min(fall[node], zone.FAR), windows)
            assert tuple(out) == found


# B = (0, 1) cools down to 2000 in silence; A = (0, 0) cools too, until by what B said last the window is abnormal. Then
# B says 2000.
COOLING = [[2200, 2340], [2100, 2000], [2030, 2000]]
B_SAYS_2000 = (2, 1)
# B's phase is 19.
HEARTBEAT_OF_B = HEARTBEAT - 19


def test_a_false_alarm_by_a_lost_word_is_mended_by_a_challenge_and_lasts_until_the_heartbeat_without(lose):
    lose(B_SAYS_2000)
    readings = COOLING + [COOLING[-1]] * 40
    with_it, without = run(readings), run(readings, policy=Policy(challenge=0))
    assert [] == np.flatnonzero(with_it.answers).tolist()
    assert list(range(2, HEARTBEAT_OF_B)) == np.flatnonzero(without.answers).tolist()
    assert not with_it.expected.any()
    # A, B, and B again.
    assert (3, 1) == (with_it.values[2], with_it.challenges[2])
    assert 2 + 4 == run(readings, policy=Policy(answers=4)).values[2]


def test_a_window_that_stays_abnormal_is_challenged_again_if_its_corner_is_told_to(lose):
    lose(B_SAYS_2000, (2, 2))
    readings = COOLING + [COOLING[-1]] * 10
    assert list(range(2, 13)) == np.flatnonzero(run(readings).answers).tolist()
    assert [2] == np.flatnonzero(run(readings, policy=Policy(again=1)).answers).tolist()


def test_what_a_challenge_says_is_learned_by_those_who_are_to_learn(lose):
    """B says 2600, unheard, sees the window turn abnormal and says what it saw; A's own word is right."""
    lose((1, 0))
    readings = [[2200, 2200], [2200, 2600], [2200, 2600]]
    assert [False, False, False] == run(readings).answers.tolist()
    assert [False, True, True] == run(readings, policy=Policy(learns=True)).answers.tolist()


def test_a_challenge_is_made_once_and_by_everybody_only_if_nobody_hears_it(lose):
    readings = [[2200] * 4, [2200, 2600, 2200, 2200]]
    assert [0, 1] == run(readings, SQUARE).challenges.tolist()
    assert [0, 2] == run(readings, SQUARE, Policy(challenge=2)).challenges.tolist()
    # A word that leaves a window abnormal makes no challenge.
    assert [0, 1, 0] == run([*readings, [2200, 2520, 2200, 2200]], SQUARE).challenges.tolist()
    # B's word is heard, the challenges of all four are not.
    lose(*((1, call) for call in range(1, 10)))
    assert [0, 4] == run(readings, SQUARE).challenges.tolist()


def test_a_dead_node_is_given_up_two_heartbeats_after_its_last_word():
    dies = np.array([[NEVER, 40], [NEVER, NEVER]])
    still = [[2200, 2600, 2200, 2200]] * 200
    found = run(still, SQUARE, faults=Faults(dies=dies))
    noticed = HEARTBEAT_OF_B + GONE
    assert [noticed - 40] == found.noticed.tolist()
    assert not found.expected[40:].any()
    assert list(range(noticed)) == np.flatnonzero(found.answers).tolist()
    assert 0 == len(run(still, SQUARE, Policy(heartbeat=0), Faults(dies=dies)).noticed)


def test_a_node_whose_heartbeat_is_due_and_who_has_news_speaks_once():
    found = run([[2200, 2200]] * HEARTBEAT_OF_B + [[2200, 2600]])
    at = HEARTBEAT_OF_B
    assert (1, 0, True) == (found.values[at], found.heartbeats[at], found.answers[at])


def test_a_word_that_makes_a_window_normal_again_is_said_as_often_as_asked(lose):
    readings = [[2200, 2200], [2200, 2600], [2200, 2200], [2200, 2201]]
    assert [2, 1, 1, 0] == run(readings).values.tolist()
    assert [2, 1, 3, 0] == run(readings, policy=Policy(returns=3)).values.tolist()
    lose((2, 0))  # its first copies
    assert [False, True, True, True] == run(readings).answers.tolist()
    assert [False, True, False, False] == run(readings, policy=Policy(returns=3)).answers.tolist()


def test_of_two_windows_that_stay_abnormal_only_the_corner_that_is_in_one_of_them_challenges_again():
    """Nodes in a column stand at the warm side of as many windows, and the upper node of each window is in two."""
    column = site_of_cells("column", set(np.ndindex(3, 2)))
    readings = [[2200] * 6, *[[2200, 2600] * 3] * 5]
    challenges = run(readings, column, Policy(heartbeat=0, again=1)).challenges
    assert [0, 3, 1, 1, 1, 1] == challenges.tolist()


def test_copies_are_paid_for_and_get_through_where_one_would_not(seed):
    rng = np.random.default_rng(seed)
    wrong, frames = {1: 0, 3: 0}, {1: 0, 3: 0}
    for _ in range(ROUNDS):
        room = random_room(rng)
        for copies in wrong:
            found = simulate(*room, Policy(copies, heartbeat=0, challenge=0), Faults(0.2, seed=seed))
            wrong[copies] += (found.states != found.expected).sum()
            frames[copies] += found.values[0]
    assert 3 * frames[1] == frames[3]
    assert 5 * wrong[3] < wrong[1]


@pytest.mark.parametrize(("burst", "outage", "run_length"), [(0, 0, 1 / 0.9), (5, 0, 5), (0, 5, 5)])
def test_links_lose_the_share_and_in_runs_of_the_length_that_they_are_told_to(burst, outage, run_length, seed):
    links, lost = Links(400, Faults(0.1, burst, outage, seed=seed)), []
    for cycle in range(300):
        if outage or not cycle:
            links.start_cycle(cycle + 1)
        lost.append(links.lost(1))
    began = (~np.array(lost[:-1]) & lost[1:]).sum()
    assert 0.1 == pytest.approx(np.mean(lost), rel=0.05)
    assert run_length == pytest.approx(np.sum(lost[1:]) / began, rel=0.1)


def test_a_bit_that_the_gateway_did_not_hear_is_said_again():
    readings = [[2200, 2600]] * 20
    found = run(readings, faults=Faults(upward_loss=0.8, seed=3))
    heard = int(np.argmax(found.answers))
    assert 0 < heard
    assert [1] * (heard + 1) + [0] * (19 - heard) == found.upward.tolist()
    assert found.answers[heard:].all()
    assert (31 * found.values + 36 * found.challenges).tolist() == found.bytes_in_mesh(10).tolist()
    assert (33 * found.upward).tolist() == found.bytes_upward(12).tolist()


def test_as_many_nodes_die_as_are_to_and_when_they_are_to(seed):
    site = site_of_cells("full", set(np.ndindex(20, 20)))
    dies = deaths(site, 0.05, range(7, 9), seed)
    assert ({7, 8, NEVER}, 20) == (set(dies.ravel().tolist()), int((dies != NEVER).sum()))
