"""A node that loses power at any write to its flash comes back with a whole, authentic filter set.

Real MicroPython, a real littlefs, a block device in RAM that stops at write k, or tears it, for every k.
"""

import json

import pytest
from on_micropython import run
from wave_sets import KEY, flashed, good
from wave_story import STORIES

from tools.rig import interpreter

# More than any story and the set behind it takes.
VERSIONS = 9
# Blocks, bytes of a block, and how many writes the three stories have in all from either slot, at least. On the large
# blocks, which are those of a board's flash, littlefs puts the record into its directory; on the small ones it has to
# tidy up its directory all the time.
SHAPES = ((16, 4_096, 150), (64, 512, 200), (128, 128, 350))
SETS = {1: flashed()} | {version: good(version) for version in range(2, VERSIONS + 1)}

BEGIN = f"""
import json, sys
sys.path.append({str(interpreter.SOURCES / "tests")!r})
import power_cut, wave_story
from firmware import slots
key, sets = {KEY!r}, {SETS!r}
"""
CUT = """
counts = []
for image in power_cut.images({blocks}, {size}, key, sets):
    for story in {stories}:
        counts.append(power_cut.cut_everywhere(image, {size}, key, sets, story, {mode!r}))
print(json.dumps(counts))
"""


def cuts(blocks, size, mode, mistake=""):
    """At how many writes each story was cut, from slot 0 and from slot 1."""
    return json.loads(run(BEGIN + mistake + CUT.format(blocks=blocks, size=size, mode=mode, stories=STORIES)))


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["stop", "tear", "garbage"])
@pytest.mark.parametrize(("blocks", "size", "least"), SHAPES, ids=lambda value: str(value))
def test_power_cut_at_every_write_leaves_a_whole_set_and_a_node_that_takes_the_next(blocks, size, least, mode):
    """Which sets and which phase it may be in is known for every write (power_cut.Story); nothing else is accepted."""
    counts = cuts(blocks, size, mode)
    assert 2 * len(STORIES) == len(counts)
    assert min(counts) > 12
    assert least < sum(counts)


MISTAKES = {
    "a record that is removed before the new one is written": """
def write(path, *fields):
    try:
        os.remove(path + ".slots")
    except OSError:
        pass
    right(path, *fields)
import os
right = slots._write
slots._write = write
""",
    "a set that is received into the active slot": """
slots.free_slot = lambda path, highest: slots.slot_path(path, slots.read_record(path)[0])
""",
    "a trial that is not given up at the next start": """
def mark(path, phase, highest):
    if phase != wave_story.RETURNED:
        right(path, phase, highest)
right = slots.mark
slots.mark = mark
""",
}


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_the_cuts_show(mistake):
    with pytest.raises(interpreter.InterpreterError, match=r"is not whole|, not one of|ENOENT|did not keep"):
        cuts(64, 512, "stop", mistake=mistake)


STALE = """
import gc
from firmware.wave import RECEIVING
power_cut.mount(power_cut.Flash(power_cut.blank({blocks}, {size}, sets[1]), {size}))
bench = wave_story.Bench(power_cut.PATH, key)
bench.feed(sets[2], end=150)
assert bench.wave.state == RECEIVING
{what}
bench.rest()
gc.disable()
bench.take_in(sets[2])
before = wave_story.found(bench.wave)
gc.enable()
gc.collect()
gc.collect()
print(json.dumps([before, wave_story.found(wave_story.Bench(power_cut.PATH, key).wave)]))
"""


@pytest.mark.parametrize(
    "what", ["bench.wave.lose_link(bench.now_ms)", "bench.wait(15_000)"], ids=["lost link", "time over"]
)
@pytest.mark.parametrize(("blocks", "size", "_"), SHAPES, ids=lambda value: str(value))
def test_a_set_that_broke_off_leaves_no_open_file_that_spoils_the_next(blocks, size, _, what):
    """A file that is never closed is closed by the garbage collector, and littlefs then puts its old length back."""
    held = [1, 2, 2, 2]
    assert [held, held] == json.loads(run(BEGIN + STALE.format(blocks=blocks, size=size, what=what), heap="16M"))
