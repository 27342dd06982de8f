"""Labelled cycles: taken from what nodes reported, computed to features, parted in time."""

import numpy as np
import pytest

from gateway import twin
from gateway.cycles import Record
from gateway.model import SPECS
from gateway.rule import abnormal
from gateway.samples import Samples, features_of, samples_of, split_latest
from gateway.site import site_of_cells
from gateway.start_weights import start_filters

SITE = site_of_cells("small", {(row, col) for row in range(3) for col in range(4)} - {(1, 2)})


def random_samples(rng, count):
    readings_ccel = rng.integers(2000, 2400, (count, SITE.rows, SITE.cols)).astype(np.int16)
    present = SITE.mask & (rng.random(readings_ccel.shape) < 0.8)
    return Samples(readings_ccel, present, abnormal(readings_ccel, present))


def numbered(count):
    """Samples whose readings are their number."""
    readings_ccel = np.broadcast_to(np.arange(count, dtype=np.int16)[:, np.newaxis, np.newaxis], (count, 3, 4))
    return Samples(readings_ccel, np.ones(readings_ccel.shape, np.bool_), np.zeros(count, np.bool_))


def numbers(samples):
    return samples.readings_ccel[:, 0, 0].tolist()


def record_of(readings_ccel, has_reading):
    absence = np.zeros((2, *has_reading.shape), np.uint8)
    features = np.full((*SITE.block_shape, 5), -1, np.int16)
    carried = np.zeros(SITE.block_shape, np.bool_)
    return Record(1, features, readings_ccel, has_reading, has_reading, absence, ~has_reading, late=0, carried=carried)


def test_records_become_samples_with_the_rules_labels_and_those_without_a_reading_are_left_out(seed):
    expected = random_samples(np.random.default_rng(seed), 30)
    records = [record_of(*arrays) for arrays in zip(expected.readings_ccel, expected.present, strict=True)]
    records.insert(5, record_of(expected.readings_ccel[0], np.zeros(SITE.mask.shape, np.bool_)))
    found = samples_of(records)
    assert 0 < expected.abnormal.sum() < 30
    for wanted, got in zip(expected, found, strict=True):
        assert np.array_equal(wanted, got)


def test_records_without_any_reading_are_refused():
    silent = record_of(np.zeros((3, 4), np.int16), np.zeros((3, 4), np.bool_))
    with pytest.raises(ValueError, match="records: none of 2 has a reading"):
        samples_of([silent, silent])


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_features_are_the_twins_flat_and_none_for_no_cycles(seed, spec):
    samples, filters = random_samples(np.random.default_rng(seed), 7), start_filters(spec, 2200)
    features = features_of(samples, filters, SITE)
    by_block = twin.features(filters, samples.readings_ccel, samples.present, SITE)
    assert (7, 4 * spec.channels) == features.shape
    assert np.array_equal(by_block.ravel(), features.ravel())
    assert (0, 4 * spec.channels) == features_of(samples.part(slice(0)), filters, SITE).shape


@pytest.mark.parametrize(("count", "share", "later"), [(8, 0.25, [6, 7]), (2, 0.01, [1]), (3, 0.99, [1, 2])])
def test_the_latest_are_held_out_and_both_parts_get_one_at_least(count, share, later):
    earlier, held_out = split_latest(numbered(count), share)
    assert later == numbers(held_out)
    assert list(range(later[0])) == numbers(earlier)


def test_one_cycle_cannot_be_parted():
    with pytest.raises(ValueError, match="samples: there are 1; "):
        split_latest(numbered(1), 0.5)


@pytest.mark.parametrize("share", [0, 1, -0.5, float("nan")])
def test_a_share_that_leaves_a_part_empty_is_refused(share):
    with pytest.raises(ValueError, match=r"held_out: .* is not between 0 and 1"):
        split_latest(numbered(8), share)
