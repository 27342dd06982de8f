"""A node's process that is killed at any step of a wave comes back with a whole, authentic filter set."""

import json
import os
import subprocess
import sys

import pytest
from wave_sets import KEY, flashed, good
from wave_story import STORIES

from tools.rig.interpreter import SOURCES

SETS = {1: flashed()} | {version: good(version) for version in range(2, 10)}
# Of the three stories from either slot together, at least; a good third of them changes of state.
STEPS_MIN = 300
SECONDS_MAX = 120
# What crash.py runs before it begins: a node that does not keep the rules.
MISTAKES = {
    "a record that is written in place": """
def write(path, active, phase, highest, digests):
    data = slots.struct.pack(slots._FORMAT, b"TS", 1, active, phase, highest, digests[0], digests[1])
    with open(path + ".slots", "wb") as file:
        file.write(data + slots.hashlib.sha256(data).digest()[:4])
slots._write = write
""",
    "a set that is received into the active slot": """
slots.free_slot = lambda path, highest: slots.slot_path(path, slots.read_record(path)[0])
""",
    "a trial that is not given up at the next start": """
right = slots.mark
def mark(path, phase, highest):
    if phase != 3:
        right(path, phase, highest)
slots.mark = mark
""",
}


def kill(folder, mistake=""):
    """What crash.py says: its exit code, its counts, its last words."""
    given = {"key": KEY.hex(), "sets": {version: data.hex() for version, data in SETS.items()}}
    (folder / "sets.json").write_text(json.dumps(given))
    imports = "from pathlib import Path\nfrom firmware import slots\nimport crash\n"
    source = f"{imports}{mistake}\ncrash.main(Path({str(folder)!r}))"
    environment = {**os.environ, "PYTHONPATH": f"{SOURCES}{os.pathsep}{SOURCES / 'tests'}"}
    return subprocess.run(
        [sys.executable, "-c", source], env=environment, capture_output=True, text=True, timeout=SECONDS_MAX
    )


@pytest.mark.slow
def test_killed_at_every_step_a_node_comes_back_with_a_whole_set_and_takes_the_next(tmp_path):
    """Which sets and which phase it may have is known for every step (wave_story.Story); nothing else is accepted."""
    done = kill(tmp_path)
    assert 0 == done.returncode, done.stderr[-2_000:]
    counts = json.loads(done.stdout)
    assert 2 * len(STORIES) == len(counts)
    assert STEPS_MIN < sum(counts)


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_the_kills_show(mistake, tmp_path):
    done = kill(tmp_path, mistake)
    assert 1 == done.returncode
    assert "killed at step " in done.stderr
