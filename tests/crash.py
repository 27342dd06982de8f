"""Kills a node's process at every step of a wave: `crash.py FOLDER` with the folder's sets.json, counts on stdout.

A step is a change of state of the machine, or a piece of work on a file: opened, written by half, written, closed,
renamed. At step k the process ends itself by SIGKILL; what the operating system has by then is what a node starts on.
"""

import builtins
import json
import os
import shutil
import signal
import sys
from pathlib import Path

from wave_bench import Bench, Watched
from wave_story import STORIES, Story, check

# A story never has so many steps.
STEPS_MAX = 2_000


class Steps:
    """Counts steps up to the last one."""

    def __init__(self, last):
        self.left = last

    def take(self):
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self.left -= 1


class KilledFile:
    """A file that may be the last thing that its process worked on; nothing waits in buffers."""

    def __init__(self, steps, path, mode):
        self._steps = steps
        self._file = OPEN(path, mode, buffering=0)
        steps.take()

    def write(self, data):
        self._file.write(bytes(data)[: len(data) // 2])
        self._steps.take()
        self._file.write(bytes(data)[len(data) // 2 :])
        self._steps.take()
        return len(data)

    def close(self):
        self._file.close()
        self._steps.take()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


OPEN, RENAME = builtins.open, os.rename


def watch(steps):
    """Take a step at whatever this process does to files and at every change of state."""

    def open_file(path, mode="r"):
        steps.take()
        return KilledFile(steps, path, mode) if "w" in mode else OPEN(path, mode)

    def rename(path, to):
        steps.take()
        RENAME(path, to)
        steps.take()

    def go(wave, state, due_ms):
        steps.take()
        GO(wave, state, due_ms)

    builtins.open, os.rename, Watched._go = open_file, rename, go


GO = Watched._go


def run_until_killed(folder, key, sets, name, last):
    """Play a story in a process of its own that ends at a step. Returns what the node may be then, None: it lived."""
    reading, writing = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(reading)
        watch(Steps(last))
        story = Story(str(folder / "f"), key, sets, tell=lambda states: os.write(writing, line_of(states)))
        getattr(story, name)()
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as told:
        lines = told.read().splitlines()
    _, status = os.waitpid(process, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0:
        return None
    if not os.WIFSIGNALED(status) or os.WTERMSIG(status) != signal.SIGKILL:
        raise RuntimeError(f"{name}, step {last}: ended with status {status}")
    return [tuple(state) for state in json.loads(lines[-1])] if lines else []


def line_of(states):
    return json.dumps(states).encode() + b"\n"


def kill_everywhere(begin, folder, key, sets, name):
    """Play a story again and again, killed at each of its steps. Returns the number of steps."""
    for last in range(STEPS_MAX):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(begin, folder)
        start = [tuple(found_at(folder, key))]
        may_be = run_until_killed(folder, key, sets, name, last)
        if may_be is None:
            return last
        try:
            check(str(folder / "f"), may_be or start, key, sets)
        except Exception as error:
            raise RuntimeError(f"{name}, killed at step {last}: {error}") from error
    raise RuntimeError("the story never ends")


def found_at(folder, key):
    wave = Bench(str(folder / "f"), key).wave
    return wave.active.version, 0, wave.phase, wave.highest


def main(folder):
    """Every story, begun with slot 0 active and no record yet, and with slot 1 active."""
    given = json.loads((folder / "sets.json").read_text())
    key, sets = bytes.fromhex(given["key"]), {int(v): bytes.fromhex(data) for v, data in given["sets"].items()}
    counts = []
    begin = folder / "begin"
    begin.mkdir()
    (begin / "f").write_bytes(sets[1])
    for _ in range(2):
        counts += [kill_everywhere(begin, folder / "node", key, sets, name) for name in STORIES]
        Story(str(begin / "f"), key, sets).whole()
    print(json.dumps(counts))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
