"""Exact means equal: every feature that can be recomputed from what was reported, recomputed and compared.

In mode event what was reported are proofs, and each node's own state is compared too.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gateway import twin
from gateway.cycles import OFFLINE, UNPROVEN, Record, blocks_with
from gateway.model import Filters
from gateway.site import Site
from protocol.frame import STATE_NONE


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
    """Compare a cycle's features with the twin's: absence bytes included, or those of a full exchange in mode event.

    Where no reading is known there is nothing to compare.
    """
    if record.proofs is not None:
        return _compare_proofs(record, record.proofs, filters, site)
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


def _compare_proofs(record: Record, proofs: NDArray[np.uint8], filters: Filters, site: Site) -> Comparison:
    """Compare each node's own state and each block's feature with those of a full exchange of the proven readings.

    Compared is what rests on nodes that gave a proof; what rests on one that is there and gave none is `beyond`.
    """
    there, present = site.mask & (proofs != OFFLINE), proofs < STATE_NONE
    proven = there & (proofs != UNPROVEN)
    if not proven.any():
        return Comparison(0, 0, 0)
    none = np.zeros((1, *present.shape), np.uint8)
    units = twin.units(filters, record.readings_ccel, present, site.neighbour_masks, none)
    unknown = twin.neighbours_where(there & ~proven) != 0
    states = present & ~unknown
    right = int((units[..., 0] == proofs)[states].sum())
    # A block can be compared when each of its nodes can.
    shaky = blocks_with(there & (~proven | present & unknown), site)[..., np.newaxis]
    features = twin.pool(units, present)
    comparable = ~shaky & (features != twin.NOTHING)
    equal = int((comparable & (features == record.features)).sum())
    beyond = int((present & unknown).sum())
    return Comparison(int(states.sum()) + int(comparable.sum()), right + equal, beyond)
