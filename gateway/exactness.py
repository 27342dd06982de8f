"""Exact means equal: every feature that can be recomputed from what was reported, recomputed and compared."""

from typing import NamedTuple

import numpy as np

from gateway import twin
from gateway.cycles import Record, blocks_with
from gateway.model import Filters
from gateway.site import Site


class Comparison(NamedTuple):
    """Features counted one by one.

    Attributes:
        compared: reported and recomputed.
        equal: of them, equal to the bit.
        beyond: reported, yet resting on a unit whose absence bytes or on a reading that never came.
    """

    compared: int
    equal: int
    beyond: int


def compare(record: Record, filters: Filters, site: Site) -> Comparison:
    """Compare a cycle's features with the twin's, absence bytes included; without any reading there is nothing to."""
    if not record.has_reading.any():
        return Comparison(0, 0, 0)
    masks = site.neighbour_masks
    units = twin.units(filters, record.readings_ccel, record.has_reading, masks, record.absence)
    known = twin.computable(record.pooled, record.has_reading, masks, record.absence)
    features = twin.pool(units, record.pooled)
    reported = record.features != twin.NOTHING
    # A block can be compared when each of its pooled units can be recomputed.
    unknown = blocks_with(record.pooled & ~known, site)[..., np.newaxis]
    comparable = reported & ~unknown
    return Comparison(
        int(comparable.sum()), int((comparable & (features == record.features)).sum()), int((reported & unknown).sum())
    )
