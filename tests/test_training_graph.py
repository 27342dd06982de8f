"""The training graph: what it computes forwards is what nodes compute, what it computes backwards is the derivative."""

import itertools

import numpy as np
import onnx
import pytest
from sign_layers import SHAPE, random_sign_layer

from gateway import twin
from gateway.head import HeadRunner
from gateway.model import SPECS, Filters, Head, LayerShape, NodeLayer
from gateway.quantise import BIAS_LIMIT, READING_LIMIT, SHIFT_LIMIT, shares_of
from gateway.site import lounge, site_of_cells
from gateway.start_weights import start_filters
from gateway.trainer import Engine
from gateway.training_graph import Recipe, graph, parameter_shapes
from gateway.training_optimiser import STATE_OF
from tools.training_oracle import Oracle

# Beside the named specs: three exchanges, channels that grow and shrink, a conv1x1 in between; and the most channels.
DEEP = (
    LayerShape("conv3x3", 1, 3),
    LayerShape("conv3x3", 3, 7),
    LayerShape("conv1x1", 7, 2),
    LayerShape("conv3x3", 2, 4),
)
WIDE = (LayerShape("conv3x3", 1, 16), LayerShape("conv1x1", 16, 16), LayerShape("conv3x3", 16, 16))
NETWORKS = {name: spec.layers for name, spec in SPECS.items()} | {"deep": DEEP, "wide": WIDE, "signs": (SHAPE,)}
NETWORKS_BY_NAME = pytest.mark.parametrize("layers", NETWORKS.values(), ids=NETWORKS)
CYCLES = 7


def random_site(rng, rows=6, cols=5):
    """Odd and even sides, some holes."""
    rows, cols = rows + int(rng.integers(2)), cols + int(rng.integers(2))
    cells = {(row, col) for row in range(rows) for col in range(cols) if rng.random() < 0.85}
    return site_of_cells("random", cells | {(0, 0), (rows - 1, cols - 1)})


def recipe_of(site, layers, hidden=(4,), appends_maximum=False, **more):
    if layers and layers[0].activation == "sign":
        return Recipe(site, layers, (), appends_maximum, **more)
    features = site.block_shape[0] * site.block_shape[1] * (layers[-1].channels_out if layers else 3)
    return Recipe(site, layers, (features + appends_maximum, *hidden, 2), appends_maximum, **more)


def random_masks(site, exchanges, rng):
    """Some nodes silent, and for every exchange some values lost: (present, absence as the twin takes it)."""
    present = site.mask & (rng.random((CYCLES, *site.mask.shape)) < 0.85)
    absence = rng.integers(0, 256, (exchanges, *present.shape)) & rng.integers(0, 256, (exchanges, *present.shape))
    return present, absence.astype(np.uint8)


def heard_of(site, present, absence):
    used = site.neighbour_masks & twin.neighbours_where(present) & ~absence
    return np.stack([used >> slot & 1 for slot in range(8)], axis=1).astype(np.bool_)


def random_batch(recipe, rng, limit=400):
    targets = np.eye(2)[rng.integers(0, 2, CYCLES)].astype(recipe.dtype)
    if not recipe.layers:
        features = rng.integers(0, 256, (CYCLES, recipe.widths[0] - recipe.appends_maximum))
        return {"features": features.astype(recipe.dtype), "targets": targets}
    exchanges = sum(layer.kind == "conv3x3" for layer in recipe.layers)
    present, absence = random_masks(recipe.site, exchanges, rng)
    readings = rng.integers(-limit, limit + 1, present.shape).astype(recipe.dtype)
    return {
        "readings": readings,
        "heard": heard_of(recipe.site, present, absence),
        "pooled": present,
        "targets": targets,
    }


def random_start(recipe, rng):
    """Parameters at which most activations move, and the constants."""
    if recipe.has_sign:
        shapes = parameter_shapes(recipe)
        weights, bias = rng.normal(0, 1, shapes["filters0.weights"]), rng.uniform(-8, -2, shapes["filters0.bias"])
        return {"filters0.weights": weights.astype(recipe.dtype), "filters0.bias": bias.astype(recipe.dtype)}, {}
    parameters, constants = {}, {"centre": rng.random(recipe.widths[0]), "scale": rng.random(recipe.widths[0]) + 0.5}
    for name, shape in parameter_shapes(recipe).items():
        parameters[name] = rng.normal(0, 0.5, shape)
        if name.startswith("filters") and name.endswith("weights"):
            parameters[name] = rng.uniform(-0.4, 0.9, shape)
            # An average of the inputs, more or less, so that what comes out lies in the middle as well.
            constants[name.replace("weights", "step")] = np.array(2.0 ** np.round(np.log2(50 * shape[1] * shape[2])))
        elif name.startswith("filters"):
            parameters[name] = rng.uniform(0.2, 0.4, shape)
    return tuple({name: x.astype(recipe.dtype) for name, x in arrays.items()} for arrays in (parameters, constants))


def twins_features(filters, site, readings_ccel, present, absence):
    """The graph's features as the nodes' integers have them, 0 where nothing was pooled."""
    features = []
    for cycle in range(len(present)):
        units = twin.units(filters, readings_ccel[cycle], present[cycle], site.neighbour_masks, absence[:, cycle])
        features.append(np.maximum(twin.pool(units, present[cycle]), 0).ravel())
    return np.stack(features)


def graphs_features(filters, site, readings_ccel, present, absence):
    """The same by the graph, from the shares that stand for the filters."""
    recipe = recipe_of(site, tuple(layer.shape for layer in filters.layers))
    parameters, constants = random_start(recipe, np.random.default_rng(1))
    for index, layer in enumerate(filters.layers):
        shares = shares_of(layer)
        parameters |= {f"filters{index}.weights": shares.weights, f"filters{index}.bias": shares.bias}
        if not recipe.has_sign:
            constants[f"filters{index}.step"] = np.array(2.0**layer.shift, np.float32)
    batch = {
        "readings": readings_ccel.astype(np.float32) - filters.reference_ccel,
        "heard": heard_of(site, present, absence),
        "pooled": present,
        "targets": np.zeros((len(present), 2), np.float32),
    }
    return Engine(recipe, parameters, constants).look(["features"], batch)["features"]


@NETWORKS_BY_NAME
def test_features_are_the_nodes_integers_whoever_is_silent_and_whatever_is_lost(seed, layers):
    rng = np.random.default_rng(seed)
    seen = set()
    for _ in range(10):
        site = random_site(rng)
        reference_ccel = int(rng.integers(1500, 2500))
        filters = Filters(1, reference_ccel, tuple(random_layer(shape, k, rng) for k, shape in enumerate(layers)))
        exchanges = sum(shape.kind == "conv3x3" for shape in layers)
        present, absence = random_masks(site, exchanges, rng)
        offsets = rng.integers(-READING_LIMIT, READING_LIMIT + 1, present.shape)
        readings_ccel = (reference_ccel + offsets).astype(np.int16)
        expected = twins_features(filters, site, readings_ccel, present, absence)
        assert np.array_equal(expected, graphs_features(filters, site, readings_ccel, present, absence))
        seen |= set(expected.ravel().tolist())
    assert len(seen) > 20 or seen == {0, 1}, "the filters of this test leave nothing to compare"


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_the_start_filters_give_the_nodes_integers_in_the_lounge_too(seed, spec):
    rng = np.random.default_rng(seed)
    site, filters = lounge(), start_filters(spec, 2200)
    present, absence = random_masks(site, spec.exchanges, rng)
    readings_ccel = np.rint(rng.normal(2200, 80, present.shape)).astype(np.int16)
    expected = twins_features(filters, site, readings_ccel, present, absence)
    assert len(np.unique(expected)) > 20 or {0, 1} == set(np.unique(expected))
    assert np.array_equal(expected, graphs_features(filters, site, readings_ccel, present, absence))


def random_layer(shape, index, rng):
    if shape.activation == "sign":
        return random_sign_layer(rng, shape.filters, (0, 1_000_000))
    taps = 9 if shape.kind == "conv3x3" else 1
    shift = int(rng.integers(11, SHIFT_LIMIT + 1) if index == 0 else rng.integers(5, 9))
    bias = rng.integers(-(2**shift) * 20, 2**shift * 100, shape.channels_out).clip(-BIAS_LIMIT, BIAS_LIMIT)
    weights = rng.integers(-128, 128, (shape.channels_out, shape.channels_in, taps))
    return NodeLayer.of(shape, shift, bias.astype(np.int32), weights.astype(np.int8))


@pytest.mark.parametrize("shift", [1, 8, SHIFT_LIMIT])
def test_the_largest_sums_that_training_allows_are_exact_to_the_last_bit(seed, shift):
    """Readings at the limit and weights of -128: the sum lies just under 2^24, and the bias takes it away again."""
    rng = np.random.default_rng(seed)
    site = site_of_cells("square", {(row, col) for row in range(3) for col in range(3)})
    count = 2000
    sign = rng.choice([-1, 1], (count, 1, 1))
    readings = (sign * (READING_LIMIT - rng.integers(0, 3, (count, 3, 3)))).astype(np.int16)
    present, absence = np.ones(readings.shape, np.bool_), np.zeros((1, *readings.shape), np.uint8)
    weights = np.stack([np.full((1, 9), -128), rng.integers(-128, -118, (1, 9)), rng.integers(117, 128, (1, 9))])
    sums = weights.reshape(3, 9) @ readings.reshape(count, 9).T.astype(int)
    assert 2**24 - 2**12 < np.abs(sums).max() < 2**24
    middle = np.array([int(np.abs(row).min()) for row in sums])
    bias = (128 * 2**shift - middle + rng.integers(-9, 9, 3)).clip(-BIAS_LIMIT, BIAS_LIMIT)
    layer = NodeLayer("conv3x3", 1, 3, shift, bias.astype(np.int32), weights.astype(np.int8))
    expected = twins_features(Filters(1, 0, (layer,)), site, readings, present, absence)
    assert np.array_equal(expected, graphs_features(Filters(1, 0, (layer,)), site, readings, present, absence))


@NETWORKS_BY_NAME
@pytest.mark.parametrize("appends_maximum", [False, True])
def test_without_rounding_gradients_are_those_of_finite_differences(seed, layers, appends_maximum):
    rng = np.random.default_rng(seed)
    recipe = recipe_of(random_site(rng), layers, (4,), appends_maximum, rounds=False, dtype=np.float64)
    check_gradients(recipe, rng)


def test_gradients_of_the_radius_penalty_are_those_of_finite_differences(seed):
    rng = np.random.default_rng(seed)
    recipe = recipe_of(random_site(rng), (SHAPE,), rounds=False, dtype=np.float64, radius=300.0)
    check_gradients(recipe, rng)


@pytest.mark.parametrize("hidden", [(), (5,), (5, 3)])
def test_gradients_of_dense_layers_alone_are_those_of_finite_differences(seed, hidden):
    rng = np.random.default_rng(seed)
    recipe = recipe_of(random_site(rng), (), hidden, True, rounds=False, dtype=np.float64)
    check_gradients(recipe, rng)


def check_gradients(recipe, rng):
    parameters, constants = random_start(recipe, rng)
    batch = random_batch(recipe, rng)
    engine = Engine(recipe, parameters, constants)
    for _ in range(10):
        gradients = engine.look([f"gradient.{name}" for name in parameters], batch)
        if all(gradient.any() for gradient in gradients.values()):
            break
        # Some start with all units clamped: another one.
        parameters, _ = random_start(recipe, rng)
        engine.values |= parameters
    for name, values in parameters.items():
        gradient = gradients[f"gradient.{name}"]
        assert gradient.any(), f"{name} does not matter in this test"
        places = list(np.ndindex(values.shape))
        for place in (places[k] for k in rng.permutation(len(places))[:25]):
            above, below = (loss_with(engine, batch, name, place, step) for step in (1e-8, -1e-8))
            assert (above - below) / 2e-8 == pytest.approx(gradient[place], rel=1e-4, abs=1e-6), (name, place)


def loss_with(engine, batch, name, place, step):
    kept = engine.values[name]
    engine.values[name] = kept.copy()
    engine.values[name][place] += step
    loss = float(engine.look(["loss"], batch)["loss"])
    engine.values[name] = kept
    return loss


@NETWORKS_BY_NAME
@pytest.mark.parametrize("optimiser", STATE_OF)
def test_ten_steps_come_to_what_the_oracle_comes_to(seed, layers, optimiser):
    rng = np.random.default_rng(seed)
    recipe = recipe_of(random_site(rng), layers, (6,), True, optimiser=optimiser, weight_decay=0.01, dtype=np.float64)
    check_ten_steps(recipe, rng, tolerance=1e-10)


@pytest.mark.parametrize("rounds", [True, False])
def test_with_the_radius_penalty_they_come_to_the_same(seed, rounds):
    rng = np.random.default_rng(seed)
    recipe = recipe_of(random_site(rng), (SHAPE,), dtype=np.float64, radius=30.0, rounds=rounds)
    check_ten_steps(recipe, rng, tolerance=1e-8)


@pytest.mark.parametrize("optimiser", STATE_OF)
def test_dense_layers_alone_learn_as_the_oracle_does(seed, optimiser):
    rng = np.random.default_rng(seed)
    recipe = recipe_of(random_site(rng), (), (6, 5), True, optimiser=optimiser, weight_decay=0.01, dtype=np.float64)
    check_ten_steps(recipe, rng, tolerance=1e-10)


@pytest.mark.parametrize("layers", [spec.layers for spec in SPECS.values()], ids=SPECS)
def test_in_single_precision_they_come_to_almost_the_same(seed, layers):
    """Adam, where a gradient is almost nothing, makes much of its last bits: hence not closer.

    Among thousands of weights one would lie on the edge between two integers and fall to either side: hence few.
    """
    rng = np.random.default_rng(seed)
    check_ten_steps(recipe_of(random_site(rng), layers, (6,), True), rng, tolerance=3e-5)


def check_ten_steps(recipe, rng, tolerance):
    parameters, constants = random_start(recipe, rng)
    engine, oracle = Engine(recipe, parameters, constants), Oracle(recipe, parameters, constants)
    for _ in range(10):
        batch = random_batch(recipe, rng)
        assert oracle.step(batch, 2e-3, 1e-3) == pytest.approx(engine.step(batch, 2e-3, 1e-3), abs=tolerance)
    for name, values in (oracle.parameters | oracle.state).items():
        np.testing.assert_allclose(engine.values[name], values, rtol=0, atol=tolerance, err_msg=name)
    for name, values in parameters.items():
        assert np.any(engine.values[name] != values), f"{name} did not learn"


@pytest.mark.parametrize(("optimiser", "rate"), [("sgd", 0.3), ("momentum", 0.03), ("adam", 0.03)])
def test_the_same_batch_again_and_again_is_learnt(seed, optimiser, rate):
    rng = np.random.default_rng(seed)
    recipe = recipe_of(random_site(rng), SPECS["seed"].layers, (), optimiser=optimiser)
    engine, batch = Engine(recipe, *random_start(recipe, rng)), random_batch(recipe, rng)
    losses = [engine.step(batch, rate, rate / 10) for _ in range(60)]
    assert 0.7 * losses[0] > losses[-1]


def test_dense_layers_learn_from_features_what_they_learn_from_the_mesh_that_gave_them(seed):
    rng = np.random.default_rng(seed)
    whole = recipe_of(random_site(rng), SPECS["lean"].layers, (4,), True)
    parameters, constants = random_start(whole, rng)
    dense = {name: x for name, x in parameters.items() if name.startswith("dense")}
    together = Engine(whole, parameters, constants)
    alone = Engine(whole._replace(layers=()), dense, {name: constants[name] for name in ("centre", "scale")})
    batch = random_batch(whole, rng)
    few = {"features": together.look(["features"], batch)["features"], "targets": batch["targets"]}
    assert alone.step(few, 0.01, 0) == pytest.approx(together.step(batch, 0.01, 0), rel=1e-6)
    for name in dense:
        np.testing.assert_allclose(alone.values[name], together.values[name], rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_loss_of_hundreds_is_finite_in_graph_and_oracle(dtype):
    """Logits of 0 and 300: softmax underflows in single precision, and its logarithm must not be taken."""
    recipe = Recipe(lounge(), (), (1, 2), appends_maximum=False, dtype=dtype)
    parameters = {"dense0.weights": np.array([[0, 300]], dtype), "dense0.bias": np.zeros(2, dtype)}
    constants = {"centre": np.zeros(1, dtype), "scale": np.ones(1, dtype)}
    batch = {"features": np.array([[255]], dtype), "targets": np.array([[1, 0]], dtype)}
    for network in (Engine(recipe, parameters, constants), Oracle(recipe, parameters, constants)):
        assert 300 == pytest.approx(network.step(batch, 1e-3, 0))


def test_filters_never_leave_what_nodes_and_single_precision_can_hold(seed):
    rng = np.random.default_rng(seed)
    recipe = recipe_of(random_site(rng), SPECS["seed"].layers)
    parameters, constants = random_start(recipe, rng)
    constants["filters0.step"] = np.array(2.0**SHIFT_LIMIT, np.float32)
    engine = Engine(recipe, parameters, constants)
    for _ in range(3):
        engine.step(random_batch(recipe, rng), 1e-3, 1e6)
    for index in range(2):
        weights = engine.values[f"filters{index}.weights"]
        assert {-1.0, 127 / 128} >= set(np.unique(weights)) - {0}
        assert np.abs(weights).max() > 0.9
    assert np.abs(engine.values["filters0.bias"]).max() * 2**24 == BIAS_LIMIT


def test_the_dense_layers_are_those_of_the_head(seed):
    rng = np.random.default_rng(seed)
    spec, site = SPECS["lean"], lounge()
    features = rng.integers(0, 256, (CYCLES, 117)).astype(np.int16)
    weights, bias = rng.normal(0, 1, (118, 2)).astype(np.float32), rng.normal(0, 1, 2).astype(np.float32)
    recipe = Recipe(site, (), (118, 2), appends_maximum=True)
    constants = {"centre": np.zeros(118, np.float32), "scale": np.ones(118, np.float32)}
    engine = Engine(recipe, {"dense0.weights": weights, "dense0.bias": bias}, constants)
    batch = {"features": features.astype(np.float32), "targets": np.zeros((CYCLES, 2), np.float32)}
    logits = HeadRunner(spec, Head(1, ((weights, bias),))).logits(features)
    np.testing.assert_allclose(engine.look(["logits"], batch)["logits"], logits, rtol=0, atol=1e-5)


def test_a_batch_of_any_length_runs_and_its_loss_is_the_mean_over_its_cycles(seed):
    rng = np.random.default_rng(seed)
    recipe = recipe_of(random_site(rng), SPECS["seed"].layers)
    engine = Engine(recipe, *random_start(recipe, rng))
    batch = random_batch(recipe, rng)
    alone = [float(engine.look(["loss"], part(batch, [cycle]))["loss"]) for cycle in range(CYCLES)]
    assert float(engine.look(["loss"], batch)["loss"]) == pytest.approx(np.mean(alone), abs=1e-6)


def part(batch, cycles):
    return {name: values[:, :, cycles] if name == "heard" else values[cycles] for name, values in batch.items()}


@pytest.mark.parametrize(("rounds", "optimiser"), [*itertools.product([True, False], STATE_OF)])
def test_the_graph_is_small_valid_and_made_of_standard_operators(rounds, optimiser):
    spec = SPECS["seed"]
    model = graph(Recipe(lounge(), spec.layers, (585, 200, 2), False, optimiser, rounds=rounds))
    onnx.checker.check_model(model, full_check=True)
    assert [("", 17)] == [(opset.domain, opset.version) for opset in model.opset_import]
    assert {""} == {node.domain for node in model.graph.node}
    assert len(model.SerializeToString()) < 25_000


def test_an_optimiser_that_is_none_is_refused():
    with pytest.raises(ValueError, match="optimiser: 'lion' is none; write sgd, momentum, adam"):
        graph(Recipe(lounge(), (), (585, 2), False, "lion"))
