"""The training step once more, in plain numpy and written from the definition: what the ONNX graph is compared with.

It takes the same arrays under the same names (gateway/training_graph.py) and computes in the type that they have, on
values [batch, channels, rows, cols], without padding or tricks of layout.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gateway.model import CONV3X3
from gateway.training_graph import Arrays, Recipe
from gateway.training_optimiser import ADAM_BETA1, ADAM_BETA2, ADAM_EPSILON, MOMENTUM, STATE_OF
from tools import sign_oracle

Floats = NDArray[np.floating[Any]]
Bools = NDArray[np.bool_]

_TAPS, _CENTRE = 9, 4


class _Layer(NamedTuple):
    """What a node layer leaves behind: taps [n, in, taps, cells], gains [out, in, taps], the rest [n, out, cells]."""

    taps: Floats
    gains: Floats
    heard: Bools | None
    activations: Floats
    moves: Bools


class Oracle:
    """A network in training.

    Attributes:
        parameters: they change with every step.
        state: the optimiser's, under the names of the graph.
    """

    def __init__(self, recipe: Recipe, parameters: Arrays, constants: Arrays):
        """Constants are centre, scale and each node layer's step."""
        self.parameters = dict(parameters)
        kinds = STATE_OF[recipe.optimiser]
        self.state = {f"{name}.{kind}": np.zeros_like(x) for name, x in parameters.items() for kind in kinds}
        self._recipe = recipe
        self._constants = constants
        self._count = 0

    def step(self, batch: Arrays, rate: float, filter_rate: float) -> float:
        """Learn from one batch; the loss before that."""
        loss, gradients = self.gradients(batch)
        self._count += 1
        for name, gradient in gradients.items():
            value, is_filter = self.parameters[name], name.startswith("filters")
            decay = 0 if is_filter or name.endswith("bias") else self._recipe.weight_decay
            direction = self._direction(name, gradient) + decay * value
            value = value - (filter_rate if is_filter else rate) * direction
            self.parameters[name] = self._limited(name, value).astype(gradient.dtype)
        return loss

    def gradients(self, batch: Arrays) -> tuple[float, Arrays]:
        """The mean loss over a batch and its gradient by every parameter."""
        if self._recipe.has_sign:
            return sign_oracle.gradients(self._recipe, self.parameters, batch)
        if not self._recipe.layers:
            loss, gradients, _ = self._head(batch["features"], batch["targets"])
            return loss, gradients
        layers = self._mesh(batch)
        rows, cols = batch["pooled"].shape[1:]
        last = layers[-1].activations * batch["pooled"].reshape(len(batch["pooled"]), 1, -1)
        blocks = _blocks(last.reshape(*last.shape[:2], rows, cols))
        loss, gradients, error = self._head(_features(blocks), batch["targets"])
        cells = _blocks_back(blocks, error)[:, :, :rows, :cols] * batch["pooled"][:, np.newaxis]
        return loss, gradients | self._mesh_back(layers, cells)

    def _mesh(self, batch: Arrays) -> list[_Layer]:
        value, halos, layers = batch["readings"][:, np.newaxis], iter(batch["heard"]), []
        for index, shape in enumerate(self._recipe.layers):
            step = self._constants[f"filters{index}.step"]
            weights = self.parameters[f"filters{index}.weights"] * 128
            bias = self.parameters[f"filters{index}.bias"] * 256 * step
            if self._recipe.rounds:
                weights, bias = np.rint(weights).clip(-128, 127), np.rint(bias) + step / 2
            heard = next(halos) if shape.kind == CONV3X3 else None
            taps = _taps(value, heard)
            total = weights.reshape(len(weights), -1) @ taps.reshape(len(taps), -1, taps.shape[-1])
            free = (total + bias[:, np.newaxis]) / step
            free = np.floor(free) if self._recipe.rounds else free
            activations = free.clip(0, 255)
            layers.append(_Layer(taps, weights / step, heard, activations, free == activations))
            value = activations.reshape(*activations.shape[:2], *value.shape[2:])
        return layers

    def _mesh_back(self, layers: list[_Layer], error: Floats) -> Arrays:
        gradients: Arrays = {}
        for index in range(len(layers) - 1, -1, -1):
            layer, grid = layers[index], error.shape[2:]
            moving = error.reshape(layer.moves.shape) * layer.moves
            flat = layer.taps.reshape(len(layer.taps), -1, layer.taps.shape[-1])
            by_weights = (moving @ flat.transpose(0, 2, 1)).sum(axis=0).reshape(layer.gains.shape)
            gradients[f"filters{index}.weights"] = by_weights * 128 / self._constants[f"filters{index}.step"]
            gradients[f"filters{index}.bias"] = moving.sum(axis=(0, 2)) * 256
            if index:
                by_taps = layer.gains.reshape(len(layer.gains), -1).T @ moving
                error = _taps_back(by_taps.reshape(*layer.taps.shape[:3], *grid), layer.heard)
        return gradients

    def _head(self, features: Floats, targets: Floats) -> tuple[float, Arrays, Floats]:
        """Loss, gradients by the dense layers, gradient by the features."""
        shares = features / 255
        inputs = np.hstack([shares, shares.max(axis=1, keepdims=True)]) if self._recipe.appends_maximum else shares
        values = [(inputs - self._constants["centre"]) / self._constants["scale"]]
        last = len(self._recipe.widths) - 2
        for index in range(last + 1):
            total = values[-1] @ self.parameters[f"dense{index}.weights"] + self.parameters[f"dense{index}.bias"]
            values.append(np.maximum(total, 0) if index < last else total)
        logits = values[-1] - values[-1].max(axis=1, keepdims=True)
        log_scores = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        error = (np.exp(log_scores) - targets) / len(targets)
        gradients: Arrays = {}
        for index in range(last, -1, -1):
            gradients[f"dense{index}.weights"] = values[index].T @ error
            gradients[f"dense{index}.bias"] = error.sum(axis=0)
            error = error @ self.parameters[f"dense{index}.weights"].T * (values[index] > 0 if index else 1)
        error = error / self._constants["scale"]
        if self._recipe.appends_maximum:
            by_maximum, error = error[:, -1], error[:, :-1].copy()
            error[np.arange(len(error)), shares.argmax(axis=1)] += by_maximum
        return float(-(targets * log_scores).sum(axis=1).mean()), gradients, error / 255

    def _direction(self, name: str, gradient: Floats) -> Floats:
        if self._recipe.optimiser == "sgd":
            return gradient
        if self._recipe.optimiser == "momentum":
            self.state[f"{name}.velocity"] = MOMENTUM * self.state[f"{name}.velocity"] + gradient
            return self.state[f"{name}.velocity"]
        means = []
        for kind, value, beta in (("mean", gradient, ADAM_BETA1), ("square", gradient**2, ADAM_BETA2)):
            self.state[f"{name}.{kind}"] = beta * self.state[f"{name}.{kind}"] + (1 - beta) * value
            means.append(self.state[f"{name}.{kind}"] / (1 - beta**self._count))
        return means[0] / (np.sqrt(means[1]) + ADAM_EPSILON)

    def _limited(self, name: str, value: Floats) -> Floats:
        """Filters stay within int8 and within a bias below 2^24 - 2^16; with a sign they have a scale of their own."""
        if not name.startswith("filters") or self._recipe.has_sign:
            return value
        if name.endswith("weights"):
            return value.clip(-1, 127 / 128)
        limit = (2**24 - 2**16) / 256 / self._constants[name.replace("bias", "step")]
        return value.clip(-limit, limit)


def _taps(value: Floats, heard: Bools | None) -> Floats:
    """[n, c, rows, cols] -> [n, c, taps, cells], the own value where a neighbour was not heard."""
    if heard is None:
        return value.reshape(*value.shape[:2], 1, -1)
    rows, cols = value.shape[2:]
    padded = np.pad(value, ((0, 0), (0, 0), (1, 1), (1, 1)))
    taps = np.empty((*value.shape[:2], _TAPS, rows, cols), value.dtype)
    for tap in range(_TAPS):
        seen = padded[:, :, tap // 3 : tap // 3 + rows, tap % 3 : tap % 3 + cols]
        taps[:, :, tap] = value if tap == _CENTRE else np.where(heard[_slot(tap)][:, np.newaxis], seen, value)
    return taps.reshape(*taps.shape[:3], -1)


def _taps_back(by_taps: Floats, heard: Bools | None) -> Floats:
    """[n, c, taps, rows, cols] -> [n, c, rows, cols]: to the neighbour if it was heard, else to the own value."""
    if heard is None:
        return by_taps[:, :, 0]
    rows, cols = by_taps.shape[3:]
    padded = np.zeros((*by_taps.shape[:2], rows + 2, cols + 2), by_taps.dtype)
    own = padded[:, :, 1:-1, 1:-1]
    for tap in range(_TAPS):
        seen = padded[:, :, tap // 3 : tap // 3 + rows, tap % 3 : tap % 3 + cols]
        passed = by_taps[:, :, tap] * (1 if tap == _CENTRE else heard[_slot(tap)][:, np.newaxis])
        seen += passed
        own += by_taps[:, :, tap] - passed
    return own


def _slot(tap: int) -> int:
    return tap - (tap > _CENTRE)


def _blocks(value: Floats) -> Floats:
    """[n, c, rows, cols] -> the members of each block, column by column [n, c, block rows, block cols, 4]."""
    n, channels, rows, cols = value.shape
    even = np.pad(value, ((0, 0), (0, 0), (0, rows % 2), (0, cols % 2)))
    return (
        even.reshape(n, channels, -(-rows // 2), 2, -(-cols // 2), 2)
        .transpose(0, 1, 2, 4, 5, 3)
        .reshape(n, channels, -(-rows // 2), -(-cols // 2), 4)
    )


def _features(blocks: Floats) -> Floats:
    """Maxima [n, block rows * block cols * c]."""
    maxima: Floats = blocks.max(axis=-1).transpose(0, 2, 3, 1)
    return maxima.reshape(len(blocks), -1)


def _blocks_back(blocks: Floats, error: Floats) -> Floats:
    """The gradient by the features goes to the first largest member: [n, c, rows, cols], both even."""
    n, channels, block_rows, block_cols, _ = blocks.shape
    by_block = error.reshape(n, block_rows, block_cols, channels).transpose(0, 3, 1, 2)
    members = np.where(blocks.argmax(axis=-1)[..., np.newaxis] == np.arange(4), by_block[..., np.newaxis], 0)
    grid = members.reshape(n, channels, block_rows, block_cols, 2, 2).transpose(0, 1, 2, 5, 3, 4)
    return grid.reshape(n, channels, 2 * block_rows, 2 * block_cols)
