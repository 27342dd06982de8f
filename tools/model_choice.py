"""The model a site starts with: the committed one, or one fitted now on simulated rooms of the site's shape."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from gateway.head_fit import fit_head
from gateway.model import Model, spec_named
from gateway.rule import abnormal
from gateway.samples import Samples
from gateway.site import Site
from gateway.start_weights import load_start, start_filters
from sim.field.lounge import Lounge, simulate

# A room teaches its own corners, so many rooms, and of each every twelfth slot: neighbouring slots are nearly the same.
FIT_ROOMS = 10
FIT_SLOTS, FIT_STRIDE = 2_880, 12
# Other rooms than those that demos show.
FIT_SEED_OFFSET = 1_000

Progress = Callable[[int, int], None]
# Opens a named bar: stage("simulating the room") -> what to call with (done, total).
Stage = Callable[[str], Progress]


def choose_model(spec_name: str, site: Site, seed: int, stage: Stage) -> Model:
    """The model for a spec and a site, its filters with the site's own reference.

    Raises:
        gateway.model.ModelError: no such spec.
    """
    model = load_start(spec_name, site)
    if model:
        return replace(model, filters=replace(model.filters, reference_ccel=site.reference_ccel))
    spec = spec_named(spec_name)
    fields = _rooms(site, seed + FIT_SEED_OFFSET, stage("simulating rooms of this shape"))
    present = np.broadcast_to(site.mask, fields.shape)
    filters = start_filters(spec, site.reference_ccel)
    samples = Samples(fields, present, abnormal(fields, present))
    return Model(spec_name, filters, fit_head(spec, site, filters, samples, seed, stage("fitting the head to them")))


def _rooms(site: Site, seed: int, progress: Progress) -> NDArray[np.int16]:
    """Fields of several rooms, int16 [n, rows, cols]."""
    fields = []
    for room in range(FIT_ROOMS):
        fields.append(simulate(room_of(site, seed + room), FIT_SLOTS)[::FIT_STRIDE])
        progress(room + 1, FIT_ROOMS)
    return np.concatenate(fields)


def room_of(site: Site, seed: int) -> Lounge:
    """A simulated room of the site's shape."""
    grid = {(row, col) for row in range(site.rows) for col in range(site.cols)}
    return Lounge(seed=seed, rows=site.rows, cols=site.cols, holes=frozenset(grid - set(site.cells)))
