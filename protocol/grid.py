"""The neighbour table: where a node stands, whom it hears, which block it belongs to.

Cells are (row, col), 0..254 each. Taps run in reading order over the 3x3 window, cross-correlation, the node itself
at tap 4; a neighbour's *slot* is its place among the other eight, and bit `slot` stands for it in every mask:

    tap  0 NW  1 N  2 NE        slot  0 NW  1 N  2 NE
         3 W   4 C  5 E               3 W        4 E
         6 SW  7 S  8 SE              5 SW  6 S  7 SE

Blocks are 2x2, (row // 2, col // 2), and a block has only the members that exist, so every cell of every site counts.
A member's *corner* is its place in its block: 0 NW, 1 NE, 2 SW, 3 SE.
"""

from protocol.compat import const

ROWS_MAX = const(255)
TAPS = const(9)
SLOTS = const(8)
BLOCK_SIDE = const(2)
CORNERS = const(4)
CENTRE = const(4)


def slot_of(row: int, col: int, other_row: int, other_col: int) -> int:
    """The slot of `other` as seen from (row, col), or -1 where it is no neighbour."""
    down = other_row - row + 1
    right = other_col - col + 1
    if down < 0 or down > 2 or right < 0 or right > 2:
        return -1
    tap = down * 3 + right
    return -1 if tap == CENTRE else tap - (tap > CENTRE)


def tap_of(slot: int) -> int:
    """The tap (0..8 without 4) of a slot (0..7)."""
    return slot + (slot >= CENTRE)


def neighbour_of(row: int, col: int, slot: int) -> tuple:
    """The cell (row, col) in a slot; it may lie outside every site."""
    tap = tap_of(slot)
    return row + tap // 3 - 1, col + tap % 3 - 1


def neighbour_mask(cells, row: int, col: int) -> int:
    """One bit a slot: which of the eight neighbours exist in `cells`, a container of (row, col)."""
    mask = 0
    for slot in range(SLOTS):
        if neighbour_of(row, col, slot) in cells:
            mask |= 1 << slot
    return mask


def corner_of(row: int, col: int) -> int:
    """The node's place in its block, 0..3 in reading order."""
    return (row % BLOCK_SIDE) * BLOCK_SIDE + col % BLOCK_SIDE


def corner_slots(row: int, col: int) -> tuple:
    """For each corner 0..3 of the node's own block its slot as seen from the node; -1 for the node itself."""
    top, left = row - row % BLOCK_SIDE, col - col % BLOCK_SIDE
    return tuple(slot_of(row, col, top + corner // 2, left + corner % 2) for corner in range(CORNERS))


def node_name(row: int, col: int) -> str:
    """The node's name in text: (3, 12) -> 'n-03-12'."""
    return "n-%02d-%02d" % (row, col)


def block_name(row: int, col: int) -> str:
    """The name of the block at (block row, block col): (1, 6) -> '01-06'."""
    return "%02d-%02d" % (row, col)


def parse_node_name(name: str) -> tuple:
    """The cell of a node's name, the inverse of `node_name`.

    Raises:
        ValueError: the name is not exactly what `node_name` writes, or a number exceeds 254.
    """
    parts = name.split("-")
    if len(parts) == 3 and _is_number(parts[1]) and _is_number(parts[2]):
        row, col = int(parts[1]), int(parts[2])
        if row < ROWS_MAX and col < ROWS_MAX and name == node_name(row, col):
            return row, col
    raise ValueError(name + " is no node name; write n-RR-CC, like n-03-12")


def _is_number(text: str) -> bool:
    """Whether it is 2 or 3 ASCII digits: `isdigit` would also take superscripts, which `int` does not."""
    return 2 <= len(text) <= 3 and all(character in "0123456789" for character in text)
