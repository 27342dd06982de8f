"""The readings file (tools/readings.py): what is read, what is written, what is refused and in which words."""

import math
from fractions import Fraction

import numpy as np
import pytest

from tools import readings
from tools.readings import ReadingsError

ROOM = b"n-00-00,n-00-01,n-01-01\n21.50,,-0.05\n21.565,22,0\n"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "room.csv"

    def with_bytes(content):
        path.write_bytes(content)
        return path

    return with_bytes


def refusal(path):
    """The one line that a file is refused with."""
    with pytest.raises(ReadingsError) as caught:
        readings.read(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: ")
    return message.removeprefix(f"{path}: ")


def test_a_file_gives_cells_values_and_where_they_are(file):
    read = readings.read(file(ROOM))
    assert [(0, 0), (0, 1), (1, 1)] == read.cells
    assert [[2150, 0, -5], [2157, 2200, 0]] == read.ccel.tolist()
    assert [[True, False, True], [True, True, True]] == read.present.tolist()
    assert (np.int16, np.bool_) == (read.ccel.dtype, read.present.dtype)


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + ROOM,
        ROOM.replace(b"\n", b"\r\n"),
        ROOM.replace(b"\n", b"\r"),
        ROOM.rstrip(b"\n"),
        ROOM.replace(b",", b" , "),
        ROOM.replace(b"n-00-00", b'"n-00-00"'),
        b"cycle,n-00-00,n-00-01,n-01-01\n7,21.50,,-0.05\n9,21.565,22,0\n",
    ],
    ids=["mark", "crlf", "cr", "no last line end", "blanks", "quotes", "cycle"],
)
def test_the_same_readings_in_other_clothes_are_the_same(file, content):
    expected = readings.read(file(ROOM))
    read = readings.read(file(content))
    assert expected.cells == read.cells
    assert expected.ccel.tolist() == read.ccel.tolist()
    assert expected.present.tolist() == read.present.tolist()


def test_with_a_single_node_a_blank_line_is_a_cycle_without_reading(file):
    read = readings.read(file(b"n-00-00\n21\n\n22\n"))
    assert [[True], [False], [True]] == read.present.tolist()


def test_columns_stay_in_the_files_order_and_large_places_have_three_digits(file):
    assert [(254, 100), (0, 7)] == readings.read(file(b"n-254-100,n-00-07\n1,2\n")).cells


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.005", 1),
        ("-0.005", 0),
        ("-0.015", -1),
        ("0.00499999999999999999999999999", 0),
        ("21.285", 2129),
        ("+21", 2100),
        (".5", 50),
        ("5.", 500),
        ("2.15e1", 2150),
        ("1e-99", 0),
        ("327.67", 32767),
        ("327.6749999", 32767),
        ("-327.68", -32768),
        ("-327.685", -32768),
    ],
)
def test_degrees_become_ccel_half_up_in_decimal(text, expected):
    assert expected == readings.ccel(text)


def test_any_decimal_rounds_as_exact_fractions_do(seed):
    rng = np.random.default_rng(seed)
    for digits in rng.integers(-320_000_000, 320_000_000, 2_000).tolist():
        for places in (3, 6):
            exact = Fraction(digits if places == 6 else digits // 1000, 10**places)
            text = f"{'-' if exact < 0 else ''}{int(abs(exact))}.{int(abs(exact) % 1 * 10**places):0{places}d}"
            assert math.floor(100 * exact + Fraction(1, 2)) == readings.ccel(text), text


@pytest.mark.parametrize("text", ["327.675", "-327.6851", "1000", "1e99", "-9" + "0" * 29])
def test_what_no_reading_can_be_is_refused(text):
    with pytest.raises(ReadingsError, match=r"is not in -327\.68\.\.327\.67; write "):
        readings.ccel(text)


@pytest.mark.parametrize(
    "text", ["abc", "nan", "inf", "-inf", "1,5", "1_000", "٢١", "1e", "--1", "0x10", ".", "9" * 40]
)
def test_what_is_no_number_is_refused(text):
    with pytest.raises(ReadingsError, match=r"is no number; write degrees Celsius like 21\.50"):
        readings.ccel(text)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is empty; the first line holds names of nodes, like n-00-00,n-00-01"),
        (b"n-00-00\n", "holds names of nodes only; write one line of temperatures a cycle below them"),
        (b"n-00-00,n-00-01\n1,2,3\n", "line 2: 3 fields under 2 names; write one a name, empty where none"),
        (b"n-00-00,n-00-01\n1,2\n1\n", "line 3: 1 fields under 2 names; write one a name, empty where none"),
        (
            b"n-00-00,n-00-01\n1,2\n1,abc\n",
            "line 3, column n-00-01: 'abc' is no number; write degrees Celsius like 21.50 or leave the field empty",
        ),
        (
            b"n-00-00\n400\n",
            "line 2, column n-00-00: '400' is not in -327.68..327.67; write degrees Celsius or leave the field empty",
        ),
        (b"n-00-00,n-0-1\n1,2\n", "line 1, column 2: 'n-0-1' is no node name; write n-RR-CC, like n-03-12"),
        (b"n-255-00\n1\n", "line 1, column 1: 'n-255-00' is no node name; write n-RR-CC, like n-03-12"),
        (b"n-00-00,\n1,2\n", "line 1, column 2: '' is no node name; write n-RR-CC, like n-03-12"),
        (b"n-00-00,cycle\n1,2\n", "line 1, column 2: 'cycle' is no node name; write n-RR-CC, like n-03-12"),
        (b"n-00-00,n-00-00\n1,2\n", "line 1, column 2: n-00-00 stands there twice; keep one"),
        (b"cycle\n1\n", "line 1: no node stands beside cycle; write their names, like n-03-12"),
        (
            b"cycle,n-00-00\n1.5,2\n",
            "line 2, column cycle: '1.5' is no whole number; write one like 12, or leave the column out",
        ),
        (b"n-00-00\n\xff\n", "is not UTF-8; save it as CSV in UTF-8"),
        (
            b'n-00-00\n"1\n',
            "line 2: is no CSV: unexpected end of data; write fields with commas between them",
        ),
    ],
)
def test_a_bad_file_is_refused_by_line_column_and_remedy(file, content, expected):
    assert expected == refusal(file(content))


def test_a_missing_file_a_folder_and_a_device_are_refused(tmp_path):
    assert "cannot be read: No such file or directory; name a readings file" == refusal(tmp_path / "none.csv")
    assert "is no regular file; name a readings file" == refusal(tmp_path)
    with pytest.raises(ReadingsError, match="no regular file"):
        readings.read(type(tmp_path)("/dev/zero"))


def test_a_file_that_would_fill_the_memory_is_refused_unread(file):
    path = file(b"")
    with path.open("r+b") as sparse:
        sparse.truncate(readings.FILE_BYTES_MAX + 1)
    assert "is 256000001 bytes long, more than 256000000; split it" == refusal(path)


def test_an_endless_line_is_refused(file):
    expected = "line 1: is longer than 2000000 characters; write one line a cycle"
    assert expected == refusal(file(b"," * (readings.LINE_CHARS_MAX + 1)))


def test_a_long_bad_field_is_shown_shortened(file):
    assert len(refusal(file(b"n-00-00\n" + b"x" * 100_000))) < 200


@pytest.mark.parametrize("cycles", [None, [4, 7, 8]])
def test_what_is_written_is_read_back_bit_for_bit(tmp_path, seed, cycles):
    rng = np.random.default_rng(seed)
    cells = [(row, col) for row in (0, 99, 100) for col in (3, 254)]
    ccel = rng.integers(-32768, 32768, (3, 6)).astype(np.int16)
    ccel[0, :5] = -32768, 32767, -1, 0, 100
    present = rng.random((3, 6)) < 0.7
    present[0] = True
    readings.write(tmp_path / "room.csv", cells, ccel, present, cycles)
    read = readings.read(tmp_path / "room.csv")
    assert cells == read.cells
    assert present.tolist() == read.present.tolist()
    assert np.where(present, ccel, 0).tolist() == read.ccel.tolist()


def test_a_single_silent_node_survives_writing_and_reading(tmp_path):
    readings.write(tmp_path / "one.csv", [(0, 0)], np.array([[1], [2]], np.int16), np.array([[True], [False]]))
    assert [[True], [False]] == readings.read(tmp_path / "one.csv").present.tolist()


def test_two_decimals_are_written_from_whole_numbers(tmp_path):
    ccel = np.array([[-5, 7, -32768, 2150]], np.int16)
    cells = [(0, col) for col in range(4)]
    readings.write(tmp_path / "room.csv", cells, ccel, np.array([[True, True, True, False]]), [12])
    expected = "cycle,n-00-00,n-00-01,n-00-02,n-00-03\n12,-0.05,0.07,-327.68,\n"
    assert expected == (tmp_path / "room.csv").read_text()


def test_an_unwritable_place_is_refused(tmp_path):
    with pytest.raises(ReadingsError, match="cannot be written: No such file or directory; name another file"):
        readings.write(tmp_path / "none" / "x.csv", [(0, 0)], np.zeros((1, 1), np.int16), np.ones((1, 1), np.bool_))
