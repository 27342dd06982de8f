"""Filters as numbers to train, and back."""

import numpy as np
import pytest
from sign_layers import SHAPE, random_sign_layer

from gateway.model import SPECS, Filters, LayerShape, ModelError, NodeLayer
from gateway.quantise import BIAS_LIMIT, READING_LIMIT, SHIFT_LIMIT, Shares, layer_of, shares_of
from gateway.start_weights import start_filters
from protocol import filter_set

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


def test_every_layer_with_sign_comes_back_to_the_bit(seed):
    rng = np.random.default_rng(seed)
    for _ in range(ROUNDS):
        layer = random_sign_layer(rng, int(rng.integers(1, 17)), (0, 1_000_000))
        assert_same(layer, layer_of(layer.shape, shares_of(layer)))


def sign_shares(window, bias):
    weights = np.zeros((1, 1, 9), np.float32)
    weights[0, 0, [4, 5, 7, 8]] = window
    return Shares(weights, np.array([bias], np.float32), 0)


@pytest.mark.parametrize(
    ("window", "bias", "weights", "whole_bias"),
    [
        ((-2, 2, 0, 0), -6, [-126, 126, 0, 0], -300 * 126),  # each filter has a scale of its own
        ((-1, 3, 1, 1), -3, [-126, 126, 0, 0], -300 * 63),  # only the distance from the mean counts
        ((-1, 0.9, 0.05, 0.05), -3, [-126, 126, 0, 0], None),  # small ones count as 0, the others' sum stays 0
        ((1, -0.4, -0.3, -0.3), -3, [126, -50, -38, -38], -300 * 126),
        ((-1, 1, 0, 0), -2_000, [0, 0, 0, 0], -1),  # dropped: 2,000 degrees never come
    ],
)
def test_weights_with_sign_are_scaled_each_filter_by_itself_and_add_up_to_0(window, bias, weights, whole_bias):
    layer = layer_of(SHAPE._replace(filters=1), sign_shares(window, bias))
    assert weights == layer.weights[0, 0, [4, 5, 7, 8]].tolist()
    assert whole_bias in (None, layer.bias[0])


def test_whatever_is_trained_nodes_take_it(seed):
    rng = np.random.default_rng(seed)
    for _ in range(ROUNDS):
        shares = Shares(rng.normal(0, 10.0 ** rng.integers(-8, 3), (5, 1, 9)), rng.normal(0, 1e3, 5), 0)
        layer = layer_of(SHAPE, Shares(*(x.astype(np.float32) for x in shares[:2]), 0))
        assert 1 == filter_set.unpack(Filters(1, 2200, (layer,)).pack("site")).version


def test_a_dropped_filter_does_not_weigh_on_the_others_in_training():
    zone = start_filters(SPECS["zone"]).layers[0]
    assert [-3.0] * 4 + [-1000.0] == pytest.approx(shares_of(zone).bias.tolist())


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
