"""Slots, taps, blocks and names of the neighbour table."""

import pytest

from protocol import grid

# From the picture in protocol/grid.py, seen from (5, 7): slot by slot, reading order.
AROUND_5_7 = [(4, 6), (4, 7), (4, 8), (5, 6), (5, 8), (6, 6), (6, 7), (6, 8)]


def test_slots_run_in_reading_order_around_the_node():
    assert [grid.neighbour_of(5, 7, slot) for slot in range(grid.SLOTS)] == AROUND_5_7
    assert list(range(8)) == [grid.slot_of(5, 7, *cell) for cell in AROUND_5_7]


def test_taps_are_the_slots_with_the_node_in_the_middle():
    assert [grid.tap_of(slot) for slot in range(grid.SLOTS)] == [0, 1, 2, 3, 5, 6, 7, 8]
    assert grid.CENTRE == 4


def test_only_the_eight_cells_around_have_a_slot():
    near = {(row, col) for row in range(11) for col in range(15) if grid.slot_of(5, 7, row, col) >= 0}
    assert set(AROUND_5_7) == near


def test_a_neighbour_sees_the_node_in_the_opposite_slot():
    for slot, cell in enumerate(AROUND_5_7):
        assert 7 - slot == grid.slot_of(*cell, 5, 7)


def test_a_neighbour_may_lie_outside_every_site():
    assert grid.neighbour_of(0, 0, 0) == (-1, -1)
    assert grid.slot_of(0, 0, -1, -1) == 0


def test_the_mask_holds_the_neighbours_that_exist_and_never_the_node_itself():
    assert grid.neighbour_mask(set(AROUND_5_7), 5, 7) == 255
    assert grid.neighbour_mask({(5, 7)}, 5, 7) == 0
    for slot, cell in enumerate(AROUND_5_7):
        assert 1 << slot == grid.neighbour_mask({cell, (5, 7), (0, 0)}, 5, 7)


@pytest.mark.parametrize(("cell", "corner"), [((4, 6), 0), ((4, 7), 1), ((5, 6), 2), ((5, 7), 3), ((0, 254), 0)])
def test_the_corner_is_the_place_in_the_block_in_reading_order(cell, corner):
    assert corner == grid.corner_of(*cell)


@pytest.mark.parametrize("cell", [(4, 6), (4, 7), (5, 6), (5, 7)])
def test_corner_slots_point_at_the_block_mates_and_not_at_the_node(cell):
    slots = grid.corner_slots(*cell)
    mates = [cell if slot < 0 else grid.neighbour_of(*cell, slot) for slot in slots]
    assert mates == [(4, 6), (4, 7), (5, 6), (5, 7)]
    assert slots[grid.corner_of(*cell)] == -1


@pytest.mark.parametrize(("cell", "name"), [((3, 12), "n-03-12"), ((0, 0), "n-00-00"), ((254, 100), "n-254-100")])
def test_a_node_name_is_written_and_read(cell, name):
    assert name == grid.node_name(*cell)
    assert cell == grid.parse_node_name(name)


def test_a_block_name_has_two_digits_at_least():
    assert grid.block_name(1, 6) == "01-06"
    assert grid.block_name(0, 127) == "00-127"


@pytest.mark.parametrize(
    "name",
    [
        *("", "n", "n-", "n-3-12", "n-003-12", "N-03-12", "n-03-12-", "n-03-12\n", " n-03-12", "m-03-12", "n-03"),
        *("n-255-00", "n-00-255", "n--3-12", "n-+3-12", "n-0x-12", "n-03-1_2", "n-03-12-01", "n-٠٣-12", "n-²3-12"),
    ],
)
def test_a_name_that_no_node_has_is_refused_by_name(name):
    with pytest.raises(ValueError, match=r"no node name|invalid literal"):
        grid.parse_node_name(name)
