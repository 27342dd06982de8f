"""Fine-tuning a model and judging it on cycles that it did not learn from."""

from dataclasses import replace

import numpy as np
import pytest

from gateway import acceptance, twin
from gateway.acceptance import train, training
from gateway.head import HeadRunner
from gateway.model import SPECS, Filters, Head, Model, ModelError, NodeLayer
from gateway.rule import abnormal
from gateway.samples import Samples
from gateway.site import site_of_cells
from gateway.start_weights import sign_head, start_filters

SPEC = SPECS["seed"]
SITE = site_of_cells("small", {(row, col) for row in range(5) for col in range(6)} - {(1, 1), (4, 5)})
VERSION = 7


def made_samples(seed, count, abnormal_share=0.5):
    """Calm fields, some with one cell that is warmer by 2 to 6 degrees; some sensors silent."""
    rng = np.random.default_rng(seed)
    fields = rng.normal(2200, 30, (count, SITE.rows, SITE.cols))
    warm = rng.random(count) < abnormal_share
    cells = rng.integers(0, len(SITE.cells), count)
    rows, cols = np.transpose(SITE.cells)
    fields[warm, rows[cells[warm]], cols[cells[warm]]] += rng.uniform(200, 600, warm.sum())
    present = SITE.mask & (rng.random(fields.shape) < 0.95)
    readings_ccel = np.rint(fields).astype(np.int16)
    return Samples(readings_ccel, present, abnormal(readings_ccel, present))


def made_model(seed):
    """Start filters, and a head that has everything to learn."""
    rng = np.random.default_rng(seed)
    inputs = SITE.block_shape[0] * SITE.block_shape[1] * SPEC.channels
    shapes = ((inputs, 200), (200, 2))
    layers = tuple((rng.normal(0, 0.1, shape).astype(np.float32), np.zeros(shape[1], np.float32)) for shape in shapes)
    return Model("seed", start_filters(SPEC), Head(3, layers))


def right_share(model, samples):
    features = twin.features(model.filters, samples.readings_ccel, samples.present, SITE)
    scores = HeadRunner(SPEC, model.head).scores(features.reshape(len(features), -1))
    return float(((scores[:, 1] >= 0.5) == samples.abnormal).mean())


def numbers(model):
    arrays = [array for layer in model.filters.layers for array in (layer.weights, layer.bias)]
    return np.concatenate([array.ravel() for array in (*arrays, *(x for layer in model.head.layers for x in layer))])


@pytest.fixture
def trained(seed):
    return train(made_model(seed), SITE, made_samples(seed, 400), VERSION, seed)


def test_a_model_that_learned_is_accepted_because_it_decides_the_held_out_cycles_better(trained, seed):
    held_out = made_samples(seed, 400).part(slice(300, None))
    assert trained.accepted
    assert right_share(made_model(seed), held_out) == trained.accuracy_before
    assert right_share(trained.model, held_out) == trained.accuracy_after
    assert trained.accuracy_before + 0.1 < trained.accuracy_after


def test_a_model_that_is_right_as_often_as_before_is_not_accepted(seed, monkeypatch):
    monkeypatch.setattr(acceptance, "RATE", 0.0)
    monkeypatch.setattr(acceptance, "FILTER_RATE", 0.0)
    result = train(made_model(seed), SITE, made_samples(seed, 100), VERSION, seed)
    assert 0 < result.accuracy_before == result.accuracy_after < 1
    assert not result.accepted


def test_new_filters_have_the_callers_version_and_the_head_the_next_revision(trained):
    assert (VERSION, 4) == (trained.model.filters.version, trained.model.head.revision)


def test_filters_learn_too_and_are_a_set_that_nodes_take(trained, seed):
    before, after = made_model(seed).filters.layers, trained.model.filters.layers
    assert any(not np.array_equal(old.weights, new.weights) for old, new in zip(before, after, strict=True))
    assert [layer.shift for layer in before] == [layer.shift for layer in after]
    trained.model.filters.pack(SITE.name)


def test_held_out_cycles_teach_nothing(trained, seed):
    samples = made_samples(seed, 400)
    flipped = samples._replace(abnormal=np.where(np.arange(400) < 300, samples.abnormal, ~samples.abnormal))
    other = train(made_model(seed), SITE, flipped, VERSION, seed)
    assert np.array_equal(numbers(trained.model), numbers(other.model))
    assert trained.accuracy_after == pytest.approx(1 - other.accuracy_after)
    assert not other.accepted


def test_equal_seeds_give_equal_models_and_other_seeds_others(trained, seed):
    again = train(made_model(seed), SITE, made_samples(seed, 400), VERSION, seed)
    other = train(made_model(seed), SITE, made_samples(seed, 400), VERSION, seed + 1)
    assert np.array_equal(numbers(trained.model), numbers(again.model))
    assert not np.array_equal(numbers(trained.model), numbers(other.model))


def test_control_comes_back_after_every_step(seed):
    told = []
    result = train(made_model(seed), SITE, made_samples(seed, 100), VERSION, seed, lambda *steps: told.append(steps))
    assert [(step + 1, len(told)) for step in range(len(told))] == told
    assert acceptance.STEPS == len(told)
    steps = training(made_model(seed), SITE, made_samples(seed, 100), VERSION, seed)
    assert (1, acceptance.STEPS) == next(steps)
    assert result.model.filters.version == VERSION


@pytest.mark.parametrize("count", [0, 1, 2, 5, 12, 24])
def test_few_cycles_never_crash(seed, count):
    model = made_model(seed)
    result = train(model, SITE, made_samples(seed, count), VERSION, seed)
    assert VERSION == result.model.filters.version
    assert (result.accuracy_before is None) == (count < 2)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_cycles_of_one_class_teach_nothing_and_change_no_number(seed, share):
    samples = made_samples(seed, 24)._replace(abnormal=np.full(24, bool(share)))
    result = train(made_model(seed), SITE, samples, VERSION, seed)
    assert not result.accepted
    assert result.accuracy_before == result.accuracy_after
    assert np.array_equal(numbers(made_model(seed)), numbers(result.model))


def test_a_model_that_is_right_about_everything_is_left_as_it_is(trained, seed):
    samples = made_samples(seed, 400)
    features = twin.features(trained.model.filters, samples.readings_ccel, samples.present, SITE)
    scores = HeadRunner(SPEC, trained.model.head).scores(features.reshape(400, -1))
    agreed = samples._replace(abnormal=scores[:, 1] >= 0.5)
    result = train(trained.model, SITE, agreed, VERSION + 1, seed)
    assert (1.0, 1.0, False) == (result.accuracy_before, result.accuracy_after, result.accepted)
    assert np.array_equal(numbers(trained.model), numbers(result.model))


def test_filters_that_cannot_be_trained_are_refused_by_name(seed):
    model = made_model(seed)
    first, *others = model.filters.layers
    steep = NodeLayer(first.kind, first.channels_in, first.channels_out, 17, first.bias, first.weights)
    wrong = replace(model, filters=Filters(1, 2200, (steep, *others)))
    with pytest.raises(ModelError, match="shift: 17"):
        train(wrong, SITE, made_samples(seed, 40), VERSION, seed)


def test_filters_with_sign_that_begin_too_late_learn_the_sites_threshold_and_keep_their_head(seed):
    zone = SPECS["zone"]
    (layer,) = start_filters(zone).layers
    late = replace(layer, bias=(1.15 * layer.bias).astype(np.int32))
    model = Model("zone", replace(start_filters(zone), layers=(late,)), sign_head(zone, SITE, 3))
    trained = train(model, SITE, made_samples(seed, 400), VERSION, seed)
    assert trained.accepted
    assert trained.accuracy_before < 0.95 < trained.accuracy_after
    assert (VERSION, 4) == (trained.model.filters.version, trained.model.head.revision)
    assert trained.model.head.layers is model.head.layers
