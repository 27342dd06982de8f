"""Fitting a layer with sign to labelled cycles, from noisy differences: seconds on one core.

What it knows beforehand (prior knowledge, not learning): that differences of neighbours are what matters. It starts
from the four directions of a difference and one filter of noise, with noise on each weight, at a threshold by which as
many cycles are abnormal as there are. Thresholds, weights and how the filters share the work are learned.

Some starts end in poor places, so there are several, and the one that ends with the least loss is taken.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from gateway import training_sign
from gateway.model import Filters, ModelSpec
from gateway.quantise import Shares, layer_of
from gateway.samples import Samples
from gateway.site import Site
from gateway.start_weights import start_filters
from gateway.trainer import BATCH, EPOCHS, Engine, Progress, check_samples, mesh_inputs, schedule, targets_of
from gateway.training_graph import Arrays, Recipe
from protocol.filter_set import WINDOW_TAPS
from protocol.grid import TAPS

# Directions of a difference on the taps C E S SE.
_DIRECTIONS = ((-1, 1, 0, 0), (1, -1, 0, 0), (-1, 0, 1, 0), (1, 0, -1, 0))
_NOISE = 0.3
RATE = 4e-2
# What a short radius costs: more of it costs accuracy, none costs bytes (docs/measurements.md).
RADIUS = 3.0
STARTS = 3


def fit_filters(
    spec: ModelSpec, site: Site, samples: Samples, seed: int, progress: Progress | None = None, epochs: int = EPOCHS
) -> Filters:
    """Filters of version 1 for a spec whose one layer has a sign.

    Args:
        spec: the network.
        site: where its nodes stand; the filters suit every other site as well.
        samples: labelled cycles.
        seed: of noise and order of samples; equal seeds give equal filters on one machine.
        progress: told after each epoch, of all starts.
        epochs: how often every cycle is seen.

    Raises:
        ValueError: there are no samples.
    """
    check_samples(samples)
    rng = np.random.default_rng(seed)
    recipe = Recipe(site, spec.layers, (), spec.appends_maximum, radius=RADIUS)
    filters = start_filters(spec, site.reference_ccel)
    found: list[tuple[float, int, Arrays]] = []

    def tell(done: int, _: int) -> None:
        if progress:
            progress(len(found) * epochs + done, STARTS * epochs)

    for start in range(STARTS):
        engine = Engine(recipe, _start(spec, rng), {})
        margins = _looked(engine, "logits", filters, site, samples)[:, 1] * np.float32(2 / training_sign.STEEPNESS)
        engine.values["filters0.bias"] -= np.float32(np.quantile(margins, 1 - samples.abnormal.mean()))
        for where, fall in schedule(samples.cycles, epochs, BATCH, rng, tell):
            engine.step(_batch(filters, site, samples.part(where)), rate=0, filter_rate=RATE * fall)
        loss = float(_looked(engine, "loss", filters, site, samples).mean())
        found.append((loss, start, engine.values))
    values = min(found, key=lambda each: each[:2])[2]
    layer = layer_of(spec.layers[0], Shares(values["filters0.weights"], values["filters0.bias"], 0))
    return replace(filters, layers=(layer,))


def _start(spec: ModelSpec, rng: np.random.Generator) -> Arrays:
    """Noisy differences with a bias of 0."""
    filters = spec.layers[0].filters
    window = np.zeros((filters, len(WINDOW_TAPS)))
    directions = np.array(_DIRECTIONS)[:filters]
    window[: len(directions)] = directions
    weights = np.zeros((filters, 1, TAPS), np.float32)
    weights[:, 0, WINDOW_TAPS] = window + rng.normal(0, _NOISE, window.shape)
    return {"filters0.weights": weights, "filters0.bias": np.zeros(filters, np.float32)}


def _looked(engine: Engine, output: str, filters: Filters, site: Site, samples: Samples) -> NDArray[np.floating]:
    """An output of the graph for all samples, a batch after the other."""
    parts = [slice(start, start + BATCH) for start in range(0, samples.cycles, BATCH)]
    looked = [engine.look([output], _batch(filters, site, samples.part(part)))[output] for part in parts]
    return np.concatenate([np.atleast_1d(values) for values in looked])


def _batch(filters: Filters, site: Site, samples: Samples) -> Arrays:
    return mesh_inputs(filters, site, samples) | {"targets": targets_of(samples)}
