"""Filters as numbers to train, and back."""

import numpy as np
import pytest

from gateway.model import SPECS, LayerShape, ModelError, NodeLayer
from gateway.quantise import BIAS_LIMIT, READING_LIMIT, SHIFT_LIMIT, Shares, layer_of, shares_of
from gateway.start_weights import start_filters

ROUNDS = 50


def random_layer(rng):
    channels_in, channels_out = (int(x) for x in rng.integers(1, 17, 2))
    bias = rng.integers(-BIAS_LIMIT, BIAS_LIMIT + 1, channels_out).astype(np.int32)
    weights = rng.integers(-128, 128, (channels_out, channels_in, 9)).astype(np.int8)
    return NodeLayer("conv3x3", channels_in, channels_out, int(rng.integers(1, SHIFT_LIMIT + 1)), bias, weights)


def assert_same(layer, other):
    assert (layer.shape, layer.shift) == (other.shape, other.shift)
    assert np.array_equal(layer.weights, other.weights)
    assert np.array_equal(layer.bias, other.bias)


@pytest.mark.parametrize("spec", SPECS.values(), ids=lambda spec: spec.name)
def test_the_start_filters_come_back_to_the_bit(spec):
    for layer in start_filters(spec).layers:
        assert_same(layer, layer_of(layer.shape, shares_of(layer)))


def test_every_layer_that_can_be_trained_comes_back_to_the_bit(seed):
    rng = np.random.default_rng(seed)
    for _ in range(ROUNDS):
        layer = random_layer(rng)
        assert_same(layer, layer_of(layer.shape, shares_of(layer)))


def test_a_weight_of_64_is_a_half_and_256_steps_of_activation_are_one():
    weights = np.full((1, 1, 9), 64, np.int8)
    shares = shares_of(NodeLayer("conv3x3", 1, 1, 6, np.array([-256 << 6], np.int32), weights))
    assert 0.5 == shares.weights[0, 0, 0]
    assert [-1.0] == shares.bias.tolist()


def test_shares_go_to_the_nearest_integers_halves_to_the_even_one_and_stay_in_range():
    weights = np.array([0.4, 0.5, 0.6, 1.5, 2.5, -0.5, -1.5, 500, -500], np.float32).reshape(1, 1, 9) / 128
    layer = layer_of(LayerShape("conv3x3", 1, 1), Shares(weights, np.array([1e9], np.float32), 6))
    assert [0, 0, 1, 2, 2, 0, -2, 127, -128] == layer.weights.ravel().tolist()
    assert [BIAS_LIMIT] == layer.bias.tolist()


@pytest.mark.parametrize(("shift", "bias", "field"), [(17, 0, "shift: 17"), (6, -BIAS_LIMIT - 1, "bias: .-16711681")])
def test_what_single_precision_cannot_train_exactly_is_refused(shift, bias, field):
    layer = NodeLayer("conv3x3", 1, 1, shift, np.array([bias], np.int32), np.ones((1, 1, 9), np.int8))
    with pytest.raises(ModelError, match=field):
        shares_of(layer)


def test_nine_products_of_the_largest_readings_and_weights_are_whole_numbers_of_single_precision():
    assert 1 << 24 >= 9 * 128 * READING_LIMIT
    assert 14_563 == READING_LIMIT
