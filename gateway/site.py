"""A site: which cells of a grid hold a node, how often it measures, which temperature its numbers are centred on."""

import tomllib
from dataclasses import dataclass
from decimal import ROUND_FLOOR, Decimal
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from protocol import frame
from protocol.beacon import BITMAP_MAX
from protocol.fixed import READING_MAX, READING_MIN
from protocol.grid import BLOCK_SIDE, ROWS_MAX, SLOTS, neighbour_mask, neighbour_of, node_name, parse_node_name
from protocol.topic import check_site

CYCLE_S_MAX = 86_400
CYCLE_S_DEFAULT = 1_800
REFERENCE_CCEL_DEFAULT = 2_200
# A beacon acknowledges one bit a block.
BLOCKS_MAX = 8 * BITMAP_MAX
# Every cell of the largest grid as a hole takes 11 characters; nothing honest is longer.
FILE_SIZE_MAX = 1_000_000
KEYS = ("name", "rows", "cols", "holes", "cycle_s", "reference_celsius", "next_to_gateway")

# (row, column) of a node, or of a block among blocks.
Cell = tuple[int, int]


class SiteError(ValueError):
    """No such site; one line names the field, its value and what would be right."""


@dataclass(frozen=True)
class Site:
    """A grid with holes; making one checks it.

    Attributes:
        name: 1 to 32 of a-z, 0-9, '-' and '_'.
        rows, cols: the bounding grid, 1..255 each; its blocks must fit a beacon's bitmap, 2048.
        cells: the (row, col) that hold a node, in reading order.
        cycle_s: seconds from one cycle to the next, 1..86400.
        reference_ccel: what a new filter set's first layer subtracts from readings, int16.
        entries: cells that stand next to the gateway; those without a node say nothing.

    Raises:
        SiteError: a field is out of its range.
    """

    name: str
    rows: int
    cols: int
    cells: tuple[Cell, ...]
    cycle_s: int = CYCLE_S_DEFAULT
    reference_ccel: int = REFERENCE_CCEL_DEFAULT
    entries: tuple[Cell, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        _check_name(self.name)
        _check_range("rows", self.rows, 1, ROWS_MAX)
        _check_range("cols", self.cols, 1, ROWS_MAX)
        _check_range("cycle_s", self.cycle_s, 1, CYCLE_S_MAX)
        _check_range("reference_ccel", self.reference_ccel, READING_MIN, READING_MAX)
        blocks = self.block_shape[0] * self.block_shape[1]
        if blocks > BLOCKS_MAX:
            raise SiteError(f"rows, cols: {self.rows} x {self.cols} makes {blocks} blocks, more than {BLOCKS_MAX}")
        if not self.cells:
            _refuse("holes", len(self.cells), "cells are left; a site needs one at least")
        if any(not (0 <= row < self.rows and 0 <= col < self.cols) for row, col in self.cells):
            _refuse("cells", self.cells, f"do not all lie in {self.rows} x {self.cols}")
        if list(self.cells) != sorted(set(self.cells)):
            _refuse("cells", self.cells, "are not in reading order, each once")

    @property
    def block_shape(self) -> tuple[int, int]:
        """(block rows, block columns) of the bounding grid."""
        return -(-self.rows // BLOCK_SIDE), -(-self.cols // BLOCK_SIDE)

    @cached_property
    def blocks(self) -> tuple[Cell, ...]:
        """The blocks (block row, block column) that hold at least one cell, in reading order."""
        return tuple(sorted({block_of(cell) for cell in self.cells}))

    @cached_property
    def next_to_gateway(self) -> tuple[Cell, ...]:
        """Whom the gateway hands its filter sets: in each part that hangs together its entries, else its first cell."""
        waiting, found = set(self.cells), []
        while waiting:
            part, reached = set(), {min(waiting)}
            while reached:
                waiting.discard(cell := reached.pop())
                part.add(cell)
                reached |= {neighbour_of(*cell, slot) for slot in range(SLOTS)} & waiting
            found += sorted(part.intersection(self.entries)) or [min(part)]
        return tuple(found)

    @cached_property
    def mask(self) -> NDArray[np.bool_]:
        """Where a node stands, bool [rows, cols], read-only."""
        mask = np.zeros((self.rows, self.cols), np.bool_)
        mask[tuple(np.transpose(self.cells))] = True
        mask.flags.writeable = False
        return mask

    @cached_property
    def neighbour_masks(self) -> NDArray[np.uint8]:
        """Per cell one bit a slot (protocol/grid.py): which neighbours exist. uint8 [rows, cols], read-only."""
        cells = set(self.cells)
        masks = np.zeros((self.rows, self.cols), np.uint8)
        for row, col in self.cells:
            masks[row, col] = neighbour_mask(cells, row, col)
        masks.flags.writeable = False
        return masks


def block_of(cell: Cell) -> Cell:
    """(block row, block column) of a cell's block."""
    return cell[0] // BLOCK_SIDE, cell[1] // BLOCK_SIDE


def sender_of(data: bytes) -> Cell:
    """Who a frame says it is of."""
    return frame.row_of(data), frame.col_of(data)


def lounge() -> Site:
    """The seed document's lounge: 1,400 m2, 17 x 25 nodes, a reading every half hour (R0-12)."""
    return Site("lounge", 17, 25, _grid(17, 25))


def site_of_cells(name: str, cells: set[Cell]) -> Site:
    """The smallest site from (0, 0) that has these cells and holes everywhere else.

    Raises:
        SiteError: the name or a cell is out of range, or there is no cell.
    """
    rows, cols = (max(place) + 1 for place in zip(*cells, strict=True)) if cells else (1, 1)
    return Site(name, rows, cols, tuple(sorted(cells)))


def load_site(path: Path) -> Site:
    """Read a site from a TOML file with the keys of KEYS; name, rows and cols have to be there.

    Raises:
        SiteError: one line, like `site.toml: cycle_s: 0 is not in 1..86400`.
    """
    try:
        return parse_site(_read(path))
    except SiteError as error:
        raise SiteError(f"{path}: {error}") from None


def parse_site(text: str) -> Site:
    """The site that a TOML text describes.

    Raises:
        SiteError: as `load_site`, without the file's name.
    """
    try:
        # Decimal: a reference of 0.285 must round as written, not as the nearest float.
        table = tomllib.loads(text, parse_float=Decimal)
    except (ValueError, RecursionError) as error:  # bad TOML, numbers or nesting beyond Python's limits
        raise SiteError(f"is not TOML: {str(error)[:200]}") from None
    return _site_of_table(table)


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(FILE_SIZE_MAX + 1)
    except OSError as error:
        raise SiteError(f"cannot be read: {error.strerror}; write a site file there, or name another") from None
    if len(data) > FILE_SIZE_MAX:
        raise SiteError(f"is longer than {FILE_SIZE_MAX} bytes; no site needs that")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise SiteError(f"is not TOML: {str(error)[:200]}") from None


def _site_of_table(table: dict[str, Any]) -> Site:
    for key in table:
        if key not in KEYS:
            raise SiteError(f"{key[:40]!r} is not a key of a site; write {', '.join(KEYS)}")
    for key, example in {"name": '"hall"', "rows": 17, "cols": 25}.items():
        if key not in table:
            raise SiteError(f"{key}: is missing; write {key} = {example}")
    _check_name(table["name"])
    for key in ("rows", "cols"):  # before anything is made of them
        _check_range(key, table[key], 1, ROWS_MAX)
    rows, cols = table["rows"], table["cols"]
    holes = _cells("holes", table.get("holes", []), rows, cols)
    entries = _cells("next_to_gateway", table.get("next_to_gateway", []), rows, cols)
    for cell in entries & holes:
        _refuse("next_to_gateway", node_name(*cell), "is a hole; name a node")
    cells = tuple(cell for cell in _grid(rows, cols) if cell not in holes)
    reference_ccel = _reference_ccel(table.get("reference_celsius", Decimal(REFERENCE_CCEL_DEFAULT) / 100))
    cycle_s = table.get("cycle_s", CYCLE_S_DEFAULT)
    return Site(table["name"], rows, cols, cells, cycle_s, reference_ccel, tuple(sorted(entries)))


def _grid(rows: int, cols: int) -> tuple[Cell, ...]:
    return tuple((row, col) for row in range(rows) for col in range(cols))


def _cells(field: str, names: Any, rows: int, cols: int) -> set[Cell]:
    if not isinstance(names, list):
        _refuse(field, names, 'is no list; write one like ["n-00-03"]')
    cells: set[Cell] = set()
    for name in names:
        if not isinstance(name, str):
            _refuse(field, name, "is no node name; write n-RR-CC, like n-03-12")
        try:
            row, col = parse_node_name(name)
        except ValueError:
            _refuse(field, name, "is no node name; write n-RR-CC, like n-03-12")
        if row >= rows or col >= cols:
            _refuse(field, name, f"lies outside; the last cell is {node_name(rows - 1, cols - 1)}")
        if (row, col) in cells:
            _refuse(field, name, "stands there twice; keep one")
        cells.add((row, col))
    return cells


def _reference_ccel(celsius: Any) -> int:
    """Round half up, floor(100 x + 0.5); Decimal("21.505") -> 2151."""
    low, high = Decimal(READING_MIN) / 100, Decimal(READING_MAX) / 100
    if isinstance(celsius, bool) or not isinstance(celsius, int | Decimal):
        _refuse("reference_celsius", celsius, "is no number")
    if Decimal(celsius).is_nan() or not low <= celsius <= high:  # before rounding: 1e999999 would fill the memory
        _refuse("reference_celsius", celsius, f"is not in {low}..{high}")
    return int((100 * Decimal(celsius) + Decimal("0.5")).to_integral_value(ROUND_FLOOR))


def _check_name(name: Any) -> None:
    try:
        check_site(name if isinstance(name, str) else "")
    except ValueError:
        _refuse("name", name, "is no site name; write 1 to 32 of a-z, 0-9, '-' and '_'")


def _check_range(field: str, value: Any, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        _refuse(field, value, f"is no whole number; write one in {low}..{high}")
    if not low <= value <= high:
        _refuse(field, value, f"is not in {low}..{high}")


def _refuse(field: str, value: Any, sentence: str) -> NoReturn:
    try:
        shown = str(value) if isinstance(value, int | Decimal) else repr(value)
    except ValueError:  # Python refuses to print very long numbers
        shown = "the number"
    raise SiteError(f"{field}: {shown if len(shown) <= 60 else shown[:57] + '...'} {sentence}")
