"""What a simulation starts with: a site with holes, a model, readings. All of it follows from the seed."""

import itertools
import random
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gateway.model import SPECS, Head, Model, feature_len
from gateway.site import Site
from gateway.start_weights import start_filters

HOLES_SHARE_MAX = 0.3
# Readings: a level, each cell's own offset, and noise large enough to make most features differ, ccel.
LEVEL_CCEL, OFFSET_CCEL, NOISE_CCEL = 2_200, 200, 250
READINGS_LEN = 64
# Mode event: quiet cells that drift, and so many times a cell that is warm for some cycles, in some of them too little.
DRIFT_CCEL, DRIFT_KEPT = 35, 0.9
WARM_TIMES, WARM_CYCLES_MAX = 6, 12
WARM_CCEL_MIN, WARM_CCEL_MAX = 200, 700


class Scene(NamedTuple):
    """Who is there, what decides at first, and what sensors give.

    Attributes:
        site: where nodes stand.
        model: filters and head.
        readings: of each cell in the site's order, int16 ccel or None cycle by cycle; they begin again where they end.
    """

    site: Site
    model: Model
    readings: list[list[int | None]]


def make_site(rows: int, cols: int, source: random.Random | None) -> Site:
    """A grid; with a source up to 30 % of its cells are left out, but never all of them."""
    cells = [(row, col) for row in range(rows) for col in range(cols)]
    if source:
        share = source.random() * HOLES_SHARE_MAX
        cells = [cell for cell in cells if source.random() >= share] or cells[:1]
    return Site("simulated", rows, cols, tuple(cells))


def make_model(seed: int, spec_name: str, site: Site) -> Model:
    """Start filters, and a head that says now this, now that: only whether it can be said once more is looked at."""
    spec = SPECS[spec_name]
    widths = (feature_len(site, spec) + spec.appends_maximum, *spec.hidden, 2)
    draw = np.random.default_rng([seed, len(widths)])
    layers = tuple(_layer(draw, *pair) for pair in itertools.pairwise(widths))
    return Model(spec_name, start_filters(spec), Head(1, layers))


def make_readings(seed: int, cells: int, silent: float) -> list[list[int | None]]:
    """READINGS_LEN readings of each cell, int16 ccel; a share `silent` of them is None."""
    draw = np.random.default_rng(seed)
    offsets = draw.normal(0, OFFSET_CCEL, (cells, 1))
    values = LEVEL_CCEL + offsets + draw.normal(0, NOISE_CCEL, (cells, READINGS_LEN))
    return _columns(draw, values, silent)


def make_quiet_readings(seed: int, cells: int, silent: float) -> list[list[int | None]]:
    """The same for mode event: about half of the cycles are abnormal, and most nodes have nothing to say in most."""
    draw = np.random.default_rng(seed)
    values = LEVEL_CCEL + draw.normal(0, DRIFT_CCEL, (cells, READINGS_LEN))
    for cycle in range(1, READINGS_LEN):
        values[:, cycle] += DRIFT_KEPT * (values[:, cycle - 1] - LEVEL_CCEL)
    for _ in range(WARM_TIMES):
        first = int(draw.integers(READINGS_LEN))
        warm = slice(first, first + int(draw.integers(1, WARM_CYCLES_MAX + 1)))
        values[draw.integers(cells), warm] += draw.integers(WARM_CCEL_MIN, WARM_CCEL_MAX)
    return _columns(draw, values, silent)


def _columns(draw: np.random.Generator, values: NDArray[np.float64], silent: float) -> list[list[int | None]]:
    """Values as readings, cell by cell; a share of them is missing."""
    there = draw.random(values.shape) >= silent
    return [
        [int(value) if there_is else None for value, there_is in zip(*column, strict=True)]
        for column in zip(np.rint(values).astype(int).tolist(), there.tolist(), strict=True)
    ]


def _layer(draw: np.random.Generator, inputs: int, outputs: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weights and bias; each output's weights add up to 0, so that a level that all inputs share says nothing."""
    weights = draw.normal(0, 2 / np.sqrt(inputs), (inputs, outputs))
    return (weights - weights.mean(axis=0)).astype(np.float32), np.zeros(outputs, np.float32)
