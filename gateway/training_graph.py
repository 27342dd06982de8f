"""One training step as one ONNX graph of standard operators, which plain onnxruntime runs.

    readings, heard, pooled -> node layers -> 2x2 maximum -> features (or: features, already computed)
    (a layer with sign: -> margins -> the largest of a cycle -> logits; no dense layers; gateway/training_sign.py)
    features -> dense layers -> softmax -> cross-entropy -> gradients of all of it, backwards
    gradients -> optimiser -> the next parameters and the optimiser's next state

Inputs, per cycle of the batch:
    readings  float [batch, rows, cols], centred on the filters' reference and within +-READING_LIMIT, whole numbers
    heard     bool [exchanges, 8, batch, rows, cols], by slot whether a unit uses its neighbour's value; a value lost on
              purpose (failout) is False here
    pooled    bool [batch, rows, cols], units that take part in their block's maximum
    features  float [batch, n], 0..255, instead of these three where no node layer is trained
    targets   float [batch, 2], the wanted scores (normal, abnormal), each row adding up to 1
and, the same for the whole batch:
    centre, scale     float [n], the dense layers see (features / 255 - centre) / scale
    filters<k>.step   float [], 2^shift of a node layer, shift at most SHIFT_LIMIT of gateway/quantise.py
    filter_rate, rate float [], step sizes of node layers and of dense layers
    count             float [], number of this step, from 1
    every parameter, and the optimiser's state for it, under the names that `parameter_shapes` and `state_names` of
    gateway/training_optimiser.py give
Outputs: loss, logits [batch, 2], features [batch, n], and `gradient.<name>`, `next.<name>`, also for state.
"""

import itertools
from typing import Any, NamedTuple

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, checker, helper

from gateway import training_sign
from gateway.head import model_of, open_session
from gateway.model import CLASSES, CONV3X3, SIGN, TAPS_OF, LayerShape
from gateway.quantise import BIAS_LIMIT, BIAS_ONE, WEIGHT_ONE
from gateway.site import Site
from gateway.training_layers import (
    Convolved,
    LayerInputs,
    Mesh,
    Nodes,
    Pooled,
    convolve,
    convolve_back,
    pool,
    pool_back,
)
from gateway.training_optimiser import STATE_OF, direction, state_names
from protocol.fixed import ACTIVATION_MAX
from protocol.grid import SLOTS

Arrays = dict[str, NDArray[Any]]


class Recipe(NamedTuple):
    """What a training graph is built from.

    Attributes:
        site: where the nodes stand.
        layers: the node layers to train; empty: dense layers only, on features.
        widths: of the dense layers, as `Head.widths`; none behind a layer with sign.
        appends_maximum: whether they also see the maximum of all features.
        optimiser: "sgd", "momentum" or "adam" (gateway/training_optimiser.py).
        weight_decay: pulls dense weights towards 0, rate x this a step (AdamW, Loshchilov and Hutter 2019).
        rounds: False leaves out every rounding, so that gradients can be checked against finite differences.
        dtype: float32, or float64 for such checks.
        radius: weight of the radius penalty of a layer with sign (gateway/training_sign.py).
    """

    site: Site
    layers: tuple[LayerShape, ...]
    widths: tuple[int, ...]
    appends_maximum: bool
    optimiser: str = "adam"
    weight_decay: float = 0.0
    rounds: bool = True
    dtype: type = np.float32
    radius: float = 0.0

    @property
    def has_sign(self) -> bool:
        """Whether its layer is one with sign."""
        return bool(self.layers) and self.layers[0].activation == SIGN


def parameter_shapes(recipe: Recipe) -> dict[str, tuple[int, ...]]:
    """Every trained array: filters<k>.weights [out, in, taps] and .bias [out], dense<k>.weights [in, out], .bias [out].

    Filters count as gateway/quantise.py says: a weight of 1 would be 128, a bias of 1 an activation of 256; with a sign
    only weights on the window count, and only their distance from their mean; a bias is in degrees.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for index, layer in enumerate(recipe.layers):
        shapes[f"filters{index}.weights"] = (layer.filters, layer.channels_in, TAPS_OF[layer.kind])
        shapes[f"filters{index}.bias"] = (layer.filters,)
    for index, (inputs, outputs) in enumerate(itertools.pairwise(recipe.widths)):
        shapes[f"dense{index}.weights"] = (inputs, outputs)
        shapes[f"dense{index}.bias"] = (outputs,)
    return shapes


def session(recipe: Recipe) -> ort.InferenceSession:
    """The graph, ready to run in the calling thread; no other thread is started and no core kept awake."""
    options = ort.SessionOptions()
    # Least memory, at no cost in time: nodes run as written, and what one leaves is used again at once. Optimisers
    # would join what is computed twice on purpose, and a plan of the memory keeps pieces apart that need not be.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.execution_order = ort.ExecutionOrder.PRIORITY_BASED
    options.enable_mem_pattern = False
    return open_session(graph(recipe), options)


def graph(recipe: Recipe) -> ModelProto:
    """The whole step.

    Raises:
        ValueError: there is no such optimiser.
    """
    if recipe.optimiser not in STATE_OF:
        raise ValueError(f"optimiser: {recipe.optimiser[:40]!r} is none; write {', '.join(STATE_OF)}")
    g = Nodes(np.dtype(recipe.dtype))
    mesh = Mesh(recipe.site)
    gradients: dict[str, str] = {}
    if recipe.has_sign:
        _sign_network(g, mesh, recipe, gradients)
    else:
        features, saved = _features(g, mesh, recipe) if recipe.layers else ("features", None)
        error = _head(g, recipe, features, gradients)
        if saved:
            _features_back(g, mesh, saved, error, gradients)
    for name, gradient in gradients.items():
        g.add("Identity", gradient, name=f"gradient.{name}")
        _update(g, recipe, name)
    return _model(g, recipe)


def _sign_network(g: Nodes, mesh: Mesh, recipe: Recipe, gradients: dict[str, str]) -> None:
    """Readings -> features of 0 and 1, logits, loss, and all the way back."""
    value = mesh.spread(g, g.add("Unsqueeze", "readings", np.array([0])))
    heard = g.split(mesh.spread(g, g.add("Squeeze", "heard", np.array([0]))), SLOTS, 0)
    pooled = mesh.spread(g, g.number(g.add("Unsqueeze", "pooled", np.array([0]))))
    found = training_sign.margins(g, mesh, value, heard, pooled, recipe.rounds)
    features, _ = pool(g, mesh, training_sign.states(g, found), pooled)
    g.add("Identity", features, name="features")
    by_cycle, _ = training_sign.logits(g, mesh, found)
    penalty = training_sign.radius_penalty(g, found, recipe.radius) if recipe.radius else None
    error = _loss(g, penalty.value if penalty else "")
    by_margins = training_sign.logits_back(g, mesh, found, by_cycle, error)
    if penalty:
        by_margins = g.add("Add", by_margins, penalty.by_margins)
    by_weights = penalty.by_weights if penalty else ""
    weights, bias = training_sign.parameters_back(g, found, by_margins, by_weights)
    gradients["filters0.weights"], gradients["filters0.bias"] = weights, bias


class _Saved(NamedTuple):
    """What the node layers and the maximum leave behind for the way back."""

    layers: list[Convolved]
    pooled: Pooled


def _features(g: Nodes, mesh: Mesh, recipe: Recipe) -> tuple[str, _Saved]:
    """Readings -> features [batch, n], 0..255."""
    value = mesh.spread(g, g.add("Unsqueeze", "readings", np.array([0])))
    exchanges = sum(layer.kind == CONV3X3 for layer in recipe.layers)
    halos = iter([mesh.spread(g, g.add("Squeeze", heard, np.array([0]))) for heard in g.split("heard", exchanges, 0)])
    layers = []
    for index, shape in enumerate(recipe.layers):
        weights, bias, step = (f"filters{index}.{kind}" for kind in ("weights", "bias", "step"))
        heard = g.split(next(halos), SLOTS, 0) if shape.kind == CONV3X3 else []
        inputs = LayerInputs(value, weights, bias, step, heard)
        value, saved = convolve(g, mesh, shape, inputs, recipe.rounds)
        layers.append(saved)
    taking_part = mesh.spread(g, g.number(g.add("Unsqueeze", "pooled", np.array([0]))))
    features, maxima = pool(g, mesh, value, taking_part)
    return g.add("Identity", features, name="features"), _Saved(layers, maxima)


def _features_back(g: Nodes, mesh: Mesh, saved: _Saved, error: str, gradients: dict[str, str]) -> None:
    """From the gradient by the features to those by all filters."""
    error = pool_back(g, mesh, saved.pooled, error, saved.layers[-1].shape.channels_out)
    for index, layer in reversed(list(enumerate(saved.layers))):
        found = convolve_back(g, mesh, layer, error, needs_value=index > 0)
        gradients[f"filters{index}.weights"], gradients[f"filters{index}.bias"] = found.weights, found.bias
        error = found.value


def _head(g: Nodes, recipe: Recipe, features: str, gradients: dict[str, str]) -> str:
    """Dense layers, loss and the way back; returns the gradient by the features, "" where nobody needs it."""
    shares = g.add("Div", features, float(ACTIVATION_MAX))
    every = shares
    if recipe.appends_maximum:
        every = g.add("Concat", shares, g.add("ReduceMax", shares, axes=[1], keepdims=1), axis=1)
    values = [g.add("Div", g.add("Sub", every, "centre"), "scale")]
    last = len(recipe.widths) - 2
    for index in range(last + 1):
        total = g.add("Gemm", values[-1], f"dense{index}.weights", f"dense{index}.bias")
        values.append(g.add("Relu", total) if index < last else g.add("Identity", total, name="logits"))
    error = _loss(g)
    for index in range(last, -1, -1):
        gradients[f"dense{index}.weights"] = g.add("Gemm", values[index], error, transA=1)
        gradients[f"dense{index}.bias"] = g.add("ReduceSum", error, np.array([0]), keepdims=0)
        if index == 0 and not recipe.layers:
            return ""
        error = g.add("Gemm", error, f"dense{index}.weights", transB=1)
        if index:
            error = g.add("Mul", g.number(g.add("Greater", values[index], 0.0)), error)
    error = g.add("Div", error, "scale")
    if recipe.appends_maximum:
        error = _maximum_back(g, shares, error, recipe.widths[0] - 1)
    return g.add("Div", error, float(ACTIVATION_MAX))


def _loss(g: Nodes, penalty: str = "") -> str:
    """Softmax cross-entropy, the mean over the batch, and a penalty; returns the gradient by the logits."""
    by_cycle = g.add("ReduceSum", g.add("Mul", "targets", g.add("LogSoftmax", "logits", axis=1)), np.array([1]))
    entropy = g.add("Neg", g.add("ReduceMean", by_cycle, keepdims=0))
    g.add("Add", entropy, penalty or 0.0, name="loss")
    batch = g.number(g.add("Shape", "targets", end=1))
    return g.add("Div", g.add("Sub", g.add("Softmax", "logits", axis=1), "targets"), batch)


def _maximum_back(g: Nodes, shares: str, error: str, features: int) -> str:
    """The appended maximum's gradient goes to the feature that it was, the first of several."""
    by_feature = g.add("Slice", error, np.array([0]), np.array([features]), np.array([1]))
    by_maximum = g.add("Slice", error, np.array([features]), np.array([features + 1]), np.array([1]))
    winner = g.add("Equal", g.add("ArgMax", shares, axis=1, keepdims=1), np.arange(features)[np.newaxis])
    return g.add("Add", by_feature, g.add("Where", winner, by_maximum, 0.0))


def _update(g: Nodes, recipe: Recipe, name: str) -> None:
    """The optimiser's step for one parameter, which then stays within what nodes can hold."""
    is_filter = name.startswith("filters")
    rate = "filter_rate" if is_filter else "rate"
    step = g.add("Mul", direction(g, recipe.optimiser, name), rate)
    value = g.add("Sub", name, step)
    if recipe.weight_decay and not is_filter and name.endswith("weights"):
        value = g.add("Sub", value, g.add("Mul", name, g.add("Mul", rate, recipe.weight_decay)))
    if recipe.has_sign:
        pass  # each filter has a scale of its own, so none can leave what nodes can hold
    elif is_filter and name.endswith("weights"):
        value = g.add("Clip", value, -1.0, (WEIGHT_ONE - 1) / WEIGHT_ONE)
    elif is_filter:
        limit = g.add("Div", BIAS_LIMIT / BIAS_ONE, name.replace("bias", "step"))
        value = g.add("Clip", value, g.add("Neg", limit), limit)
    g.add("Identity", value, name=f"next.{name}")


def _model(g: Nodes, recipe: Recipe) -> ModelProto:
    number = helper.np_dtype_to_tensor_dtype(g.dtype)
    cells = ("batch", recipe.site.rows, recipe.site.cols)
    shapes = parameter_shapes(recipe)
    tensors: dict[str, tuple[int | str, ...]] = {"targets": ("batch", CLASSES)}
    if recipe.widths:
        features = ("batch", recipe.widths[0] - recipe.appends_maximum)
        tensors |= {"centre": recipe.widths[:1], "scale": recipe.widths[:1], "rate": ()}
    else:
        features = ("batch", recipe.site.block_shape[0] * recipe.site.block_shape[1])
    inputs = []
    if recipe.layers:
        exchanges = sum(layer.kind == CONV3X3 for layer in recipe.layers)
        inputs.append(helper.make_tensor_value_info("heard", TensorProto.BOOL, (exchanges, SLOTS, *cells)))
        inputs.append(helper.make_tensor_value_info("pooled", TensorProto.BOOL, cells))
        tensors |= {"readings": cells, "filter_rate": ()}
        if not recipe.has_sign:
            tensors |= {f"filters{index}.step": () for index in range(len(recipe.layers))}
    else:
        tensors["features"] = features
    if recipe.optimiser == "adam":
        tensors["count"] = ()
    trained = {each: shape for name, shape in shapes.items() for each in (name, *state_names(recipe.optimiser, name))}
    inputs += [helper.make_tensor_value_info(name, number, shape) for name, shape in (tensors | trained).items()]
    results = {"loss": (), "logits": ("batch", CLASSES)} | ({"features": features} if recipe.layers else {})
    results |= {f"gradient.{name}": shape for name, shape in shapes.items()}
    results |= {f"next.{name}": shape for name, shape in trained.items()}
    outputs = [helper.make_tensor_value_info(name, number, shape) for name, shape in results.items()]
    body = helper.make_graph(g.nodes, "training", inputs, outputs, g.initializers)
    model = model_of(body)
    checker.check_model(model, full_check=True)
    return model
