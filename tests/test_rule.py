"""The site's rule (gateway/rule.py, R0-13), against a rule written out pair by pair."""

import numpy as np

from gateway.rule import ABNORMAL_CCEL, abnormal, largest_difference

ALL = np.ones((2, 2), np.bool_)


def field(*rows):
    return np.array(rows, np.int16)


def pairs(readings, present):
    """Every up/down/left/right pair with two readings, and how much it differs, in plain Python."""
    rows, cols = readings.shape
    for row in range(rows):
        for col in range(cols):
            for other in ((row + 1, col), (row, col + 1)):
                if other[0] < rows and other[1] < cols and present[row, col] and present[other]:
                    yield abs(int(readings[row, col]) - int(readings[other])), (row, col), other


def random_fields(seed):
    rng = np.random.default_rng(seed)
    for _ in range(200):
        shape = rng.integers(1, 6, 2)
        yield rng.integers(1900, 2300, shape).astype(np.int16), rng.random(shape) < 0.8


def test_three_degrees_are_abnormal_and_a_hundredth_less_is_not():
    assert 300 == ABNORMAL_CCEL
    assert not abnormal(field([2000, 2299], [2000, 2299]), ALL)
    assert abnormal(field([2000, 2300], [2150, 2150]), ALL)
    assert abnormal(field([2000, 2150], [2300, 2150]), ALL)


def test_diagonal_neighbours_do_not_count():
    assert not abnormal(field([2000, 2200], [2200, 2400]), ALL)


def test_a_pair_counts_only_when_both_have_a_reading():
    hot_corner = field([2000, 2500], [2000, 2000])
    assert abnormal(hot_corner, ALL)
    assert not abnormal(hot_corner, np.array([[True, False], [True, True]]))


def test_the_whole_range_of_readings_differs_without_wrapping():
    extremes = field([-32768, 32767])
    assert abnormal(extremes, np.ones((1, 2), np.bool_))
    assert (65535, (0, 0), (0, 1)) == largest_difference(extremes, np.ones((1, 2), np.bool_))


def test_the_rule_is_the_rule_pair_by_pair(seed):
    for readings, present in random_fields(seed):
        expected = any(difference >= ABNORMAL_CCEL for difference, _, _ in pairs(readings, present))
        assert expected == abnormal(readings, present)


def test_many_fields_are_judged_like_each_alone(seed):
    readings = np.random.default_rng(seed).integers(1900, 2250, (50, 3, 3)).astype(np.int16)
    mask = np.array([[True, True, False], [True, True, True], [False, True, True]])
    alone = [bool(abnormal(one, mask)) for one in readings]
    assert {True, False} == set(alone)
    assert alone == abnormal(readings, mask).tolist()
    assert alone == abnormal(readings.reshape(5, 10, 3, 3), mask).ravel().tolist()


def test_the_largest_difference_is_the_largest_of_all_pairs(seed):
    for readings, present in random_fields(seed):
        expected = list(pairs(readings, present))
        found = largest_difference(readings, present)
        if not expected:
            assert found is None
        else:
            assert max(difference for difference, _, _ in expected) == found.difference_ccel
            assert tuple(found) in expected


def test_a_field_without_pairs_is_normal_and_has_no_largest_difference():
    for shape in ((1, 1), (1, 2), (2, 2)):
        lonely = np.zeros(shape, np.bool_)
        lonely[0, 0] = True
        assert not abnormal(np.zeros(shape, np.int16), lonely)
        assert largest_difference(np.zeros(shape, np.int16), lonely) is None
