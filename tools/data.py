"""Real gridded temperatures as readings: what stands behind `thermesh data ostia|e1`.

Both fields come from the PyPI package `iris-sample-data` (HDF5 files, netCDF-4). Values are the files' own, kelvin
minus 273.15, neither scaled nor stretched; a grid point stands for a node. Rows run as in the files, from south to
north, columns eastward; n-00-00 is the first corner of the crop.
"""

import re
from importlib import metadata, resources
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gateway.site import Cell
from protocol.fixed import READING_MAX, READING_MIN
from protocol.grid import ROWS_MAX

PACKAGE = "iris-sample-data"
KELVIN_AT_0_C = 273.15
_CROP = re.compile(r"(\d{1,6}):(\d{1,6}),(\d{1,6}):(\d{1,6})", re.ASCII)


class DataError(ValueError):
    """No such data; one line names the field, its value and what would be right."""


class Crop(NamedTuple):
    """A rectangle of the grid; as with a range, the stops are not part of it."""

    row_start: int
    row_stop: int
    col_start: int
    col_stop: int

    def __str__(self) -> str:
        """As `parse_crop` reads it."""
        return f"{self.row_start}:{self.row_stop},{self.col_start}:{self.col_stop}"


class Field(NamedTuple):
    """A field of the package.

    Attributes:
        file, variable: where it lies; float [cycles, rows, cols], kelvin.
        crop: 17 x 25 points, the lounge's size, where neighbours differ most often by about 3 degrees.
        what: one sentence.
    """

    file: str
    variable: str
    crop: Crop
    what: str


class Extract(NamedTuple):
    """A crop as readings: cells, ccel and present as in tools.readings.Readings.

    Attributes:
        description: what it is and how much of it, one line.
        licence: what the package says of its terms, one line.
    """

    cells: list[Cell]
    ccel: NDArray[np.int16]
    present: NDArray[np.bool_]
    description: str
    licence: str


FIELDS = {
    "ostia": Field(
        "ostia_monthly.nc",
        "surface_temperature",
        Crop(1, 18, 311, 336),
        "OSTIA sea-surface temperature near the equator, monthly means, April 2006 to September 2010",
    ),
    "e1": Field(
        "E1_north_america.nc",
        "air_temperature",
        Crop(3, 20, 22, 47),
        "air temperature at 1.5 m over North America, yearly means 1860 to 2099 of a climate model (scenario E1), "
        "so computed and not measured",
    ),
}


def parse_crop(text: str) -> Crop:
    """A crop from `rows,cols`, each start:stop; '1:18,311:336' is 17 x 25 points.

    Raises:
        DataError: the text is no crop, an empty one, or larger than a site.
    """
    match = _CROP.fullmatch(text)
    if not match:
        raise DataError(f"--crop {text[:40]!r}: is no crop; write rows and columns like 1:18,311:336")
    crop = Crop(*(int(number) for number in match.groups()))
    for axis, start, stop in (("rows", *crop[:2]), ("cols", *crop[2:])):
        if not 1 <= stop - start <= ROWS_MAX:
            limits = f"1..{ROWS_MAX} {axis}"
            raise DataError(f"--crop {text}: {axis} {start}:{stop} are not {limits}; write start:stop like 1:18")
    return crop


def extract(name: str, crop: Crop | None = None) -> Extract:
    """A field as readings, one cycle a time step.

    Args:
        name: a key of FIELDS.
        crop: the field's own when None.

    Returns:
        Points that never have a value (land, in a sea-surface field) are holes: no cell. Where a value is missing now
        and then, `present` is False.

    Raises:
        DataError: no such field, the crop lies outside or holds no value, or the extra `data` is not installed.
    """
    if name not in FIELDS:
        raise DataError(f"data {name[:40]!r}: is no field; write {' or '.join(FIELDS)}")
    field = FIELDS[name]
    crop = crop or field.crop
    kelvin = _load(field, crop)
    present = np.isfinite(kelvin)
    ever = present.any(axis=0)
    if not ever.any():
        raise DataError(f"--crop {crop}: holds no value of {name}; write another, like {field.crop}")
    ccel = _ccel(np.where(present, kelvin, KELVIN_AT_0_C))
    cells = [(int(row), int(col)) for row, col in np.argwhere(ever)]
    description = (
        f"{field.what}; rows {crop.row_start}:{crop.row_stop} northward, columns {crop.col_start}:{crop.col_stop} "
        f"eastward: {len(kelvin)} cycles of {len(cells)} nodes, {ever.size - len(cells)} holes"
    )
    return Extract(cells, ccel[:, ever], present[:, ever], description, _licence())


def _load(field: Field, crop: Crop) -> NDArray[np.float64]:
    """The crop in kelvin [cycles, rows, cols], NaN where the file's fill value stands."""
    try:
        import h5py

        path = resources.files("iris_sample_data") / "sample_data" / field.file
    except ModuleNotFoundError as error:
        raise DataError(f"package {error.name}: is not installed; run: pip install 'thermesh[data]'") from None
    try:
        with resources.as_file(path) as file, h5py.File(file, "r") as data:
            return _crop_of(data[field.variable], crop)
    except (OSError, KeyError) as error:
        raise DataError(f"{field.file}: cannot be read: {error}; reinstall the package {PACKAGE}") from None


def _crop_of(variable: Any, crop: Crop) -> NDArray[np.float64]:
    """A crop of a [time, row, col] variable of h5py."""
    _, rows, cols = variable.shape
    if crop.row_stop > rows or crop.col_stop > cols:
        raise DataError(f"--crop {crop}: does not lie in 0:{rows},0:{cols}; write a smaller one")
    values = variable[:, crop.row_start : crop.row_stop, crop.col_start : crop.col_stop]
    kelvin: NDArray[np.float64] = values.astype(np.float64)
    if "_FillValue" in variable.attrs:
        kelvin[values == variable.attrs["_FillValue"]] = np.nan
    return kelvin


def _ccel(kelvin: NDArray[np.float64]) -> NDArray[np.int16]:
    """Kelvin -> ccel, floor(100 x + 0.5); 294.65 -> 2150. The files are float32, 0.00003 K fine at 300 K."""
    rounded = np.floor(100 * (kelvin - KELVIN_AT_0_C) + 0.5)
    return np.clip(rounded, READING_MIN, READING_MAX).astype(np.int16)


def _licence() -> str:
    """The terms as the installed package states them; the files themselves carry none."""
    about = metadata.metadata(PACKAGE)
    return (
        f"package {PACKAGE} {about['Version']}, licence field {about['License']!r}: British Crown copyright, 2018, "
        "Open Government Licence (http://www.nationalarchives.gov.uk/doc/open-government-licence); "
        "the file itself names no terms"
    )
