"""Models: what they are made of, and that every way to write filters down gives the same filters back."""

import copy
import itertools
import json

import numpy as np
import pytest
from sign_layers import SHAPE, random_sign_layer

from gateway.model import SPECS, Filters, Head, LayerShape, Model, ModelError, NodeLayer, feature_len, spec_named
from gateway.site import lounge, site_of_cells
from protocol import filter_set
from protocol.fixed import BIAS_ZERO, WEIGHT_ZERO

SEED_SHAPES = SPECS["seed"].layers
SHAPES = {name: spec.layers for name, spec in SPECS.items()} | {"signs": (SHAPE,)}
SHAPES_BY_NAME = pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES)


def random_layer(shape, rng):
    if shape.activation == "sign":
        return random_sign_layer(rng, shape.filters)
    taps = 9 if shape.kind == "conv3x3" else 1
    bias = rng.integers(-(2**20), 2**20, shape.filters).astype(np.int32)
    weights = rng.integers(-128, 128, (shape.filters, shape.channels_in, taps)).astype(np.int8)
    return NodeLayer.of(shape, int(rng.integers(1, 25)), bias, weights)


def random_filters(seed, shapes=SEED_SHAPES):
    rng = np.random.default_rng(seed)
    return Filters(7, -150, tuple(random_layer(shape, rng) for shape in shapes))


def dense(*widths):
    shapes = itertools.pairwise(widths)
    return Head(1, tuple((np.zeros(shape, np.float32), np.zeros(shape[1], np.float32)) for shape in shapes))


def test_the_lounge_has_585_features_for_seed_and_117_for_lean():
    assert 585 == feature_len(lounge(), SPECS["seed"])
    assert 117 == feature_len(lounge(), SPECS["lean"])


def test_features_count_the_blocks_of_the_bounding_grid_holes_or_not():
    assert 4 * 5 == feature_len(site_of_cells("a", {(2, 2)}), SPECS["seed"])


def test_seed_exchanges_twice_and_lean_once():
    assert (2, 1) == (SPECS["seed"].exchanges, SPECS["lean"].exchanges)


def test_the_seed_network_is_the_documents():
    seed = SPECS["seed"]
    assert (LayerShape("conv3x3", 1, 5), LayerShape("conv3x3", 5, 5)) == seed.layers
    assert (200,) == seed.hidden
    assert not seed.appends_maximum


@SHAPES_BY_NAME
def test_filters_written_as_json_come_back_equal(seed, shapes):
    filters = random_filters(seed, shapes)
    again = Filters.from_json(json.loads(json.dumps(filters.as_json())))
    assert filters.as_json() == again.as_json()
    assert filters.pack("hall") == again.pack("hall")


def test_the_json_form_is_exactly_this():
    weights = [[[0, 1, 2, 3, 4, 5, 6, 7, -8]]]
    layer = NodeLayer("conv3x3", 1, 1, 6, np.array([-3], np.int32), np.array(weights, np.int8))
    expected = {
        "version": 1,
        "reference_ccel": 2200,
        "pool": 2,
        "layers": [{"kind": "conv3x3", "in": 1, "out": 1, "shift": 6, "bias": [-3], "weights": weights}],
    }
    assert expected == Filters(1, 2200, (layer,)).as_json()


@SHAPES_BY_NAME
def test_packed_filters_are_what_a_node_unpacks(seed, shapes):
    filters = random_filters(seed, shapes)
    unpacked = filter_set.unpack(filters.pack("hall"))
    assert (7, "hall", -150) == (unpacked.version, unpacked.site, unpacked.reference_ccel)
    assert bytes(64) == unpacked.signature
    for ours, theirs in zip(filters.layers, unpacked.layers, strict=True):
        assert ours.kind == filter_set.KIND_NAMES[theirs.kind]
        assert (ours.weights.ravel().astype(int) + WEIGHT_ZERO).tolist() == list(theirs.weights)
        assert (ours.bias.astype(int) + BIAS_ZERO).tolist() == list(theirs.bias)
        assert ours.shift == theirs.shape[2]


def test_a_layer_with_sign_says_so_in_json_and_gives_one_channel(seed):
    filters = random_filters(seed, (SHAPE,))
    assert 1 == filters.layers[0].channels_out
    written = filters.as_json()["layers"][0]
    assert ("conv3x3", "sign", 1, 5, 0) == tuple(written[key] for key in ("kind", "activation", "in", "out", "shift"))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("activation", "relu", r"layers\[0\].activation: 'relu' is none of a conv3x3; write clamp, or sign"),
        ("activation", [], r"layers\[0\]"),
        ("activation", "clamp", r"layers\[0\].shift: 0 is not in 1..24"),
        ("kind", "conv1x1", r"layers\[0\].activation: 'sign' is none of a conv1x1"),
        ("shift", 1, r"layers\[0\].shift: 1 is not in 0..0"),
        ("weights", [[[0, 0, 0, 0, 1, 0, 0, 0, 0]]] * 5, "layers: layer weights: with a sign they do not add up to 0"),
        ("weights", [[[0, 1, 0, 0, -1, 0, 0, 0, 0]]] * 5, "layers: layer weights: .* not 0 outside the taps C E S SE"),
    ],
)
def test_json_of_a_layer_with_sign_that_nodes_would_refuse_is_refused_by_the_name_of_its_field(key, value, message):
    data = random_filters(1, (SHAPE,)).as_json()
    data["layers"][0][key] = value
    with pytest.raises(ModelError, match=message):
        Filters.from_json(data)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("version",), -1, "version: -1 is not in 0..4294967295"),
        (("version",), True, "version: True is not in"),
        (("reference_ccel",), 40000, "reference_ccel: 40000 is not in -32768..32767"),
        (("pool",), 3, "pool: 3 is not in 2..2"),
        (("layers",), [], r"layers: is no list of 1..8 layers"),
        (("layers",), {}, r"layers: is no list of 1..8 layers"),
        (("layers", 1, "kind"), "conv5x5", r"layers\[1\].kind: 'conv5x5' is none; write conv3x3 or conv1x1"),
        (("layers", 1, "kind"), [], r"layers\[1\]"),
        (("layers", 1, "in"), 4, r"layers\[1\].weights: is int8 \(5, 5, 9\), must be int8 \(5, 4, 9\)"),
        (("layers", 0, "shift"), 25, r"layers\[0\].shift: 25 is not in 1..24"),
        (("layers", 0, "shift"), 6.0, r"layers\[0\].shift: 6.0 is not in 1..24"),
        (("layers", 0, "bias", 0), 2**29, r"layers\[0\].bias: .* keep \|bias\| below 2\^29"),
        (("layers", 0, "bias", 0), 2**31, r"layers\[0\].bias: is no full array of whole numbers in -2147483648"),
        (("layers", 0, "bias", 0), 10**30, r"layers\[0\].bias: is no full array"),
        (("layers", 0, "bias", 0), 0.5, r"layers\[0\].bias: is no full array"),
        (("layers", 0, "weights", 0, 0, 3), 128, r"layers\[0\].weights: .* whole numbers in -128..127"),
        (("layers", 0, "weights", 0, 0, 3), "1", r"layers\[0\].weights: is no full array"),
        (("layers", 0, "weights", 0, 0), [1], r"layers\[0\].weights: is no full array"),
        (("layers", 0, "weights"), [[[[1]]]], r"layers\[0\].weights: is no full array"),
        (("layers", 0, "bias"), [True, 1, 1, 1, 1], r"layers\[0\].bias: is no full array"),
        # As an array of texts it would take 400 GB.
        (("layers", 0, "bias"), ["x" * 1_000_000] + [""] * 100_000, r"layers\[0\].bias: is no full array"),
        (("layers", 0, "weights"), [], r"layers\[0\].weights: is no full array"),
        (("layers", 0), 3, r"layers\[0\]: does not have exactly the fields kind"),
    ],
)
def test_json_that_describes_no_filters_is_refused_by_the_name_of_its_field(path, value, message):
    data = copy.deepcopy(random_filters(1).as_json())
    place = data
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(ModelError, match=message):
        Filters.from_json(data)


@pytest.mark.parametrize("data", [None, [], "filters", {}, {"version": 1}])
def test_json_of_another_form_is_refused(data):
    with pytest.raises(ModelError, match="filters: does not have exactly the fields version"):
        Filters.from_json(data)


def test_layers_that_do_not_follow_on_each_other_are_refused():
    rng = np.random.default_rng(1)
    four_wide = random_layer(LayerShape("conv3x3", 4, 5), rng)
    with pytest.raises(ModelError, match=r"layers: layer channels: .*other than the layer before gives"):
        Filters(1, 0, (random_layer(SEED_SHAPES[0], rng), four_wide))
    with pytest.raises(ModelError, match="layers: layer kind"):
        Filters(1, 0, (random_layer(SHAPE, rng), random_layer(LayerShape("conv1x1", 1, 5), rng)))
    with pytest.raises(ModelError, match="layers: layer kind"):
        Filters(1, 0, (random_layer(LayerShape("conv1x1", 1, 5), rng),))


def test_a_head_is_dense_and_ends_in_two_classes():
    assert (6, 3, 2) == dense(6, 3, 2).widths
    with pytest.raises(ModelError, match=r"layers\[1\].weights: is float32 \(3, 4\), must be float32 \(3, 2\)"):
        dense(6, 3, 4)
    with pytest.raises(ModelError, match=r"layers\[0\].weights: is float64 \(6, 2\), must be float32"):
        Head(1, ((np.zeros((6, 2)), np.zeros(2, np.float32)),))
    with pytest.raises(ModelError, match=r"layers\[0\]: some numbers are not finite"):
        Head(1, ((np.full((6, 2), np.nan, np.float32), np.zeros(2, np.float32)),))
    with pytest.raises(ModelError, match="layers: there must be one at least"):
        Head(1, ())


def test_a_model_refuses_parts_of_another_spec():
    seed_filters, lean_filters = random_filters(1), random_filters(1, SPECS["lean"].layers)
    assert "seed" == Model("seed", seed_filters, dense(585, 200, 2)).spec_name
    with pytest.raises(ModelError, match=r"filters: .* are not of spec lean"):
        Model("lean", seed_filters, dense(118, 2))
    with pytest.raises(ModelError, match=r"head: hidden units \(100,\) are not of spec seed: \(200,\)"):
        Model("seed", seed_filters, dense(585, 100, 2))
    with pytest.raises(ModelError, match="spec: 'fat' is none; write seed, lean or zone"):
        Model("fat", lean_filters, dense(118, 2))


def test_every_spec_is_found_by_its_name():
    assert {name: spec_named(name) for name in SPECS} == SPECS
