"""What a node does between a cycle's frames allocates nothing: MicroPython runs it with its heap locked."""

import json
import shutil

import pytest
from on_micropython import run

from protocol import beacon, filter_set, frame
from protocol.filter_set import CONV1X1, CONV3X3, CONV3X3_SIGN
from tools.rig import interpreter


def layer(kind, channels_in, taps):
    return kind, channels_in, 5, 8, [0] * 5, [at % 200 - 100 for at in range(5 * channels_in * taps)]


# The longest way through filters.compute: an exchange, a conv1x1 behind it, a second exchange.
SET = filter_set.pack(1, "s", 0, [layer(CONV3X3, 1, 9), layer(CONV1X1, 5, 1), layer(CONV3X3, 5, 9)])

SIGN_SET = filter_set.pack(1, "s", 0, [(CONV3X3_SIGN, 1, 2, 0, [-300] * 2, [0, 0, 0, 0, -1, 1, 0, 0, 0] * 2)])

OPENING = beacon.pack(beacon.Beacon(beacon.MODE_EVENT, 1, 5, 60_000, 1_000, 1_000, 1, 4, 1, 1, 0), b"\0")
WORD = frame.value(frame.header(frame.VALUE, 3, 4, 1, 5, 1), 2_210)

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
    "zone.limits": "limits(out, view, 511, first_sign.weights, first_sign.bias)",
    "Event.begin": "event.begin()",
    "Event.feed": "event.feed(8, 4, word, 0)",
    "Event.step": "silent_step()",
    "Event.step at the end of a cycle": "silent_end()",
}

HEAD = f"""
import json, micropython, sys
from firmware.filters import Filters, compute_unit
from array import array
from firmware.neighbours import Neighbours
from firmware.node import Node
from firmware.pool import Block
from firmware.trace import Trace
from firmware.unit import convolve
from firmware.zone import limits
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
sign_set = filter_set.unpack({SIGN_SET!r})
first_sign = sign_set.layers[0]
out, view = array("H", (0, 0, 0)), array("H", (32768,) * 9)

class Sensor:
    def read(self, cycle):
        return 2205

node = Node(3, 3, 255, (sign_set, None, 0, 1, "", ("", ""), "s", b""), Sensor(), 7)
node.on_frame({OPENING!r}, 0)
event, word = node.mode, memoryview({WORD!r})
for neighbour in range(8):
    event.feed(8, neighbour, word, 0)
node.poll(0)

def silent_step():
    event._is_dirty = True
    event.step(False)

def silent_end():
    node.state = 1
    event.step(True)

silent_end()
node.ring = []  # what it said of its state is acknowledged

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
    for path in (interpreter.SOURCES / "firmware").glob("*.py"):
        if not (plain / "firmware" / path.name).exists():
            shutil.copy(path, plain / "firmware")
    return found_on(plain, interpreter.SOURCES)


@pytest.mark.parametrize("name", CALLS)
def test_the_call_allocates_nothing(with_viper, name):
    assert with_viper[name] is None


@pytest.mark.parametrize("name", ["unit.convolve", "filters.compute", "filters.compute with sign", "zone.limits"])
def test_the_kernel_without_viper_allocates_nothing_either(without_viper, name):
    assert without_viper[name] is None


def test_an_allocation_would_be_seen(with_viper):
    assert "MemoryError" in with_viper["control"]
