"""Fitting a head to labelled cycles from scratch, with the filters left as they are: seconds on one core.

Softmax cross-entropy, mini-batches, Adam with decoupled weight decay and a step that falls to zero over a half cosine,
in the training graph without its node layers, on features that the twin computed once (gateway/training_graph.py).
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from gateway import dense
from gateway.head import known_features
from gateway.model import CLASSES, Filters, Head, ModelSpec
from gateway.samples import Samples, features_of
from gateway.site import Site
from gateway.trainer import (
    BATCH,
    EPOCHS,
    WEIGHT_DECAY,
    Engine,
    Progress,
    check_samples,
    head_of,
    schedule,
    targets_of,
)
from gateway.training_graph import Recipe, parameter_shapes
from gateway.twin import NOTHING

RATE = 2e-3
# A single layer is convex: large steps do no harm, and 480 small ones would not reach the steep edge that it needs.
RATE_SINGLE = 0.2
FIRST_REVISION = 1


def fit_head(
    spec: ModelSpec, site: Site, filters: Filters, samples: Samples, seed: int, progress: Progress | None = None
) -> Head:
    """Fit the dense layers from scratch.

    Args:
        spec: the network.
        site: where its nodes stand.
        filters: what the nodes compute with.
        samples: labelled cycles.
        seed: of first weights and order of samples; equal seeds give equal heads on one machine.
        progress: told after each epoch.

    Returns:
        A head of revision 1, float32. Its weights are 0 for features that no sample has: blocks without a node.

    Raises:
        ValueError: there are no samples.
    """
    check_samples(samples)
    features = features_of(samples, filters, site)
    standard = dense.standard_of(spec, dense.head_inputs(spec, features))
    rng = np.random.default_rng(seed)
    engine = _new_engine(spec, site, standard, rng)
    targets, rate = targets_of(samples), RATE if spec.hidden else RATE_SINGLE
    for where, fall in schedule(samples.cycles, EPOCHS, BATCH, rng, progress):
        batch = {"features": known_features(features[where]), "targets": targets[where]}
        engine.step(batch, rate * fall, filter_rate=0)
    return _without_unmet(head_of(engine.values, standard, FIRST_REVISION), features)


def _without_unmet(head: Head, features: NDArray[np.int16]) -> Head:
    """The head, deaf to blocks that no sample had: what first weights would make of a node there is chance.

    It goes on as it is when a node comes to stand there; the next training has samples of it to learn from.
    """
    weights, bias = head.layers[0]
    weights = weights.copy()
    weights[: features.shape[1]][(features == NOTHING).all(axis=0)] = 0  # the maximum stands behind them
    return replace(head, layers=((weights, bias), *head.layers[1:]))


def _new_engine(spec: ModelSpec, site: Site, standard: dense.Standard, rng: np.random.Generator) -> Engine:
    inputs_len = len(standard.centre)
    widths = (inputs_len, *spec.hidden, CLASSES)
    recipe = Recipe(site, (), widths, spec.appends_maximum, weight_decay=WEIGHT_DECAY)
    arrays = [array for layer in dense.first_layers(spec, inputs_len, rng) for array in layer]
    return Engine(recipe, dict(zip(parameter_shapes(recipe), arrays, strict=True)), standard._asdict())
