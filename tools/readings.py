"""The readings file: temperatures of a whole site as CSV, one line a cycle (`thermesh demo --readings`).

    n-00-00,n-00-01,n-00-02        names of nodes, in any order; a first column `cycle` may stand before them
    21.50,21.56,                   degrees Celsius; an empty field: that sensor gave nothing

Read exactly as written: degrees become ccel in decimal, floor(100 x + 0.5), never by way of a float.
"""

import csv
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from decimal import ROUND_HALF_DOWN, ROUND_HALF_UP, Decimal
from functools import lru_cache
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gateway.site import Cell
from protocol.fixed import READING_MAX, READING_MIN
from protocol.grid import node_name, parse_node_name

# A year of half hours of 2,000 nodes fits; nothing is loaded that could fill a small gateway's memory.
FILE_BYTES_MAX = 256_000_000
# The largest grid's 65,025 fields, 30 characters each.
LINE_CHARS_MAX = 2_000_000
CYCLE_COLUMN = "cycle"
# No more digits than an honest number has, no exponent that could be expanded, ASCII only.
_NUMBER = re.compile(r"[+-]?(\d{1,30}(\.\d{0,30})?|\.\d{1,30})([eE][+-]?\d{1,2})?", re.ASCII)
_WHOLE = re.compile(r"\d{1,20}", re.ASCII)
_HUNDREDTH = Decimal("0.01")
# Sensors have few distinct values, so nearly every field is one seen before.
_REMEMBERED = 1 << 16


class ReadingsError(ValueError):
    """No such readings; one line names file, line, column, value and what would be right."""


class Readings(NamedTuple):
    """A readings file.

    Attributes:
        cells: (row, col) of each column, in the file's order.
        ccel: int16 [cycles, cells], 0.01 degrees Celsius, 0 where there is no reading.
        present: bool [cycles, cells], where there is one.
    """

    cells: list[Cell]
    ccel: NDArray[np.int16]
    present: NDArray[np.bool_]


def read(path: Path) -> Readings:
    """Read a readings file; a byte order mark and any line ends are fine.

    Raises:
        ReadingsError: like `room.csv: line 3, column n-00-01: 'abc' is no number; write degrees Celsius like 21.50 or
            leave the field empty`.
    """
    try:
        _check_size(path)
        with path.open(encoding="utf-8-sig") as file:
            return _readings(file)
    except OSError as error:
        raise ReadingsError(f"{path}: cannot be read: {error.strerror}; name a readings file") from None
    except UnicodeDecodeError:
        raise ReadingsError(f"{path}: is not UTF-8; save it as CSV in UTF-8") from None
    except ReadingsError as error:
        raise ReadingsError(f"{path}: {error}") from None


def write(
    path: Path,
    cells: Sequence[Cell],
    ccel: NDArray[np.int16],
    present: NDArray[np.bool_],
    cycles: Iterable[int] | None = None,
) -> None:
    """Write a readings file that `read` gives back bit for bit.

    Args:
        path: overwritten when it exists.
        cells, ccel, present: as in Readings.
        cycles: the number of each cycle, written as the first column `cycle`.

    Raises:
        ReadingsError: the file cannot be written.
    """
    names = [node_name(row, col) for row, col in cells]
    lines: Iterable[list[str]] = (
        [celsius(value) if there else "" for value, there in zip(values, has, strict=True)]
        for values, has in zip(ccel.tolist(), present.tolist(), strict=True)
    )
    if cycles is not None:
        names = [CYCLE_COLUMN, *names]
        lines = ([str(cycle), *line] for cycle, line in zip(cycles, lines, strict=True))
    try:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(names)
            writer.writerows(lines)
    except OSError as error:
        raise ReadingsError(f"{path}: cannot be written: {error.strerror}; name another file") from None


@lru_cache(_REMEMBERED)
def celsius(value_ccel: int) -> str:
    """A reading in degrees with two decimals: -5 -> '-0.05'."""
    return f"{'-' if value_ccel < 0 else ''}{abs(value_ccel) // 100}.{abs(value_ccel) % 100:02d}"


@lru_cache(_REMEMBERED)
def ccel(text: str) -> int:
    """Degrees in decimal -> ccel, floor(100 x + 0.5): '0.005' -> 1, '-0.005' -> 0.

    Raises:
        ReadingsError: it is no number, or no reading can be that hot or cold.
    """
    if not _NUMBER.fullmatch(text):
        raise ReadingsError(f"{_shown(text)} is no number; write degrees Celsius like 21.50 or leave the field empty")
    exact = Decimal(text)
    value: int = READING_MAX + 1
    if abs(exact) < 1_000:  # beyond, quantize could run out of digits
        # Half up means towards plus infinity, so a negative half goes towards 0.
        rounding = ROUND_HALF_DOWN if exact < 0 else ROUND_HALF_UP
        value = int(exact.quantize(_HUNDREDTH, rounding) * 100)
    if not READING_MIN <= value <= READING_MAX:
        limits = f"{celsius(READING_MIN)}..{celsius(READING_MAX)}"
        raise ReadingsError(f"{_shown(text)} is not in {limits}; write degrees Celsius or leave the field empty")
    return value


def _check_size(path: Path) -> None:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ReadingsError("is no regular file; name a readings file")
    if status.st_size > FILE_BYTES_MAX:
        raise ReadingsError(f"is {status.st_size} bytes long, more than {FILE_BYTES_MAX}; split it")


def _readings(file: IO[str]) -> Readings:
    lines = _lines(file)
    _, header = next(lines, (0, []))
    if not any(header):
        raise ReadingsError("is empty; the first line holds names of nodes, like n-00-00,n-00-01")
    numbered = header[0].strip() == CYCLE_COLUMN
    cells = _cells(header, numbered)
    values: list[NDArray[np.int16]] = []
    present: list[NDArray[np.bool_]] = []
    for number, fields in lines:
        if len(fields) != len(header):
            raise ReadingsError(
                f"line {number}: {len(fields)} fields under {len(header)} names; write one a name, empty where none"
            )
        texts = [field.strip() for field in fields]
        if numbered:
            _check_cycle(number, texts.pop(0))
        line_ccel = [_ccel_at(number, cell, text) for cell, text in zip(cells, texts, strict=True)]
        values.append(np.array(line_ccel, np.int16))
        present.append(np.array([text != "" for text in texts]))
    if not values:
        raise ReadingsError("holds names of nodes only; write one line of temperatures a cycle below them")
    return Readings(cells, np.stack(values), np.stack(present))


def _lines(file: IO[str]) -> Iterator[tuple[int, list[str]]]:
    """Numbers from 1 and fields. A blank line is one empty field: with a single node, a cycle without reading."""
    for number, line in enumerate(iter(lambda: file.readline(LINE_CHARS_MAX + 1), ""), 1):
        if len(line) > LINE_CHARS_MAX:
            raise ReadingsError(f"line {number}: is longer than {LINE_CHARS_MAX} characters; write one line a cycle")
        try:
            # Line by line: no quoted field may run on through the whole file.
            fields = next(csv.reader([line], strict=True))
        except csv.Error as error:
            raise ReadingsError(f"line {number}: is no CSV: {error}; write fields with commas between them") from None
        yield number, fields or [""]


def _cells(header: list[str], numbered: bool) -> list[Cell]:
    cells: list[Cell] = []
    seen: set[Cell] = set()
    for column, field in enumerate(header, 1):
        if numbered and column == 1:
            continue
        try:
            cell = parse_node_name(field.strip())
        except ValueError:
            raise ReadingsError(
                f"line 1, column {column}: {_shown(field)} is no node name; write n-RR-CC, like n-03-12"
            ) from None
        if cell in seen:
            raise ReadingsError(f"line 1, column {column}: {field.strip()} stands there twice; keep one")
        cells.append(cell)
        seen.add(cell)
    if not cells:
        raise ReadingsError(f"line 1: no node stands beside {CYCLE_COLUMN}; write their names, like n-03-12")
    return cells


def _check_cycle(line: int, text: str) -> None:
    if not _WHOLE.fullmatch(text):
        raise ReadingsError(
            f"line {line}, column {CYCLE_COLUMN}: {_shown(text)} is no whole number; write one like 12, "
            "or leave the column out"
        )


def _ccel_at(line: int, cell: Cell, text: str) -> int:
    try:
        return ccel(text) if text else 0
    except ReadingsError as error:
        raise ReadingsError(f"line {line}, column {node_name(*cell)}: {error}") from None


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")
