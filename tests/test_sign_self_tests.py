"""The self-tests of a layer with sign tell a kernel that is right from one that is not."""

import numpy as np
import pytest
from sign_layers import random_sign_layer

from firmware import filters as node_filters
from firmware.filters import Filters as NodeFilters
from firmware.unit import convolve
from firmware.wave_check import passes
from gateway.model import Filters, NodeLayer
from gateway.wave import self_tests
from protocol import filter_set


def on_node(filters):
    """The filters as a node has them, and the self-tests as they travel."""
    unpacked = filter_set.unpack(filters.pack("site", self_tests(filters)))
    return NodeFilters(unpacked), unpacked.tests


def random_filters(rng):
    return Filters(1, 2200, (random_sign_layer(rng, 2, (20_000, 60_000)),))


def test_a_node_passes_its_own_self_tests_of_both_answers(seed):
    rng = np.random.default_rng(seed)
    for _ in range(20):
        filters = random_filters(rng)
        assert {b"\0", b"\1"} == {activations for _, activations in self_tests(filters)}
        assert passes(*on_node(filters))


@pytest.mark.parametrize("answer", [0, 1])
def test_a_kernel_that_always_gives_the_same_fails_them(seed, answer, monkeypatch):
    filters, tests = on_node(random_filters(np.random.default_rng(seed)))
    monkeypatch.setattr(node_filters, "convolve", lambda out, *_: out.__setitem__(0, answer))
    assert not passes(filters, tests)


def test_a_kernel_that_is_a_degree_off_fails_them(monkeypatch):
    weights = np.zeros((4, 1, 9), np.int8)
    weights[[0, 1, 2, 3], 0, [5, 4, 7, 4]] = 126
    weights[[0, 1, 2, 3], 0, [4, 5, 4, 7]] = -126
    rises = NodeLayer("conv3x3", 1, 4, 0, np.full(4, -126 * 300, np.int32), weights, "sign")
    filters, tests = on_node(Filters(1, 2200, (rises,)))

    def a_degree_off(out, x, weights, bias, shape):
        """The threshold one degree higher."""
        convolve(out, x, weights, type(bias)("I", [value - 126 * 100 for value in bias]), shape)

    monkeypatch.setattr(node_filters, "convolve", a_degree_off)
    assert not passes(filters, tests)


def test_filters_that_never_say_anything_have_self_tests_too():
    silent = NodeLayer("conv3x3", 1, 1, 0, np.array([-1], np.int32), np.zeros((1, 1, 9), np.int8), "sign")
    assert {b"\0"} == {activations for _, activations in self_tests(Filters(1, 2200, (silent,)))}
    assert passes(*on_node(Filters(1, 2200, (silent,))))
