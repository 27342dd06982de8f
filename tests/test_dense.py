"""The dense layers as training sees them."""

import numpy as np
import pytest

from gateway.dense import Standard, first_layers, folded, head_inputs, standard_of, unfolded
from gateway.head import HeadRunner
from gateway.model import SPECS

SPECS_BY_NAME = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
BLOCKS = 6


def random_features(spec, rng, count=40):
    return rng.integers(-1, 256, (count, BLOCKS * spec.channels)).astype(np.int16)


def random_standard(inputs_len, rng):
    return Standard(rng.random(inputs_len, np.float32), rng.random(inputs_len, np.float32) + np.float32(0.5))


@SPECS_BY_NAME
def test_a_folded_head_takes_raw_features_to_the_same_logits(seed, spec):
    rng = np.random.default_rng(seed)
    raw = random_features(spec, rng)
    inputs = head_inputs(spec, raw)
    standard = random_standard(inputs.shape[1], rng)
    layers = first_layers(spec, inputs.shape[1], rng)
    values = (inputs - standard.centre) / standard.scale
    for weights, bias in layers[:-1]:
        values = np.maximum(values @ weights + bias, 0)
    head = folded(layers, standard, 7)
    assert 7 == head.revision
    np.testing.assert_allclose(HeadRunner(spec, head).logits(raw), values @ layers[-1][0] + layers[-1][1], atol=1e-4)


@SPECS_BY_NAME
def test_unfolding_undoes_folding(seed, spec):
    rng = np.random.default_rng(seed)
    inputs_len = head_inputs(spec, random_features(spec, rng)).shape[1]
    standard, layers = random_standard(inputs_len, rng), first_layers(spec, inputs_len, rng)
    for before, after in zip(layers, unfolded(folded(layers, standard, 1), standard), strict=True):
        for expected, found in zip(before, after, strict=True):
            assert np.float32 == found.dtype
            np.testing.assert_allclose(found, expected, atol=1e-5)


@SPECS_BY_NAME
def test_every_channel_has_one_centre_and_one_scale(seed, spec):
    rng = np.random.default_rng(seed)
    inputs = head_inputs(spec, random_features(spec, rng))
    standard = standard_of(spec, inputs)
    for channel in range(spec.channels):
        of_channel = slice(channel, BLOCKS * spec.channels, spec.channels)
        weight = np.sqrt(BLOCKS) if spec.appends_maximum else 1
        assert standard.centre[of_channel] == pytest.approx(inputs[:, of_channel].mean())
        assert standard.scale[of_channel] == pytest.approx(weight * inputs[:, of_channel].std(), rel=1e-5)


def test_an_appended_maximum_is_standardised_on_its_own(seed):
    spec, rng = SPECS["lean"], np.random.default_rng(seed)
    inputs = head_inputs(spec, random_features(spec, rng))
    standard = standard_of(spec, inputs)
    assert (BLOCKS + 1,) == standard.scale.shape
    assert np.array_equal(inputs[:, :-1].max(axis=1), inputs[:, -1])
    assert inputs[:, -1].mean() == pytest.approx(standard.centre[-1])
    assert inputs[:, -1].std() == pytest.approx(standard.scale[-1])


@SPECS_BY_NAME
def test_a_channel_that_never_changes_is_only_centred(spec):
    inputs = head_inputs(spec, np.full((9, BLOCKS * spec.channels), 51, np.int16))
    standard = standard_of(spec, inputs)
    assert np.all(standard.scale == 1)
    assert standard.centre == pytest.approx(0.2)


@SPECS_BY_NAME
def test_first_layers_treat_every_block_alike(seed, spec):
    inputs_len = BLOCKS * spec.channels + spec.appends_maximum
    (weights, bias), *_ = first_layers(spec, inputs_len, np.random.default_rng(seed))
    by_block = weights[: BLOCKS * spec.channels].reshape(BLOCKS, spec.channels, -1)
    assert np.all(by_block == by_block[0])
    assert not bias.any()
    assert weights.any()
