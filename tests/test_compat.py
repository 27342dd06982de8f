"""The clock that wraps and the stand-ins for MicroPython, on both runtimes."""

import json

import pytest
from on_micropython import run

from protocol import compat

PERIOD = 2**30
HALF = 2**29
# (later, earlier, ms between them), around the wrap and as far apart as is still right.
DIFFERENCES = [
    *[(5, 3, 2), (3, 5, -2), (0, 0, 0), (PERIOD - 1, 0, -1), (0, PERIOD - 1, 1), (1, PERIOD - 2, 3)],
    *[(HALF - 1, 0, HALF - 1), (0, HALF - 1, 1 - HALF), (HALF, 1, HALF - 1), (PERIOD - 1, HALF, HALF - 1)],
    *[(HALF, 0, -HALF), (0, HALF, -HALF)],  # half a period away is always behind
]
# (ticks, delta, ticks afterwards)
SUMS = [
    *[(0, 5, 5), (PERIOD - 1, 1, 0), (PERIOD - 1, HALF - 1, HALF - 2), (0, -1, PERIOD - 1), (3, 1 - HALF, HALF + 4)],
]

ON_NODE = f"""
import json
from array import array
from protocol import compat

compat.TICKS_PERIOD == {PERIOD} or print("other period")
data = array("H", (1, 2))
now = compat.ticks_ms()
later = compat.ticks_ms()
facts = {{
    "differences": [compat.ticks_diff(later, earlier) for later, earlier, _ in {DIFFERENCES}],
    "sums": [compat.ticks_add(ticks, delta) for ticks, delta, _ in {SUMS}],
    "in_range": 0 <= now < {PERIOD},
    "goes_on": 0 <= compat.ticks_diff(later, now) < 1000,
    "pointers": compat.ptr8(data) is compat.ptr16(data) is compat.ptr32(data) is data,
}}
from protocol import grid
import sys
compat.forget("protocol.grid")
facts["forgets"] = "protocol.grid" not in sys.modules
print(json.dumps(facts))
"""


@pytest.mark.parametrize(("later", "earlier", "expected"), DIFFERENCES)
def test_a_difference_is_right_across_the_wrap(later, earlier, expected):
    assert expected == compat.ticks_diff(later, earlier)


@pytest.mark.parametrize(("ticks", "delta_ms", "expected"), SUMS)
def test_a_sum_stays_within_the_period(ticks, delta_ms, expected):
    assert expected == compat.ticks_add(ticks, delta_ms)


def test_a_difference_undoes_a_sum_wherever_the_clock_stands():
    for ticks in (0, 1, HALF - 1, HALF, PERIOD - 1):
        for delta_ms in (-HALF + 1, -1000, -1, 0, 1, 1000, HALF - 1):
            assert delta_ms == compat.ticks_diff(compat.ticks_add(ticks, delta_ms), ticks)


def test_the_clock_counts_milliseconds_and_wraps(monkeypatch):
    for ms, expected in [(0, 0), (1234, 1234), (PERIOD - 1, PERIOD - 1), (PERIOD, 0), (3 * PERIOD + 7, 7)]:
        monkeypatch.setattr(compat.time, "monotonic_ns", lambda ms=ms: ms * 1_000_000 + 999_999)
        assert expected == compat.ticks_ms()


def test_on_cpython_the_stand_ins_change_nothing():
    def function():
        """Anything."""

    data = bytearray(1)
    assert compat.micropython.viper(function) is function
    assert compat.const(5) == 5
    assert compat.ptr8(data) is compat.ptr16(data) is compat.ptr32(data) is data
    compat.forget("a module that nobody imported")


def test_micropython_counts_the_same():
    facts = json.loads(run(ON_NODE))
    assert [expected for _, _, expected in DIFFERENCES] == facts["differences"]
    assert [expected for _, _, expected in SUMS] == facts["sums"]
    assert facts["in_range"]
    assert facts["goes_on"]
    assert facts["pointers"]
    assert facts["forgets"]
