"""Announced limits: silence changes no activation, and a limit that is one off is found."""

from dataclasses import replace

import numpy as np
import pytest
from test_change import PAIR, random_room
from test_twin import random_filters

from gateway import twin
from gateway.model import SPECS, Filters, NodeLayer
from gateway.start_weights import start_filters
from sim import announced
from sim.announced import LIMIT_MAX, simulate, sizes
from sim.zones import UNBOUNDED, Limits

ROUNDS = 25
LEAN = SPECS["lean"]
# One channel: by how much E is warmer than C, in steps of 64 ccel, rounded half up.
STEP = NodeLayer("conv3x3", 1, 1, 6, np.array([0], np.int32), np.array([[[0, 0, 0, 0, -1, 1, 0, 0, 0]]], np.int8))
WARMER = Filters(1, 2200, (STEP,))


def run(rows, share):
    """A pair over cycles, as lists of two readings; 0 for none."""
    readings = np.array(rows, np.int16)[:, np.newaxis]
    return simulate(WARMER, readings, readings > 0, PAIR, share)


def random_lean(rng, taps=range(9)):
    """Random filters whose first layer looks at these taps only."""
    filters = random_filters(LEAN, rng)
    weights = filters.layers[0].weights.copy()
    weights[..., [tap for tap in range(9) if tap not in taps]] = 0
    return replace(filters, layers=(replace(filters.layers[0], weights=weights), *filters.layers[1:]))


@pytest.mark.parametrize("share", [1.0, 0.5, None], ids=["in full", "half", "known without"])
def test_after_every_cycle_activations_by_the_view_are_those_by_the_readings(seed, share):
    rng, silent = np.random.default_rng(seed), 0
    for _ in range(ROUNDS):
        readings, present, site = random_room(rng, cycles=30)
        filters = random_lean(rng, range(9) if share else (4, 5, 7, 8))
        silence = simulate(filters, readings, present, site, share)
        here = present & site.mask
        by_view, by_readings = (
            twin.activations(filters, each, present, site) for each in (silence.heard.view_ccel, readings)
        )
        assert np.array_equal(by_readings[here], by_view[here])
        assert not silence.heard.said[:, ~site.mask].any()
        silent += (here & ~silence.heard.said)[1:].sum()
        assert (share is None) == (not silence.announced.any())
    assert silent > 1_000


@pytest.mark.parametrize("share", [1.0, None], ids=["in full", "known without"])
def test_a_limit_that_is_one_too_wide_is_found(seed, share, monkeypatch):
    right = announced.Units.limits

    def wider(units, taps):
        limits = right(units, taps)
        return Limits(limits.rise + 1, limits.fall + 1)

    monkeypatch.setattr(announced.Units, "limits", wider)
    monkeypatch.setattr(announced, "STEP_CCEL", 1)
    rng = np.random.default_rng(seed)
    rooms = [random_room(rng) for _ in range(ROUNDS)]
    filters = [random_lean(rng, (4, 5)) for _ in rooms]
    with pytest.raises(ArithmeticError, match=r"cycle \d+: activations by the view"):
        [simulate(each, *room, share) for each, room in zip(filters, rooms, strict=True)]


def test_at_zero_only_the_way_to_the_next_activation_is_limited():
    """It begins where E is 32 ccel warmer than C, so from equal readings each may go 15 towards it: 14, in a byte."""
    silence = run([[2200, 2200], [2900, 1500], [2186, 2214], [2186, 2215]], 1.0)
    # The last word leaves the other one 8 only, by what its own unit announces, and it is 14 away.
    assert ([2, 0, 0, 2], [2, 0, 0, 1]) == (
        silence.heard.said.sum(axis=(1, 2)).tolist(),
        silence.announced.tolist(),
    )


def test_above_zero_both_ways_are_limited():
    """An activation of 1 is 32 to 95 ccel: at 35 E may fall by 1, and at 33, where it stands then, rise by 31."""
    silence = run([[2200, 2235], [2200, 2234], [2200, 2233], [2200, 2233], [2200, 2264], [2200, 2265]], None)
    assert [True, False, True, False, False, True] == silence.heard.said[:, 0, 1].tolist()
    assert not silence.heard.said[1:, 0, 0].any()


def test_a_node_that_loses_or_regains_its_reading_says_so_and_announces_nothing_meanwhile():
    silence = run([[2200, 2200], [0, 2200], [0, 2200], [2200, 2200], [2200, 0], [0, 0], [0, 2900]], 1.0)
    first, second = silence.heard.said[:, 0].T.tolist()
    assert [True, True, False, True, False, True, False] == first
    assert [True, False, False, False, True, False, True] == second
    assert 2 == silence.announced[0] == silence.announced.sum()


def test_news_of_narrower_limits_reach_who_did_not_move():
    silence = run([[2200, 2200], [2200, 2216], [2207, 2216], [2193, 2216]], 1.0)
    assert [[True, True], [False, True], [False, False], [True, False]] == silence.heard.said[:, 0].tolist()
    assert [1, 0] == silence.announced[1:3].tolist()


def test_a_byte_says_no_more_than_the_limit_and_never_more_than_it_can(seed):
    limits = Limits(*np.random.default_rng(seed).integers(0, 600, (2, 1, 30, 30)))
    for share in (1.0, 0.5):
        told = announced._byte(limits, share)
        assert (told.rise <= limits.rise * share).all()
        assert (told.fall <= limits.fall * share).all()
        assert {0, LIMIT_MAX} <= set(told.rise.ravel().tolist())
        assert not (told.rise % 2).any()
    free = announced._byte(Limits(limits.rise, np.full_like(limits.rise, UNBOUNDED)), 1.0)
    assert (free.fall == UNBOUNDED).all()


def test_filters_whose_members_do_not_all_hear_each_other_need_announcements(seed):
    rng = np.random.default_rng(seed)
    readings, present, site = random_room(rng, cycles=2)
    with pytest.raises(ValueError, match="share: is None, but taps"):
        simulate(random_lean(rng), readings, present, site, None)
    with pytest.raises(ValueError, match="layers conv3x3, conv3x3; only"):
        simulate(start_filters(SPECS["seed"]), readings, present, site, 1.0)
    simulate(start_filters(LEAN), readings, present, site, None)


def test_a_channel_that_reaches_nothing_costs_no_byte():
    assert ((8 + 4, 6 + 4), (8, 6)) == tuple(sizes(start_filters(LEAN), PAIR, share) for share in (1.0, None))
