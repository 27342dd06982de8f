"""What must hold of a store after all that was done to its gateway; what nodes were told is held against it.

missing     a node was told that a report is stored, and it is not, or was not by then
twice       a report is stored more than once, over cycles and late reports
silent      a report that is neither stored nor in a gap, nor held by its node: of each start that the gateway knows,
            numbers from 1 to the highest stored or heard; no node holds those of a start that another one followed
damaged     SQLite finds damage, or a stored cycle does not give its decision once more
"""

import sqlite3
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from gateway import store_reports
from gateway.received import Gap, Key
from gateway.recompute import agrees, recompute
from gateway.site import Cell, Site
from gateway.store import Store
from gateway.store_schema import FILE, StoreError
from protocol.report import Report
from tools.trial_crash.said import Cycle, Said

# So many of all cycles are decided once more.
_SAMPLE = 200
_LATE = """SELECT run, cycle, row, col, boot, seq FROM late_reports
    JOIN reporters ON reporters.id = reporter_id JOIN cycles ON cycles.id = late_reports.cycle_id"""
_GAPS = """SELECT run, cycle, row, col, boot, first, gaps.last FROM gaps
    JOIN reporters ON reporters.id = reporter_id JOIN cycles ON cycles.id = gaps.cycle_id"""
_IN_CYCLES = "SELECT run, cycle, keys FROM cycle_reports JOIN cycles ON cycles.id = cycle_id"


class Kept(NamedTuple):
    """What a store holds of reports.

    Attributes:
        in_cycles, late: (with which cycle it was stored, name), as often as it is stored.
        gaps: (with which cycle it was stored, gap).
    """

    in_cycles: list[tuple[Cycle, Key]]
    late: list[tuple[Cycle, Key]]
    gaps: list[tuple[Cycle, Gap]]


class Verdict(NamedTuple):
    """Counts, and lines that name the first of what broke; none where every promise held."""

    reports: int
    acknowledged: int
    missing: int
    twice: int
    late: int
    gaps: int
    silent: int
    held: int
    cycles: int
    broken: list[str]

    def line(self) -> str:
        """The counts for people."""
        return (
            f"{self.reports:,} reports, {self.acknowledged:,} acknowledged, {self.missing} missing, "
            f"{self.twice} twice, {self.late:,} late, {self.gaps} gaps in rows, {self.silent} silent"
        )


def judge(state: Path, site: Site, said: Said) -> Verdict:
    """Read a whole store and hold it against what was said; the gateway must not run.

    Args:
        state: the gateway's state folder.
        site: whose it is.
        said: what was heard on the broker.

    Raises:
        StoreError: the store cannot be used.
    """
    with Store(state, site) as store:
        broken = _damage(store)
        kept = read(state / FILE)
        stored = _first_stored([*kept.in_cycles, *kept.late])
        told, told_alone = said.told(), said.told_alone()
        missing = sorted(_missing(told, told_alone, stored, kept.gaps))
        counts = Counter(key for _, key in [*kept.in_cycles, *kept.late])
        twice = sorted(key for key, count in counts.items() if count > 1)
        silent, held = _silent(store, said, stored, kept.gaps)
        cycles = sum(1 for _ in store.latest_cycles(sys.maxsize))
    for name, keys in (("acknowledged and not stored by then", missing), ("stored twice", twice), ("silent", silent)):
        broken += [f"{name}: {len(keys)} reports, among them {keys[:4]}"] if keys else []
    acknowledged = len(told.keys() | told_alone.keys())
    counted = len(stored.keys() | said.made.keys()), acknowledged, len(missing), len(twice), len(kept.late)
    return Verdict(*counted, len(kept.gaps), len(silent), held, cycles, broken)


def read(file: Path) -> Kept:
    """What a store's file holds of reports; nothing of it is taken for unique."""
    with closing(sqlite3.connect(file)) as database:
        named = {id_: ((row, col), boot) for id_, row, col, boot in database.execute(store_reports.NAMED)}
        rows = database.execute(_IN_CYCLES)
        in_cycles = [((run, cycle), key) for run, cycle, data in rows for key in store_reports.keys_of(data, named)]
        rows = database.execute(_LATE)
        late = [((run, cycle), Key((row, col), boot, seq)) for run, cycle, row, col, boot, seq in rows]
        rows = database.execute(_GAPS)
        gaps = [((run, cycle), Gap((row, col), *numbers)) for run, cycle, row, col, *numbers in rows]
    return Kept(in_cycles, late, gaps)


def _damage(store: Store) -> list[str]:
    """What is wrong with the file, and with decisions of some cycles that are spread over all of them."""
    broken: list[str] = []
    try:
        store.check_whole()
    except StoreError as error:
        broken.append(str(error))
    found = list(store.latest_cycles(sys.maxsize))
    for stored in found[:: max(1, len(found) // _SAMPLE)]:
        if not agrees(recompute(store, stored), stored.outcome):
            broken.append(f"run {stored.run} cycle {stored.outcome.record.cycle} gives another decision once more")
    return broken


def _first_stored(kept: list[tuple[Cycle, Key]]) -> dict[Key, Cycle]:
    found: dict[Key, Cycle] = {}
    for cycle, key in kept:
        found[key] = min(cycle, found.get(key, cycle))
    return found


def _missing(
    told: dict[Key, Cycle], told_alone: dict[Key, Cycle], stored: dict[Key, Cycle], gaps: list[tuple[Cycle, Gap]]
) -> set[Key]:
    """What a node was told of and was not stored by then; to it alone also what it had given up by then."""
    never = sys.maxsize, 0
    missing = {key for key, by in told.items() if stored.get(key, never) >= by}
    given_up: dict[tuple[Cell, int], list[tuple[Cycle, Gap]]] = {}
    for cycle, gap in gaps:
        given_up.setdefault((gap.cell, gap.boot), []).append((cycle, gap))
    for key, by in told_alone.items():
        near = given_up.get((key.cell, key.boot), [])
        if stored.get(key, never) >= by and not any(cycle < by and gap.has(key) for cycle, gap in near):
            missing.add(key)
    return missing


def _silent(
    store: Store, said: Said, stored: dict[Key, Cycle], gaps: list[tuple[Cycle, Gap]]
) -> tuple[list[Key], int]:
    """Numbers of which nobody knows what became of them; and how many reports nodes still hold."""
    newest: dict[tuple[Cell, int], Key] = {}
    for key in said.made:
        newest[key.cell, key.boot] = max(key, newest.get((key.cell, key.boot), key))
    lost: dict[tuple[Cell, int], list[Gap]] = {}
    for _, gap in gaps:
        lost.setdefault((gap.cell, gap.boot), []).append(gap)
    silent: list[Key] = []
    held = 0
    for cell, starts in store.reporters().items():
        for boot, last, missing in starts:
            latest = newest.get((cell, boot), Key(cell, boot, last))
            holds = latest in said.made and Report(said.made[latest].data).has_older
            for seq in range(1, max(last, latest.seq) + 1):
                key = Key(cell, boot, seq)
                if key in stored or any(gap.has(key) for gap in lost.get((cell, boot), ())):
                    continue
                if boot == starts[-1].boot and (seq > last or (seq in missing and holds)):
                    held += 1
                else:
                    silent.append(key)
    return silent, held
