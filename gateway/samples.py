"""Samples: cycles with the answer that was right. What the gateway learns from and is judged by."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gateway import rule, twin
from gateway.cycles import Record
from gateway.model import Filters
from gateway.site import Site


class Samples(NamedTuple):
    """Labelled cycles of one site, in the order in which they happened.

    Attributes:
        readings_ccel: int16 [n, rows, cols]; anything where no reading is.
        present: bool [n, rows, cols], which nodes had a reading.
        abnormal: bool [n].
    """

    readings_ccel: NDArray[np.int16]
    present: NDArray[np.bool_]
    abnormal: NDArray[np.bool_]

    @property
    def cycles(self) -> int:
        """How many cycles."""
        return len(self.abnormal)

    def part(self, where: slice | NDArray[Any]) -> "Samples":
        """Some of them: a slice, numbers, or a bool for each."""
        return Samples(self.readings_ccel[where], self.present[where], self.abnormal[where])


def samples_of(records: Sequence[Record]) -> Samples:
    """What nodes reported, labelled by the site's rule over pairs that both have readings.

    A cycle without any reading says nothing and is left out.

    Raises:
        ValueError: no cycle is left.
    """
    telling = [record for record in records if record.has_reading.any()]
    if not telling:
        raise ValueError(f"records: none of {len(records)} has a reading; wait for cycles that nodes reported")
    readings_ccel = np.stack([record.readings_ccel for record in telling])
    present = np.stack([record.has_reading for record in telling])
    return Samples(readings_ccel, present, rule.abnormal(readings_ccel, present))


def features_of(samples: Samples, filters: Filters, site: Site) -> NDArray[np.int16]:
    """What these filters give the head, by the twin: [n, blocks of the bounding grid * channels], -1 where missing."""
    features = twin.features(filters, samples.readings_ccel, samples.present, site)
    return features.reshape(samples.cycles, math.prod(features.shape[1:]))


def split_latest(samples: Samples, held_out: float) -> tuple[Samples, Samples]:
    """Earlier cycles to train on, later ones to be judged by: the honest split, for it asks about what comes next.

    Args:
        samples: two at least.
        held_out: share of them, between 0 and 1; both parts get one cycle at least.

    Raises:
        ValueError: fewer than two samples, or no such share.
    """
    if samples.cycles < 2:
        raise ValueError(f"samples: there are {samples.cycles}; training and judging need one cycle each at least")
    if not 0 < held_out < 1:
        raise ValueError(f"held_out: {held_out} is not between 0 and 1")
    start = samples.cycles - min(max(round(held_out * samples.cycles), 1), samples.cycles - 1)
    return samples.part(slice(start)), samples.part(slice(start, None))
