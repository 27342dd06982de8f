"""Kills what ages a store in the middle of its steps: `store_kills.py FOLDER`, the numbers of kills on stdout.

A step puts a chunk together or deletes one. SQLite calls back after every few of its instructions; at the k-th call the
process ends itself by SIGKILL, for every k until it lives. And what it writes to the disk is cut off: by SIGXFSZ at a
size of file that grows until it lives. Then every cycle is there as it was, and once, or deleted with all that belongs
to it.
"""

import os
import resource
import shutil
import signal
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

from store_bench import BASIS, NOON_S, SITE, calm, new_store, outcome_of

from gateway.store import Store
from gateway.store_age import CHUNK_CYCLES, Ageing, Keeping
from gateway.store_schema import FILE

INSTRUCTIONS = 50
# No page's edge.
BYTES = 3_001
DAY = 86_400 // SITE.cycle_s
CYCLES = 2 * CHUNK_CYCLES + DAY
# The first chunk is deleted: this is the second's first cycle.
KEPT_FROM = CHUNK_CYCLES


def fill(folder):
    """The first chunk, and so many cycles that it has to go and another one has to be put together."""
    with new_store(folder) as store:
        for cycle in range(CYCLES):
            store.add_cycle(1, NOON_S + cycle * SITE.cycle_s, outcome_of(calm(cycle)), BASIS)
        store.set_label(1, (0, CYCLES), True, NOON_S)
        with Ageing(folder, SITE, Keeping(1), later) as ageing:
            ageing.compact()


def later():
    return NOON_S + CYCLES * SITE.cycle_s


def run_until_killed(folder, kill):
    """Whether a process was killed before its steps were done; `kill` prepares that in it."""
    process = os.fork()
    if process == 0:
        try:
            with Ageing(folder, SITE, Keeping(1), later) as ageing:
                kill(ageing._database)
                ageing.look()
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(process, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0:
        return False
    if not os.WIFSIGNALED(status) or os.WTERMSIG(status) not in (signal.SIGKILL, signal.SIGXFSZ):
        raise RuntimeError(f"ended with status {status}")
    return True


def at_call(number):
    """Killed after so many calls of SQLite."""
    calls = iter(range(number))

    def call():
        if next(calls, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        return 0

    return lambda database: database.set_progress_handler(call, INSTRUCTIONS)


def at_size(number):
    """Killed where a file would become larger; a write that crosses the line is cut off there."""

    def limit(_database):
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (number * BYTES, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

    return limit


def check(folder):
    """Each cycle is there once, in order, with its label, and no row belongs to one that is not.

    Returns:
        What was done: whether the first chunk is deleted, and whether the second is put together.
    """
    with Store(folder, SITE) as store:
        found = [(stored.outcome.record.cycle, stored.label) for stored in store.latest_cycles(CYCLES)]
    with closing(sqlite3.connect(folder / FILE)) as database:
        orphans = database.execute("PRAGMA foreign_key_check").fetchall()
        rows = [
            database.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in ("cycles", "decisions", "labels", "records")
        ]
        chunks = database.execute("SELECT first_id, last_id FROM chunks").fetchall()
    if orphans or found not in ([(cycle, True) for cycle in range(first, CYCLES)] for first in (0, KEPT_FROM)):
        raise RuntimeError(f"rows of nothing: {orphans[:3]}; cycles {found[:3]} to {found[-3:]}")
    alone = len(found) - sum(last - first + 1 for first, last in chunks)
    if rows != [len(found)] * 3 + [alone]:
        raise RuntimeError(f"rows: {rows}; {len(found)} cycles, {alone} of them alone")
    return len(found) < CYCLES, alone < CYCLES - CHUNK_CYCLES


def main(folder):
    fill(folder / "begin")
    print(*(kill_everywhere(folder, kill) for kill in (at_call, at_size)))


def kill_everywhere(folder, kill):
    """Kill at each point in turn, until the process lives; returns how often."""
    seen = set()
    for kills in range(10_000):
        shutil.rmtree(folder / "state", ignore_errors=True)
        shutil.copytree(folder / "begin", folder / "state")
        killed = run_until_killed(folder / "state", kill(kills))
        seen.add(check(folder / "state"))
        if not killed:
            break
    if seen != {(False, False), (True, False), (True, True)}:
        raise RuntimeError(f"seen: {seen}")
    return kills


if __name__ == "__main__":
    main(Path(sys.argv[1]))
