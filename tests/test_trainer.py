"""The loop of training: what it takes of cycles, in which order, and what comes out."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from gateway import twin
from gateway.acceptance import accuracy
from gateway.model import SPECS, Head, Model
from gateway.quantise import READING_LIMIT, shares_of
from gateway.rule import abnormal
from gateway.samples import Samples, features_of
from gateway.site import site_of_cells
from gateway.start_weights import sign_head, start_filters
from gateway.trainer import Engine, Options, Training, mesh_inputs, schedule, targets_of
from gateway.training_graph import Recipe, parameter_shapes

SPECS_BY_NAME = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
WITH_HEAD = pytest.mark.parametrize("spec", [SPECS["seed"], SPECS["lean"]], ids=["seed", "lean"])
SITE = site_of_cells("small", {(row, col) for row in range(5) for col in range(6)} - {(1, 1), (4, 5)})
REFERENCE_CCEL = 2200


def random_samples(rng, count):
    readings_ccel = np.rint(rng.normal(REFERENCE_CCEL, 80, (count, SITE.rows, SITE.cols))).astype(np.int16)
    present = SITE.mask & (rng.random(readings_ccel.shape) < 0.9)
    return Samples(readings_ccel, present, abnormal(readings_ccel, present))


def random_model(spec, rng):
    inputs = SITE.block_shape[0] * SITE.block_shape[1] * spec.channels + spec.appends_maximum
    widths = (inputs, *spec.hidden, 2)
    if spec.has_sign:
        return Model(spec.name, start_filters(spec, REFERENCE_CCEL), sign_head(spec, SITE, 3))
    layers = tuple(
        (rng.normal(0, 0.1, shape).astype(np.float32), np.zeros(shape[1], np.float32))
        for shape in itertools.pairwise(widths)
    )
    return Model(spec.name, start_filters(spec, REFERENCE_CCEL), Head(3, layers))


def arrays_of(model):
    arrays = [array for layer in model.filters.layers for array in (layer.weights, layer.bias)]
    return [*arrays, *(array for layer in model.head.layers for array in layer)]


def assert_same(model, other, tolerance=0.0):
    for expected, found in zip(arrays_of(model), arrays_of(other), strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)


def losses_of(training):
    """Every step's, from the first to the last."""
    losses = []
    while training.done < training.steps:
        training.step()
        losses.append(training.loss)
    return losses


@SPECS_BY_NAME
def test_before_the_first_step_it_is_the_model_itself(seed, spec):
    rng = np.random.default_rng(seed)
    model = random_model(spec, rng)
    training = Training(model, SITE, random_samples(rng, 30), Options(1e-3, 1e-3))
    untouched = training.model(9)
    assert (9, 4, REFERENCE_CCEL) == (
        untouched.filters.version,
        untouched.head.revision,
        untouched.filters.reference_ccel,
    )
    assert_same(model, untouched, tolerance=1e-6)


def test_filters_with_sign_learn_another_threshold_and_their_head_stays(seed):
    rng = np.random.default_rng(seed)
    model, samples = random_model(SPECS["zone"], rng), random_samples(rng, 200)
    (layer,) = model.filters.layers
    wide = replace(layer, bias=(1.3 * layer.bias).astype(np.int32))
    model = replace(model, filters=replace(model.filters, layers=(wide,)))
    training = Training(model, SITE, samples, Options(0, 1e-2, epochs=60))
    losses = losses_of(training)
    learned = training.model(2)
    assert np.mean(losses[:5]) > 5 * np.mean(losses[-5:])
    assert -330 * 126 < learned.filters.layers[0].bias[:4].min()
    assert learned.head.layers is model.head.layers
    assert accuracy(model, SITE, samples) < 0.9 < accuracy(learned, SITE, samples)


@WITH_HEAD
def test_filters_and_head_learn_and_the_loss_falls(seed, spec):
    rng = np.random.default_rng(seed)
    model, samples = random_model(spec, rng), random_samples(rng, 200)
    training = Training(model, SITE, samples, Options(1e-2, 1e-3, epochs=30))
    losses = losses_of(training)
    assert 60 == len(losses)
    assert np.mean(losses[:5]) > 1.2 * np.mean(losses[-5:])
    for before, after in zip(arrays_of(model), arrays_of(training.model(2)), strict=True):
        assert np.any(before != after)


@SPECS_BY_NAME
def test_what_is_trained_with_are_the_features_that_nodes_would_send(seed, spec):
    rng = np.random.default_rng(seed)
    model, samples = random_model(spec, rng), random_samples(rng, 80)
    recipe = Recipe(SITE, spec.layers, () if spec.has_sign else model.head.widths, spec.appends_maximum)
    parameters = {name: np.zeros(shape, np.float32) for name, shape in parameter_shapes(recipe).items()}
    constants = {name: np.ones(widths, np.float32) for widths in recipe.widths[:1] for name in ("centre", "scale")}
    for index, shares in enumerate(map(shares_of, model.filters.layers)):
        parameters |= {f"filters{index}.weights": shares.weights, f"filters{index}.bias": shares.bias}
        if not spec.has_sign:
            constants[f"filters{index}.step"] = np.array(1 << shares.shift, np.float32)
    batch = mesh_inputs(model.filters, SITE, samples) | {"targets": targets_of(samples)}
    expected = np.maximum(features_of(samples, model.filters, SITE), 0)
    assert len(np.unique(expected)) > (1 if spec.has_sign else 10)
    assert np.array_equal(expected, Engine(recipe, parameters, constants).look(["features"], batch)["features"])


def test_readings_beyond_the_limit_are_trained_with_as_if_they_lay_at_it():
    readings_ccel = np.full((1, SITE.rows, SITE.cols), -32_768, np.int16)
    samples = Samples(readings_ccel, np.ones(readings_ccel.shape, np.bool_), np.zeros(1, np.bool_))
    inputs = mesh_inputs(start_filters(SPECS["seed"], REFERENCE_CCEL), SITE, samples)
    assert {-READING_LIMIT} == set(inputs["readings"].ravel().tolist())


def test_neighbours_are_heard_where_they_exist_and_have_a_reading(seed):
    samples = random_samples(np.random.default_rng(seed), 10)
    inputs = mesh_inputs(start_filters(SPECS["seed"]), SITE, samples)
    assert (2, 8, 10, 5, 6) == inputs["heard"].shape
    bits = (inputs["heard"] << np.arange(8).reshape(1, 8, 1, 1, 1)).sum(axis=1)
    assert np.all(bits == (SITE.neighbour_masks & twin.neighbours_where(samples.present)))


def test_targets_are_one_for_the_right_class():
    samples = Samples(np.zeros((2, 1, 1), np.int16), np.ones((2, 1, 1), np.bool_), np.array([False, True]))
    assert [[1, 0], [0, 1]] == targets_of(samples).tolist()


@pytest.mark.parametrize(("cycles", "batch"), [(10, 4), (8, 4), (12, 100)])
def test_every_epoch_sees_every_cycle_once_in_another_order(seed, cycles, batch):
    steps = list(schedule(cycles, 3, batch, np.random.default_rng(seed)))
    count = -(-cycles // batch)
    assert 3 * count == len(steps)
    epochs = [np.concatenate([where for where, _ in steps[k * count : (k + 1) * count]]).tolist() for k in range(3)]
    assert [list(range(cycles))] * 3 == [sorted(epoch) for epoch in epochs]
    assert epochs[0] != epochs[1] or epochs[1] != epochs[2]


def test_the_step_size_falls_over_half_a_cosine_from_all_to_almost_nothing(seed):
    falls = [fall for _, fall in schedule(10, 50, 5, np.random.default_rng(seed))]
    assert 1 == falls[0]
    assert 0.5 == pytest.approx(falls[50])
    assert np.all(np.diff(falls) < 0)
    assert 0 < falls[-1] < 0.001


def test_equal_seeds_give_equal_models_and_other_seeds_others(seed):
    def learned(options):
        rng = np.random.default_rng(seed)
        training = Training(random_model(SPECS["seed"], rng), SITE, random_samples(rng, 60), options)
        for _ in range(4):
            training.step()
        return training.model(2)

    options = Options(1e-2, 1e-3, batch=20, lost_max=0.3, seed=seed)
    assert_same(learned(options), learned(options))
    with pytest.raises(AssertionError):
        assert_same(learned(options), learned(options._replace(seed=seed + 1)))
    with pytest.raises(AssertionError):
        assert_same(learned(options), learned(options._replace(lost_max=0.0)))


def test_failout_loses_half_its_largest_share_on_average_and_nothing_that_was_lost_before_comes_back(seed):
    rng = np.random.default_rng(seed)
    samples = random_samples(rng, 400)
    training = Training(random_model(SPECS["seed"], rng), SITE, samples, Options(0, 0, batch=400, lost_max=0.4))
    taken = []
    training._engine.step = lambda batch, *_: taken.append(batch["heard"]) or 0.0
    training.step()
    before = mesh_inputs(start_filters(SPECS["seed"]), SITE, samples)["heard"]
    shares = 1 - taken[0].sum(axis=(0, 1, 3, 4)) / before.sum(axis=(0, 1, 3, 4)).mean()
    assert 0.2 == pytest.approx(1 - taken[0].sum() / before.sum(), abs=0.02)
    assert shares.std() > 0.08, "every cycle draws a share of its own"


def test_no_samples_train_nothing(seed):
    rng = np.random.default_rng(seed)
    with pytest.raises(ValueError, match="samples: there are 0"):
        Training(random_model(SPECS["seed"], rng), SITE, random_samples(rng, 0), Options(1e-3, 1e-3))
