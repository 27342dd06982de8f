"""Sites: what a site file may say, and the line that names what it may not."""

import re

import numpy as np
import pytest

from gateway.site import Site, SiteError, load_site, lounge, site_of_cells

HALL = """
name = "hall"
rows = 3
cols = 5
holes = ["n-00-00", "n-00-01", "n-01-00", "n-01-01", "n-02-04"]
cycle_s = 60
reference_celsius = 21.5
"""


def written(folder, text):
    path = folder / "site.toml"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(folder, text):
    with pytest.raises(SiteError) as caught:
        load_site(written(folder, text))
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith(f"{folder / 'site.toml'}: ")
    return line.removeprefix(f"{folder}/")


def changed(key, value):
    """HALL with one key set to another TOML value."""
    return re.sub(rf"(?m)^{key} = .*$", f"{key} = {value}", HALL)


def test_the_lounge_is_the_seed_documents_17_by_25_every_half_hour():
    site = lounge()
    assert (17, 25, 425, 1800) == (site.rows, site.cols, len(site.cells), site.cycle_s)
    assert (9, 13) == site.block_shape
    assert 117 == len(site.blocks)


def test_every_key_of_a_site_file_arrives(tmp_path):
    site = load_site(written(tmp_path, HALL))
    cells = ((0, 2), (0, 3), (0, 4), (1, 2), (1, 3), (1, 4), (2, 0), (2, 1), (2, 2), (2, 3))
    assert Site("hall", 3, 5, cells, 60, 2150) == site


def test_a_site_file_needs_only_name_rows_and_cols(tmp_path):
    site = load_site(written(tmp_path, 'name = "a"\nrows = 1\ncols = 2\n'))
    assert Site("a", 1, 2, ((0, 0), (0, 1)), 1800, 2200) == site


def test_only_blocks_with_a_cell_count():
    site = site_of_cells("l", {(0, 2), (2, 0)})
    assert (2, 2) == site.block_shape
    assert ((0, 1), (1, 0)) == site.blocks
    assert [[False, False, True], [False] * 3, [True, False, False]] == site.mask.tolist()


def test_a_neighbour_mask_has_a_bit_for_every_existing_neighbour_and_none_for_holes():
    site = site_of_cells("l", {(0, 0), (0, 1), (1, 1)})
    east, south_east, west, south, north_west, north = 1 << 4, 1 << 7, 1 << 3, 1 << 6, 1 << 0, 1 << 1
    assert [[east | south_east, west | south], [0, north_west | north]] == site.neighbour_masks.tolist()


def test_nobody_can_change_a_sites_masks():
    with pytest.raises(ValueError, match="read-only"):
        lounge().mask[0, 0] = False
    with pytest.raises(ValueError, match="read-only"):
        lounge().neighbour_masks[0, 0] = 0


@pytest.mark.parametrize(
    ("celsius", "ccel"),
    [("0.285", 29), ("0.284", 28), ("-0.285", -28), ("-0.286", -29), ("22", 2200), ("327.67", 32767)],
)
def test_the_reference_rounds_half_up_as_it_is_written(tmp_path, celsius, ccel):
    assert ccel == load_site(written(tmp_path, changed("reference_celsius", celsius))).reference_ccel


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("cycle_s", "0", "cycle_s: 0 is not in 1..86400"),
        ("cycle_s", "86401", "cycle_s: 86401 is not in 1..86400"),
        ("cycle_s", "60.0", "cycle_s: 60.0 is no whole number; write one in 1..86400"),
        ("cycle_s", "true", "cycle_s: True is no whole number; write one in 1..86400"),
        ("rows", "256", "rows: 256 is not in 1..255"),
        ("rows", "0", "rows: 0 is not in 1..255"),
        ("cols", "'5'", "cols: '5' is no whole number; write one in 1..255"),
        ("name", "'Hall'", "name: 'Hall' is no site name; write 1 to 32 of a-z, 0-9, '-' and '_'"),
        ("name", "7", "name: 7 is no site name; write 1 to 32 of a-z, 0-9, '-' and '_'"),
        ("holes", "'n-00-00'", "holes: 'n-00-00' is no list; write one like [\"n-00-03\"]"),
        ("holes", "[3]", "holes: 3 is no node name; write n-RR-CC, like n-03-12"),
        ("holes", "['n-0-0']", "holes: 'n-0-0' is no node name; write n-RR-CC, like n-03-12"),
        ("holes", "['n-03-00']", "holes: 'n-03-00' lies outside; the last cell is n-02-04"),
        ("holes", "['n-00-00', 'n-00-00']", "holes: 'n-00-00' stands there twice; keep one"),
        ("reference_celsius", "'warm'", "reference_celsius: 'warm' is no number"),
        ("reference_celsius", "nan", "reference_celsius: NaN is not in -327.68..327.67"),
        ("reference_celsius", "327.68", "reference_celsius: 327.68 is not in -327.68..327.67"),
        ("reference_celsius", "1e999999", "reference_celsius: 1E+999999 is not in -327.68..327.67"),
    ],
)
def test_a_refusal_names_the_file_the_field_the_value_and_what_would_be_right(tmp_path, key, value, line):
    assert f"site.toml: {line}" == refusal(tmp_path, changed(key, value))


def test_a_missing_key_and_an_unknown_key_are_named(tmp_path):
    assert "site.toml: rows: is missing; write rows = 17" == refusal(tmp_path, 'name = "a"\ncols = 2\n')
    assert 'site.toml: name: is missing; write name = "hall"' == refusal(tmp_path, "rows = 1\ncols = 2\n")
    assert "site.toml: 'colour' is not a key of a site" in refusal(tmp_path, HALL + "colour = 3\n")


def test_a_site_keeps_at_least_one_cell(tmp_path):
    text = 'name = "a"\nrows = 1\ncols = 1\nholes = ["n-00-00"]\n'
    assert "site.toml: holes: 0 cells are left; a site needs one at least" == refusal(tmp_path, text)


def test_a_site_has_no_more_blocks_than_a_beacon_acknowledges(tmp_path):
    line = "site.toml: rows, cols: 91 x 90 makes 2070 blocks, more than 2048"
    assert line == refusal(tmp_path, 'name = "a"\nrows = 91\ncols = 90\n')
    assert (32, 64) == load_site(written(tmp_path, 'name = "a"\nrows = 64\ncols = 128\n')).block_shape


def test_a_file_that_is_no_toml_is_named_with_its_line(tmp_path):
    assert re.match(r"site\.toml: is not TOML: .*line 2", refusal(tmp_path, 'name = "a"\nrows = \ncols = 1\n'))


def test_a_missing_file_is_named_with_what_to_do(tmp_path):
    with pytest.raises(SiteError, match=r"none\.toml: cannot be read: No such file.*; write a site file there"):
        load_site(tmp_path / "none.toml")


@pytest.mark.parametrize(
    "text", ["a = " + "[" * 5000, "rows = " + "9" * 5000, "rows = " + "9" * 4000, HALL + "#" * 1_000_000]
)
def test_a_hostile_file_is_refused_in_one_line(tmp_path, text):
    assert len(refusal(tmp_path, text)) < 400


def test_a_file_of_other_bytes_is_refused(tmp_path):
    (tmp_path / "site.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SiteError, match="is not TOML"):
        load_site(tmp_path / "site.toml")


def test_cells_that_are_none_are_refused():
    with pytest.raises(SiteError, match="0 cells are left"):
        site_of_cells("a", set())
    with pytest.raises(SiteError, match="do not all lie in 1 x 1"):
        site_of_cells("a", {(0, 0), (0, -1)})
    with pytest.raises(SiteError, match="not in reading order"):
        Site("a", 2, 1, ((1, 0), (0, 0)))


def test_masks_are_as_large_as_the_bounding_grid():
    site = site_of_cells("a", {(2, 1)})
    assert (3, 2) == site.mask.shape == site.neighbour_masks.shape
    assert np.uint8 == site.neighbour_masks.dtype


def test_the_gateway_hands_filters_to_the_entries_of_a_part_else_to_its_first_cell(tmp_path):
    path = tmp_path / "site.toml"
    head = 'name = "parts"\nrows = 2\ncols = 5\nholes = ["n-00-02", "n-01-02"]\n'
    path.write_text(head)
    assert ((0, 0), (0, 3)) == load_site(path).next_to_gateway
    path.write_text(head + 'next_to_gateway = ["n-01-04", "n-00-03"]\n')
    assert ((0, 0), (0, 3), (1, 4)) == load_site(path).next_to_gateway
    path.write_text(head + 'next_to_gateway = ["n-01-02"]\n')
    with pytest.raises(SiteError, match=r"next_to_gateway: 'n-01-02' is a hole; name a node"):
        load_site(path)
