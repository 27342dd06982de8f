"""Decisions: threshold, hysteresis and where, on heads small enough to work out by hand."""

import math

import numpy as np
import pytest

from gateway import decision
from gateway.decision import Limits, State
from gateway.head import HeadRunner
from gateway.model import SPECS, Head

# A lean site of 2 x 3 blocks.
BLOCKS = (2, 3)


def lean_runner(weights, bias=0.0):
    """A head whose log-odds of abnormal are weights . features / 255 + bias; the last weight is the maximum's."""
    column = np.array(weights, np.float32)
    layer = np.column_stack([np.zeros_like(column), column]), np.array([0, bias], np.float32)
    return HeadRunner(SPECS["lean"], Head(1, (layer,)))


def features(*values):
    return np.array(values, np.int16).reshape(*BLOCKS, 1)


def log_odds(score):
    return math.log(score / (1 - score))


def decide(score, was_abnormal, limits=decision.LIMITS_DEFAULT):
    """Whether a cycle of this score is decided to be abnormal."""
    runner = lean_runner([0] * 7, log_odds(score))
    state, decided = decision.update(State(was_abnormal), features(*[0] * 6), runner, limits)
    assert state.abnormal == decided.abnormal
    assert decided.scores == pytest.approx((1 - score, score), abs=1e-5)
    return decided.abnormal


def test_a_site_starts_normal():
    assert State(abnormal=False) == decision.init()


def test_the_threshold_is_a_half_and_the_band_a_tenth():
    assert (0.5, 0.1) == decision.LIMITS_DEFAULT


@pytest.mark.parametrize(
    ("score", "was_abnormal", "abnormal"),
    [
        (0.551, False, True),
        (0.549, False, False),
        (0.451, True, True),
        (0.449, True, False),
        (0.5, False, False),
        (0.5, True, True),
        (0.999, True, True),
        (0.001, False, False),
    ],
)
def test_a_decision_turns_only_at_the_far_edge_of_the_band(score, was_abnormal, abnormal):
    assert abnormal == decide(score, was_abnormal)


def test_without_a_band_the_threshold_alone_decides():
    limits = Limits(threshold=0.3, band=0)
    for was_abnormal in (False, True):
        assert decide(0.301, was_abnormal, limits)
        assert not decide(0.299, was_abnormal, limits)


def test_a_score_that_reaches_the_upper_edge_turns():
    assert decide(0.5, False, Limits(threshold=0.5, band=0))


def test_a_score_that_wanders_within_the_band_never_flickers(seed):
    rng = np.random.default_rng(seed)
    for was_abnormal in (False, True):
        assert {was_abnormal} == {decide(score, was_abnormal) for score in rng.uniform(0.451, 0.549, 20)}


def test_where_is_the_loudest_block_of_those_that_speak_for_abnormal():
    runner = lean_runner([-1, 1, 1, 1, 1, 1, 0])
    decided = decision.update(decision.init(), features(255, 0, 100, 140, 0, 139), runner)[1]
    assert decided.abnormal
    assert (1, 0) == decided.where


def test_where_is_the_loudest_block_if_the_head_learned_nothing_from_any():
    assert (0, 1) == decision.locate(features(20, 90, 0, -1, 80, 0), lean_runner([0] * 7))


def test_where_is_found_though_the_scores_saturate():
    runner = lean_runner([100] * 6 + [0])
    cycle = features(200, 201, *[200] * 4)
    assert 1.0 == runner.scores(cycle.ravel())[0, 1]
    assert (0, 1) == decision.update(decision.init(), cycle, runner)[1].where


def test_of_equal_blocks_the_first_in_reading_order_is_where():
    runner = lean_runner([1] * 6 + [0], 5)
    assert (0, 1) == decision.locate(features(-1, 90, 0, 90, 90, 0), runner)


def test_where_takes_the_maximum_over_the_site_into_account():
    runner = lean_runner([0] * 6 + [8])
    assert (0, 2) == decision.locate(features(10, 200, 201, 0, 0, 50), runner)


def test_the_strongest_channel_speaks_first_of_the_blocks_that_speak_for_abnormal(seed):
    rng = np.random.default_rng(seed)
    spec, cycle = SPECS["seed"], rng.integers(-1, 256, (3, 4, 5)).astype(np.int16)
    widths = ((60, 200), (200, 2))
    layers = tuple((rng.normal(0, 1, w).astype(np.float32), rng.normal(0, 1, w[1]).astype(np.float32)) for w in widths)
    runner = HeadRunner(spec, Head(1, layers))
    loud = {}
    for row, col in np.ndindex(3, 4):
        alone = np.zeros_like(cycle)
        alone[row, col] = cycle[row, col]
        of_block, of_silence = (runner.logits(each.ravel())[0] for each in (alone, np.zeros_like(cycle)))
        if of_block[1] - of_block[0] > of_silence[1] - of_silence[0]:
            loud[row, col] = sorted(cycle[row, col].tolist(), reverse=True)
    assert max(loud, key=loud.get) == decision.locate(cycle, runner)


def test_between_blocks_with_the_same_strongest_channel_the_next_one_tells():
    cycle = np.array([[[255, 40, 90], [80, 255, 89], [255, 0, 91]]], np.int16)
    assert (0, 2) == decision.locate(cycle, lean_runner([1] * 9 + [0]))


def test_a_large_site_is_searched_to_its_last_block():
    cycle = np.full((30, 30, 1), 1, np.int16)
    cycle[29, 28] = 255
    weights = np.array([[0, 1]] * 901, np.float32)
    runner = HeadRunner(SPECS["lean"], Head(1, ((weights, np.zeros(2, np.float32)),)))
    assert (29, 28) == decision.locate(cycle, runner)


def test_a_normal_cycle_is_nowhere_and_so_is_one_in_which_no_block_noticed_anything():
    assert decision.update(decision.init(), features(9, 0, 0, 0, 0, 0), lean_runner([1] * 7, -9))[1].where is None
    decided = decision.update(decision.init(), features(0, -1, 0, 0, 0, 0), lean_runner([1] * 7, 9))[1]
    assert (True, None) == (decided.abnormal, decided.where)


def test_deciding_changes_no_features():
    cycle = features(200, -1, 100, 40, 0, 199)
    before = cycle.copy()
    decision.update(decision.init(), cycle, lean_runner([1] * 7))
    assert np.array_equal(before, cycle)


@pytest.mark.parametrize(
    ("limits", "line"),
    [
        (Limits(1.0, 0), "threshold: 1.0 with band 0 does not lie between 0 and 1"),
        (Limits(0.96, 0.1), "threshold: 0.96 with band 0.1 does not lie"),
        (Limits(0.05, 0.1), "threshold: 0.05 with band 0.1 does not lie"),
        (Limits(math.nan, 0.1), "threshold: nan"),
        (Limits(0.5, -0.1), "band: -0.1 is negative"),
        (Limits(0.5, math.nan), "band: nan"),
    ],
)
def test_limits_that_no_score_could_cross_are_refused(limits, line):
    with pytest.raises(ValueError, match=line):
        decision.check_limits(limits)


def test_limits_that_can_be_crossed_pass():
    assert Limits(0.9, 0.1) == decision.check_limits(Limits(0.9, 0.1))
