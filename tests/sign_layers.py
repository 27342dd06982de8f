"""Layers with a sign for tests: random filters that nodes take."""

import numpy as np

from gateway.model import CONV3X3, SIGN, LayerShape, NodeLayer

SHAPE = LayerShape(CONV3X3, 1, 5, SIGN)


def random_sign_layer(rng, filters=5, thresholds=(0, 60_000)):
    """Filters on the window that add up to 0; readings over all of int16 are seldom below so small thresholds."""
    window = rng.integers(-42, 43, (filters, 3))
    weights = np.zeros((filters, 1, 9), np.int8)
    weights[:, 0, 4] = -window.sum(axis=1)
    weights[:, 0, [5, 7, 8]] = window
    bias = -rng.integers(*thresholds, filters, endpoint=True)
    return NodeLayer.of(SHAPE._replace(filters=filters), 0, bias.astype(np.int32), weights)
