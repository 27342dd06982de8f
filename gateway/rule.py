"""The site's rule: a cycle is abnormal when two neighbouring nodes differ by 3.0 degrees Celsius or more (R0-13).

Neighbours are up/down/left/right only, and only pairs in which both have a reading count: a silent node hides its
pairs, it makes none. The rule is closed-form, so it scores 100 % against labels made from the same readings; every
accuracy of the network is printed beside it.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gateway.site import Cell

ABNORMAL_CCEL = 300


class Difference(NamedTuple):
    """The pair of neighbours that differ most.

    Attributes:
        difference_ccel: 0..65535, without sign.
        first, second: the two cells (row, col); `first` is the upper or left one.
    """

    difference_ccel: int
    first: Cell
    second: Cell


def abnormal(readings_ccel: NDArray[np.int16], present: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which fields are abnormal; [[2000, 2299]] is not, [[2000, 2300]] is.

    Args:
        readings_ccel: int16 [..., rows, cols], 0.01 degrees Celsius.
        present: bool, of the readings' shape or [rows, cols] for all of them: where there is a reading.

    Returns:
        bool [...]; a field without any pair is normal.
    """
    present = np.broadcast_to(present, readings_ccel.shape)
    vertical = _differences(readings_ccel, present, axis=-2) >= ABNORMAL_CCEL
    horizontal = _differences(readings_ccel, present, axis=-1) >= ABNORMAL_CCEL
    return np.asarray(vertical.any(axis=(-2, -1)) | horizontal.any(axis=(-2, -1)))


def largest_difference(readings_ccel: NDArray[np.int16], present: NDArray[np.bool_]) -> Difference | None:
    """The pair that differs most, the first of several; None where no two neighbours have a reading.

    Args:
        readings_ccel, present: one field, [rows, cols] each, as in `abnormal`.
    """
    found = None
    for axis, (down, right) in enumerate(((1, 0), (0, 1))):
        differences = _differences(readings_ccel, present, axis)
        if not differences.size:
            continue
        row, col = (int(place) for place in np.unravel_index(differences.argmax(), differences.shape))
        largest = int(differences[row, col])
        if largest >= 0 and (found is None or largest > found.difference_ccel):
            found = Difference(largest, (row, col), (row + down, col + right))
    return found


def _differences(readings_ccel: NDArray[np.int16], present: NDArray[np.bool_], axis: int) -> NDArray[np.int32]:
    """Absolute differences along an axis, -1 where one of the pair has no reading; int32, for int16 would wrap."""
    differences = np.abs(np.diff(readings_ccel.astype(np.int32), axis=axis))
    count = present.shape[axis]
    both = present.take(range(count - 1), axis) & present.take(range(1, count), axis)
    return np.where(both, differences, np.int32(-1))
