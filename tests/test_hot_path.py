"""What a node does between a cycle's frames allocates nothing: MicroPython runs it with its heap locked."""

import json

import pytest
from on_micropython import run

from protocol import filter_set
from protocol.filter_set import CONV1X1, CONV3X3, CONV3X3_SIGN
from tools.rig import interpreter


def layer(kind, channels_in, taps):
    return kind, channels_in, 5, 8, [0] * 5, [at % 200 - 100 for at in range(5 * channels_in * taps)]


# The longest way through filters.compute: an exchange, a conv1x1 behind it, a second exchange.
SET = filter_set.pack(1, "s", 0, [layer(CONV3X3, 1, 9), layer(CONV1X1, 5, 1), layer(CONV3X3, 5, 9)])

SIGN_SET = filter_set.pack(1, "s", 0, [(CONV3X3_SIGN, 1, 2, 0, [-300] * 2, [0, 0, 0, 0, -1, 1, 0, 0, 0] * 2)])

# By what is called: the call. Names are globals of HEAD, for a bound method in a local would allocate.
CALLS = {
    "unit.convolve": "convolve(filters.values[0], filters.inputs[0], first.weights, first.bias, first.shape)",
    "filters.compute": "compute_unit(filters, 0)",
    "filters.compute with sign": "compute_unit(signs, 0)",
    "Neighbours.start_cycle": "neighbours.start_cycle()",
    "Neighbours.hear": "neighbours.hear(6, True)",
    "Neighbours.deny": "neighbours.deny(2)",
    "Neighbours.put": "neighbours.put(1, 6, frame, 3, 5)",
    "Neighbours.within": "neighbours.within(2)",
    "Neighbours.awaited": "neighbours.awaited(1)",
    "Neighbours.fill": "neighbours.fill(1, filters.values[1])",
    "Block.start_gathering": "block.start_gathering()",
    "Block.put": "block.put(2, filters.values[2], absence, 2150)",
    "kind_of": "kind_of(member)",
    "cycle_of": "cycle_of(member, 1000000)",
    "ticks_diff": "ticks_diff(5, 1073741820)",
    "Trace.fault": "trace.fault(34)",
}

HEAD = f"""
import json, micropython, sys
from firmware.filters import Filters, compute_unit
from firmware.neighbours import Neighbours
from firmware.pool import Block
from firmware.trace import Trace
from firmware.unit import convolve
from protocol import filter_set
from protocol.compat import ticks_diff
from protocol.frame import cycle_of, kind_of

unpacked = filter_set.unpack({SET!r})
first = unpacked.layers[0]
filters = Filters(unpacked)
signs = Filters(filter_set.unpack({SIGN_SET!r}))
neighbours = Neighbours(255)
neighbours.use([filters.inputs[layer] for layer in filters.exchanges])
block = Block(5, 2)
trace = Trace()
frame = memoryview(bytes(range(20)))
member = b"\\x15" + bytes(7) + b"\\x20" + bytes(5)
absence = bytes(2)
found = {{}}

def locked(name, call):
    call()  # once unlocked: what is made on the first call only does not count
    micropython.heap_lock()
    try:
        call()
        problem = None
    except MemoryError as error:
        problem = error
    micropython.heap_unlock()
    found[name] = repr(problem) if problem else None
    if problem:
        sys.print_exception(problem)
"""


def found_on(*paths):
    """By the name of each call the error that it ended with, or None."""
    calls = "\n".join(f"locked({name!r}, lambda: {call})" for name, call in CALLS.items())
    control = "locked('control', lambda: [1])\nprint(json.dumps(found))"
    return json.loads(run("\n".join([HEAD, calls, control]), *paths).splitlines()[-1])


@pytest.fixture(scope="module")
def with_viper():
    return found_on()


@pytest.fixture(scope="module")
def without_viper(tmp_path_factory):
    plain = interpreter.write_plain_kernel(tmp_path_factory.mktemp("plain"))
    sources = interpreter.SOURCES / "firmware"
    for name in ("filters", "neighbours", "pool", "trace"):
        (plain / "firmware" / f"{name}.py").write_text((sources / f"{name}.py").read_text(encoding="utf-8"))
    return found_on(plain, interpreter.SOURCES)


@pytest.mark.parametrize("name", CALLS)
def test_the_call_allocates_nothing(with_viper, name):
    assert with_viper[name] is None


@pytest.mark.parametrize("name", ["unit.convolve", "filters.compute", "filters.compute with sign"])
def test_the_kernel_without_viper_allocates_nothing_either(without_viper, name):
    assert without_viper[name] is None


def test_an_allocation_would_be_seen(with_viper):
    assert "MemoryError" in with_viper["control"]
