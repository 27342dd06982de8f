"""Training: from a model and labelled cycles of its site to the next model, a batch at a time.

Filters and head learn together in one ONNX graph (gateway/training_graph.py). Nothing here waits or starts a thread:
whoever owns a loop calls `step` as often as there is time. Whether the result is any better is judged on the twin's
integers and on cycles that were not trained on (gateway/acceptance.py).
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gateway import dense, twin
from gateway.model import CLASSES, Filters, Head, Model, spec_named
from gateway.quantise import READING_LIMIT, Shares, layer_of, shares_of
from gateway.samples import Samples, features_of
from gateway.site import Site
from gateway.training_graph import Arrays, Recipe, parameter_shapes, session
from gateway.training_optimiser import state_names

EPOCHS = 20
BATCH = 100
WEIGHT_DECAY = 1e-2

# Called with (epochs done, epochs in all).
Progress = Callable[[int, int], None]


class Options(NamedTuple):
    """How to train.

    Attributes:
        rate: the first step size of the dense layers; it falls to 0 over a half cosine.
        filter_rate: the same of the filters.
        epochs: how often every cycle is seen.
        batch: cycles a step.
        lost_max: up to this share of neighbours' values is lost on purpose in each exchange (failout), 0..1, so that a
            model works in a mesh that loses some.
        seed: of the order of cycles and of what is lost; equal seeds give equal models on one machine.
        radius: weight of the radius penalty of a layer with sign (gateway/training_sign.py); else without effect.
    """

    rate: float
    filter_rate: float
    epochs: int = EPOCHS
    batch: int = BATCH
    lost_max: float = 0.0
    seed: int = 1
    radius: float = 0.0


class Engine:
    """A training graph with its parameters and the optimiser's state.

    Attributes:
        values: all of them under their names in the graph; they change with every step.
    """

    def __init__(self, recipe: Recipe, parameters: Arrays, constants: Arrays):
        """Constants are centre, scale and each node layer's step."""
        self.values = dict(parameters)
        for name, values in parameters.items():
            self.values |= {state: np.zeros_like(values) for state in state_names(recipe.optimiser, name)}
        self._session = session(recipe)
        self._inputs = {tensor.name for tensor in self._session.get_inputs()}
        self._constants = constants
        self._dtype = np.dtype(recipe.dtype)
        self._count = 0

    def step(self, batch: Arrays, rate: float, filter_rate: float) -> float:
        """Learn from one batch; the loss before that."""
        self._count += 1
        names = list(self.values)
        loss, *following = self._run(["loss", *(f"next.{name}" for name in names)], batch, rate, filter_rate)
        self.values = dict(zip(names, following, strict=True))
        return float(loss)

    def look(self, outputs: list[str], batch: Arrays) -> Arrays:
        """Outputs of the graph for a batch, without learning from it."""
        return dict(zip(outputs, self._run(outputs, batch, 0, 0), strict=True))

    def _run(self, outputs: list[str], batch: Arrays, rate: float, filter_rate: float) -> list[NDArray[np.floating]]:
        numbers = {"rate": rate, "filter_rate": filter_rate, "count": self._count}
        scalars = {name: np.array(value, self._dtype) for name, value in numbers.items() if name in self._inputs}
        result: list[NDArray[np.floating]] = self._session.run(
            outputs, {**batch, **scalars, **self._constants, **self.values}
        )
        return result


class Training:
    """A model that learns, one batch a step.

    Attributes:
        steps: to do in all.
        done: steps done.
        loss: of the last batch, before its step.
    """

    def __init__(self, model: Model, site: Site, samples: Samples, options: Options):
        """Prepare everything; nothing is learnt yet.

        Raises:
            ValueError: there are no samples.
            ModelError: the filters cannot be trained from (gateway/quantise.py).
        """
        check_samples(samples)
        self._model, self._site, self._samples, self._options = model, site, samples, options
        self._spec = spec_named(model.spec_name)
        if not self._spec.has_sign:
            inputs = dense.head_inputs(self._spec, features_of(samples, model.filters, site))
            self._standard = dense.standard_of(self._spec, inputs)
        self._shares = [shares_of(layer) for layer in model.filters.layers]
        self._engine = self._new_engine()
        self._rng = np.random.default_rng(options.seed)
        self._schedule = schedule(samples.cycles, options.epochs, options.batch, self._rng)
        self.steps, self.done, self.loss = options.epochs * math.ceil(samples.cycles / options.batch), 0, math.nan

    def step(self) -> None:
        """Learn from the next batch."""
        where, fall = next(self._schedule)
        samples, options = self._samples.part(where), self._options
        batch = mesh_inputs(self._model.filters, self._site, samples) | {"targets": targets_of(samples)}
        if options.lost_max:
            batch["heard"] &= self._arrives(batch["heard"].shape)
        self.loss = self._engine.step(batch, options.rate * fall, options.filter_rate * fall)
        self.done += 1

    def model(self, version: int) -> Model:
        """What has been learnt so far: filters of this version, the next revision of the head."""
        values, before = self._engine.values, self._model.filters
        layers = tuple(
            layer_of(shape, Shares(values[f"filters{k}.weights"], values[f"filters{k}.bias"], shares.shift))
            for k, (shape, shares) in enumerate(zip(self._spec.layers, self._shares, strict=True))
        )
        revision = self._model.head.revision + 1
        if self._spec.has_sign:  # there is nothing to learn for a head
            head = replace(self._model.head, revision=revision)
        else:
            head = head_of(values, self._standard, revision)
        return Model(self._model.spec_name, Filters(version, before.reference_ccel, layers), head)

    def _new_engine(self) -> Engine:
        widths, spec = self._model.head.widths, self._spec
        arrays = [array for shares in self._shares for array in (shares.weights, shares.bias)]
        if spec.has_sign:
            recipe = Recipe(self._site, spec.layers, (), spec.appends_maximum, radius=self._options.radius)
            return Engine(recipe, dict(zip(parameter_shapes(recipe), arrays, strict=True)), {})
        recipe = Recipe(self._site, spec.layers, widths, spec.appends_maximum, weight_decay=WEIGHT_DECAY)
        arrays += [array for layer in dense.unfolded(self._model.head, self._standard) for array in layer]
        constants = self._standard._asdict() | {
            f"filters{index}.step": np.array(1 << shares.shift, np.float32) for index, shares in enumerate(self._shares)
        }
        return Engine(recipe, dict(zip(parameter_shapes(recipe), arrays, strict=True)), constants)

    def _arrives(self, shape: tuple[int, ...]) -> NDArray[np.bool_]:
        """Which values are not lost on purpose: every cycle draws its share anew, in steps of 1/256."""
        lost = 256 * self._options.lost_max * self._rng.random(shape[2])
        draws = np.frombuffer(self._rng.bytes(math.prod(shape)), np.uint8).reshape(shape)
        return draws >= lost[:, np.newaxis, np.newaxis]


def check_samples(samples: Samples) -> None:
    """Raises ValueError where there are no samples to learn from."""
    if not samples.cycles:
        raise ValueError("samples: there are 0; give labelled cycles, some of each class")


def schedule(
    cycles: int, epochs: int, batch: int, rng: np.random.Generator, progress: Progress | None = None
) -> Iterator[tuple[NDArray[np.intp], float]]:
    """What each step learns from, and how far it goes; progress is told when an epoch's last step is over.

    Yields:
        The numbers of the batch's cycles, every cycle once an epoch in random order; and the share of the first step
        size, 1 at the beginning and down to 0 over a half cosine.
    """
    batches = math.ceil(cycles / batch)
    for epoch in range(epochs):
        order = rng.permutation(cycles)
        for index in range(batches):
            done = (epoch * batches + index) / (epochs * batches)
            yield order[index * batch : (index + 1) * batch], (1 + math.cos(math.pi * done)) / 2
        if progress:
            progress(epoch + 1, epochs)


def mesh_inputs(filters: Filters, site: Site, samples: Samples) -> Arrays:
    """What the graph takes of cycles in which nothing was lost but the readings that are missing."""
    has_reading = samples.present & site.mask
    heard = twin.slots_of(site.neighbour_masks & twin.neighbours_where(has_reading))
    centred = samples.readings_ccel.astype(np.float32) - np.float32(filters.reference_ccel)
    return {
        "readings": centred.clip(-READING_LIMIT, READING_LIMIT),
        "heard": np.repeat(heard[np.newaxis], filters.exchanges, axis=0),
        "pooled": has_reading,
    }


def targets_of(samples: Samples) -> NDArray[np.float32]:
    """The wanted scores, [n, 2]."""
    return np.eye(CLASSES, dtype=np.float32)[samples.abnormal.astype(np.intp)]


def head_of(values: Arrays, standard: dense.Standard, revision: int) -> Head:
    """The head that takes features as they come, from an engine's values."""
    count = sum(name.startswith("dense") and name.endswith(".weights") for name in values)
    layers = [(values[f"dense{index}.weights"], values[f"dense{index}.bias"]) for index in range(count)]
    return dense.folded(layers, standard, revision)
