"""The head in ONNX Runtime against the same layers in plain numpy, and what it does with what is missing."""

import itertools

import numpy as np
import onnx
import pytest

from gateway.dense import head_inputs
from gateway.head import HeadRunner, graph, known_features
from gateway.model import SPECS, Head, ModelError

# Of the lounge (R0-12, R0-14).
WIDTHS = {"seed": (585, 200, 2), "lean": (118, 2), "zone": (118, 2)}
# P5: scores can be recomputed within this.
TOLERANCE = 1e-5
SPECS_BY_NAME = pytest.mark.parametrize("spec", SPECS.values(), ids=lambda spec: spec.name)


def random_head(spec, rng, revision=1):
    layers = []
    for inputs, outputs in itertools.pairwise(WIDTHS[spec.name]):
        weights = rng.normal(0, 2 / np.sqrt(inputs), (inputs, outputs)).astype(np.float32)
        layers.append((weights, rng.normal(0, 1, outputs).astype(np.float32)))
    return Head(revision, tuple(layers))


def random_features(spec, rng, cycles=50):
    return rng.integers(-1, 256, (cycles, WIDTHS[spec.name][0] - spec.appends_maximum)).astype(np.int16)


def plain(spec, head, features):
    """(scores, logits) in float64, step by step."""
    values = np.where(features < 0, 0, features) / 255
    if spec.appends_maximum:
        values = np.column_stack([values, values.max(axis=1)])
    for weights, bias in head.layers[:-1]:
        values = np.maximum(values @ weights.astype(np.float64) + bias, 0)
    logits = values @ head.layers[-1][0].astype(np.float64) + head.layers[-1][1]
    odds = np.exp(logits)
    return odds / odds.sum(axis=1, keepdims=True), logits


@SPECS_BY_NAME
def test_scores_and_logits_are_those_of_plain_numpy(seed, spec):
    rng = np.random.default_rng(seed)
    head, features = random_head(spec, rng), random_features(spec, rng)
    runner = HeadRunner(spec, head)
    scores, logits = plain(spec, head, features)
    np.testing.assert_allclose(runner.scores(features), scores, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(runner.logits(features), logits, rtol=0, atol=TOLERANCE)
    assert np.ptp(scores) > 0.5, "the head of this test leaves nothing to compare"


@SPECS_BY_NAME
def test_one_cycle_scores_as_it_does_in_a_batch(seed, spec):
    rng = np.random.default_rng(seed)
    runner, features = HeadRunner(spec, random_head(spec, rng)), random_features(spec, rng)
    alone = runner.scores(features[3])
    assert (1, 2) == alone.shape
    assert np.float32 == alone.dtype
    np.testing.assert_allclose(alone[0], runner.scores(features)[3], rtol=0, atol=TOLERANCE)


@SPECS_BY_NAME
def test_a_swapped_head_answers_at_once_and_as_one_that_was_there_from_the_start(seed, spec):
    rng = np.random.default_rng(seed)
    old, new, features = random_head(spec, rng, 1), random_head(spec, rng, 2), random_features(spec, rng)
    runner = HeadRunner(spec, old)
    before = runner.scores(features)
    runner.swap(new)
    assert 2 == runner.revision
    assert not np.allclose(before, runner.scores(features))
    assert np.array_equal(HeadRunner(spec, new).scores(features), runner.scores(features))


def test_a_missing_feature_counts_as_a_block_that_noticed_nothing():
    assert [0, 0, 1, 255] == known_features(np.array([-1, 0, 1, 255], np.int16)).tolist()


def test_fitting_sees_the_inputs_that_the_graph_computes(seed):
    rng = np.random.default_rng(seed)
    lean, features = SPECS["lean"], random_features(SPECS["lean"], rng)
    inputs = head_inputs(lean, features)
    for first in (0, 57, 116):
        weights = np.zeros((118, 2), np.float32)
        weights[[first, 117], [0, 1]] = 1  # the logits are one block's feature and the maximum
        runner = HeadRunner(lean, Head(1, ((weights, np.zeros(2, np.float32)),)))
        np.testing.assert_allclose(runner.logits(features), inputs[:, [first, 117]], rtol=0, atol=TOLERANCE)


def test_without_an_appended_maximum_the_inputs_are_the_features(seed):
    features = random_features(SPECS["seed"], np.random.default_rng(seed))
    assert np.array_equal(known_features(features) / 255, head_inputs(SPECS["seed"], features))


@SPECS_BY_NAME
def test_the_graph_holds_no_weights_and_is_valid_onnx(spec):
    model = graph(spec, WIDTHS[spec.name])
    onnx.checker.check_model(model, full_check=True)
    assert ["full_scale"] == [tensor.name for tensor in model.graph.initializer]
    assert len(model.SerializeToString()) < 2000


def test_a_head_of_another_shape_is_refused(seed):
    rng = np.random.default_rng(seed)
    seed_spec, lean = SPECS["seed"], SPECS["lean"]
    with pytest.raises(ModelError, match=r"head: hidden units \(200,\) are not of spec lean: \(\)"):
        HeadRunner(lean, random_head(seed_spec, rng))
    runner = HeadRunner(lean, random_head(lean, rng))
    narrow = Head(2, ((np.zeros((5, 2), np.float32), np.zeros(2, np.float32)),))
    with pytest.raises(ModelError, match=r"head: widths \(5, 2\) do not fit \(118, 2\)"):
        runner.swap(narrow)
    assert 1 == runner.revision


def test_features_of_another_site_are_refused(seed):
    lean = SPECS["lean"]
    runner = HeadRunner(lean, random_head(lean, np.random.default_rng(seed)))
    with pytest.raises(ModelError, match=r"features: have the shape \(118,\); there must be 117 per cycle"):
        runner.scores(np.zeros(118, np.int16))
