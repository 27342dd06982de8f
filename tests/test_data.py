"""Real gridded temperatures (tools/data.py), against the files of the package itself."""

import builtins

import numpy as np
import pytest

from gateway.rule import abnormal
from tools import data, readings
from tools.data import Crop, DataError

WHY = "the extra `data` is not installed"
h5py = pytest.importorskip("h5py", reason=WHY)
samples = pytest.importorskip("iris_sample_data", reason=WHY)

# 18 latitudes x 432 longitudes, 54 months; 37 x 49, 240 years.
GRIDS = {"ostia": (54, 18, 432), "e1": (240, 37, 49)}


def kelvin(name):
    field = data.FIELDS[name]
    with h5py.File(f"{samples.path}/{field.file}") as file:
        return file[field.variable][:].astype(float)


def grid(extract):
    """The readings laid out in rows and columns, and where they are."""
    shape = (len(extract.ccel), *(max(place) + 1 for place in zip(*extract.cells, strict=True)))
    ccel, present = np.zeros(shape, np.int16), np.zeros(shape, np.bool_)
    ccel[(slice(None), *np.transpose(extract.cells))] = extract.ccel
    present[(slice(None), *np.transpose(extract.cells))] = extract.present
    return ccel, present


@pytest.mark.parametrize("name", GRIDS)
def test_the_default_crop_has_the_lounges_size_and_both_labels(name):
    ccel, present = grid(data.extract(name))
    assert (GRIDS[name][0], 17, 25) == ccel.shape
    assert present.all(axis=0).mean() > 0.9
    assert 0.03 < abnormal(ccel, present).mean() < 0.6


@pytest.mark.parametrize("name", GRIDS)
def test_values_are_the_files_own_in_degrees(name):
    crop = data.FIELDS[name].crop
    extract = data.extract(name)
    row, col = extract.cells[-1]
    expected = kelvin(name)[:, crop.row_start + row, crop.col_start + col] - 273.15
    np.testing.assert_allclose(expected, extract.ccel[:, -1] / 100, atol=0.00501)


def test_land_is_a_hole_in_the_sea():
    crop = data.FIELDS["ostia"].crop
    whole = kelvin("ostia")[:, crop.row_start : crop.row_stop, crop.col_start : crop.col_stop]
    land = {(int(row), int(col)) for row, col in np.argwhere((whole > 1e19).all(axis=0))}
    extract = data.extract("ostia")
    assert 18 == len(land)
    assert land.isdisjoint(extract.cells)
    assert 17 * 25 - 18 == len(extract.cells)
    assert extract.ccel.max() < 4000


def test_a_value_missing_now_and_then_is_absent_and_no_hole(monkeypatch):
    values = np.full((2, 1, 3), 293.15)
    values[0, 0, 1] = np.nan
    values[:, 0, 2] = np.nan
    monkeypatch.setattr(data, "_load", lambda field, crop: values)
    extract = data.extract("ostia")
    assert [(0, 0), (0, 1)] == extract.cells
    assert [[2000, 0], [2000, 2000]] == extract.ccel.tolist()
    assert [[True, False], [True, True]] == extract.present.tolist()


def test_a_crop_is_the_part_it_names():
    whole, part = data.extract("e1", Crop(0, 37, 0, 49)), data.extract("e1", data.parse_crop("5:7,10:13"))
    assert [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)] == part.cells
    assert grid(whole)[0][:, 5:7, 10:13].tolist() == grid(part)[0].tolist()


def test_an_extract_is_a_readings_file_at_once(tmp_path):
    extract = data.extract("ostia")
    readings.write(tmp_path / "sea.csv", extract.cells, extract.ccel, extract.present)
    read = readings.read(tmp_path / "sea.csv")
    assert extract.cells == read.cells
    assert extract.ccel.tolist() == read.ccel.tolist()


def test_description_and_licence_are_one_line_each_and_say_what_it_is():
    sea, air = data.extract("ostia"), data.extract("e1")
    assert "54 cycles of 407 nodes, 18 holes" in sea.description
    assert "240 cycles of 425 nodes, 0 holes" in air.description
    assert "not measured" in air.description
    assert "Open Government Licence" in sea.licence
    assert not any("\n" in line for line in (sea.description, sea.licence, air.description))


def test_a_crop_reads_as_it_is_written():
    assert Crop(1, 18, 311, 336) == data.parse_crop("1:18,311:336")
    assert "1:18,311:336" == str(Crop(1, 18, 311, 336))


@pytest.mark.parametrize(
    "text", ["", "1:18", "1:18,2", "a:b,c:d", "-1:3,0:2", "1:18,311:336,", "1:18;311:336", "9" * 99]
)
def test_what_is_no_crop_is_refused(text):
    with pytest.raises(DataError, match=r"^--crop '.*': is no crop; write rows and columns like 1:18,311:336$"):
        data.parse_crop(text)


@pytest.mark.parametrize(("text", "axis"), [("3:3,0:5", "rows"), ("5:3,0:5", "rows"), ("0:5,0:256", "cols")])
def test_an_empty_or_too_large_crop_is_refused_by_its_axis(text, axis):
    with pytest.raises(DataError, match=rf"^--crop {text}: {axis} \d+:\d+ are not 1\.\.255 {axis}; write start:stop"):
        data.parse_crop(text)


def test_an_unknown_name_is_refused():
    with pytest.raises(DataError, match=r"^data 'mars': is no field; write ostia or e1$"):
        data.extract("mars")


def test_a_crop_outside_or_on_land_is_refused():
    with pytest.raises(DataError, match=r"^--crop 10:19,0:5: does not lie in 0:18,0:432; write a smaller one$"):
        data.extract("ostia", Crop(10, 19, 0, 5))
    land = np.argwhere((kelvin("ostia") > 1e19).all(axis=0))[0].tolist()
    with pytest.raises(DataError, match=r"holds no value of ostia; write another, like 1:18,311:336$"):
        data.extract("ostia", Crop(land[0], land[0] + 1, land[1], land[1] + 1))


@pytest.mark.parametrize("missing", ["h5py", "iris_sample_data"])
def test_without_the_extra_the_message_says_how_to_get_it(monkeypatch, missing):
    def without(name, *rest, real=builtins.__import__, **options):
        if name == missing:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *rest, **options)

    def files(package):
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)

    monkeypatch.setattr(builtins, "__import__", without)
    if missing == "iris_sample_data":
        monkeypatch.setattr(data.resources, "files", files)
    with pytest.raises(DataError, match=rf"^package {missing}: is not installed; run: pip install 'thermesh\[data\]'$"):
        data.extract("ostia")


def test_a_damaged_file_is_refused_by_its_name(tmp_path, monkeypatch):
    folder = tmp_path / "sample_data"
    folder.mkdir()
    (folder / "ostia_monthly.nc").write_bytes(b"no HDF5")
    monkeypatch.setattr(data.resources, "files", lambda package: tmp_path)
    with pytest.raises(DataError, match=r"^ostia_monthly.nc: cannot be read: .*; reinstall the package iris-"):
        data.extract("ostia")
