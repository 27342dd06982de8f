"""What a stored cycle takes, in bytes and in time: `python -m tools.bench_store [--json] [--cycles N]`.

The lounge of 17 x 25 nodes, simulated, a cycle in half an hour, all that its nodes would report with the weights that
it starts with. The store takes every cycle in a transaction of its own, on the disk when it returns; beside it, turn by
turn, SQLite takes the same record as one row of one table, with the same settings. Then the store ages by an hour, and
at last by its `keep_days`, step by step. Time is the disk's more than the processor's: trust the ratio. Exit code 1
when a figure is out of its bounds.
"""

import argparse
import json
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from gateway import decision, twin
from gateway.cycles import Record
from gateway.decision import LIMITS_DEFAULT
from gateway.exactness import compare
from gateway.gateway import Outcome
from gateway.head import HeadRunner
from gateway.model import SPECS, Model
from gateway.site import Site, lounge
from gateway.start_weights import load_start
from gateway.store import ACTIVE, Basis, Store, StoredModel
from gateway.store_age import CHUNK_CYCLES, Ageing, Keeping
from gateway.store_blobs import pack_cycle
from sim.field.lounge import Lounge, simulate

CYCLES = 1_440
_START_S = 1_700_000_000.0
# A third of what is stored is kept at the end, in whole days.
_KEPT_SHARE = 3
# What the project wants: a cycle in a chunk, a step between two cycles, the store's commits over bare SQLite's.
CHUNK_BYTES_MAX, STEP_MS_MAX, COMMITS_SHARE_MIN = 300, 20.0, 0.5


def main() -> int:
    """Run the command; its exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench_store", description="Measure the store.")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--cycles", type=int, default=CYCLES, choices=range(480, 100_001), metavar="480..100000")
    options = parser.parse_args()
    rows = {spec: bench(spec, options.cycles) for spec in ("lean", "seed")}
    print(json.dumps(rows) if options.json else _table(rows))
    return 0 if all(holds(row) for row in rows.values()) else 1


def bench(spec: str, cycles: int) -> dict[str, Any]:
    """All figures of one spec.

    Returns:
        alone, chunk: bytes of a cycle's record by itself, and its share of a chunk; file_alone, file_chunk: bytes of
        the file for each cycle then, its decision and indexes included, models left out; commits, plain: cycles a
        second of the store and of bare SQLite; compact_ms, forget_ms: median and longest step; grown: pages of the file
        at the end, when two thirds are deleted and as many have been added, over those before.
    """
    site = lounge()
    model = load_start(spec, site)
    if model is None:
        raise ValueError(f"{site.name}: has no committed weights of spec {spec}; run `python -m tools.fit_start`")
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder)
        clock = Clock(site.cycle_s)
        outcomes = list(_outcomes(model, site, cycles))
        with Store(state, site, create=True) as store, _plain(state) as plain:
            store.add_model(StoredModel(model, model.filters.pack(site.name), ACTIVE, _START_S))
            found = _stored(store, plain, outcomes, clock)
            found["file_alone"] = _file_bytes(store, cycles)
            days = cycles * site.cycle_s // 86_400 // _KEPT_SHARE
            with Ageing(state, site, Keeping(days), clock) as ageing:
                clock.now_s += 3_600
                found["compact_ms"] = _steps_ms(ageing.compact)
                found |= {"chunk": _chunk_bytes(store), "file_chunk": _file_bytes(store, cycles)}
                pages = _pages(store)
                found["forget_ms"] = _steps_ms(ageing.forget)
                for outcome in outcomes[store.cycles_since(0.0, cycles) :]:
                    _add(store, 2, outcome, clock)
                    ageing.look()
                found["grown"] = _pages(store) / pages
    return found


class Clock:
    """UTC seconds of the cycle that is stored now."""

    def __init__(self, cycle_s: int):
        """Before the first."""
        self.now_s, self._cycle_s = _START_S, cycle_s

    def __call__(self) -> float:
        """Now."""
        return self.now_s

    def next_cycle(self) -> float:
        """The next cycle's time."""
        self.now_s += self._cycle_s
        return self.now_s


def holds(row: dict[str, Any]) -> bool:
    """Whether a spec's figures are within their bounds."""
    steps = max(row["compact_ms"][0], row["forget_ms"][0])
    share = row["commits"] / row["plain"]
    return bool(row["chunk"] <= CHUNK_BYTES_MAX and steps <= STEP_MS_MAX and share >= COMMITS_SHARE_MIN)


def _outcomes(model: Model, site: Site, cycles: int) -> Iterator[Outcome]:
    """What a mesh without loss reports of the simulated room, and what its gateway decides."""
    head, state = HeadRunner(SPECS[model.spec_name], model.head), decision.init()
    shape, mask = site.mask.shape, site.mask
    heard, no = np.zeros((model.filters.exchanges, *shape), np.uint8), np.zeros(shape, np.bool_)
    carried = np.zeros(site.block_shape, np.bool_)
    for cycle, readings_ccel in enumerate(simulate(Lounge(), cycles)):
        features = twin.pool(twin.units(model.filters, readings_ccel, mask, site.neighbour_masks, heard), mask)
        record = Record(cycle, features, readings_ccel, mask, mask, heard, no, 0, carried)
        state, decided = decision.update(state, features, head)
        exact = compare(record, model.filters, site)
        yield Outcome(record, decided, model.filters.version, model.head.revision, exact)


def _plain(state: Path) -> "closing[sqlite3.Connection]":
    database = sqlite3.connect(state / "plain.db", isolation_level=None)
    for line in ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL", "CREATE TABLE cycles (record BLOB)"):
        database.execute(line)
    return closing(database)


def _stored(store: Store, plain: sqlite3.Connection, outcomes: list[Outcome], clock: Clock) -> dict[str, Any]:
    """Store all, in turn with bare SQLite."""
    ours_s = plain_s = 0.0
    sizes = []
    for outcome in outcomes:
        begun_s = time.perf_counter()
        _add(store, 1, outcome, clock)
        between_s = time.perf_counter()
        record = pack_cycle(outcome.record, store.site.mask)
        plain.execute("INSERT INTO cycles VALUES (?)", (record,))
        plain_s += time.perf_counter() - between_s
        ours_s += between_s - begun_s
        sizes.append(len(record))
    return {"alone": statistics.mean(sizes), "commits": len(outcomes) / ours_s, "plain": len(outcomes) / plain_s}


def _add(store: Store, run: int, outcome: Outcome, clock: Clock) -> None:
    basis = Basis(decision.init(), LIMITS_DEFAULT, store.site.cells)
    store.add_cycle(run, clock.next_cycle(), outcome, basis)


def _steps_ms(step: Callable[[], int]) -> tuple[float, float]:
    """Median and longest time of the steps that are due."""
    times_ms, done = [], 1
    while done:
        begun_s = time.perf_counter()
        done = step()
        times_ms.append(1_000 * (time.perf_counter() - begun_s))
    return statistics.median(times_ms[:-1]), max(times_ms[:-1])


def _chunk_bytes(store: Store) -> float:
    return _ask(store, "SELECT sum(length(data)) * 1.0 / sum(last_id - first_id + 1) FROM chunks")


def _file_bytes(store: Store, cycles: int) -> float:
    """The file without its free pages and its models, for each cycle."""
    pages = _pages(store) - _ask(store, "PRAGMA freelist_count")
    models = _ask(store, "SELECT sum(length(filter_set) + length(head)) FROM models")
    return (pages * _ask(store, "PRAGMA page_size") - models) / cycles


def _pages(store: Store) -> float:
    return _ask(store, "PRAGMA page_count")


def _ask(store: Store, query: str) -> float:
    with closing(sqlite3.connect(store.path)) as database:
        return float(database.execute(query).fetchone()[0])


def _table(rows: dict[str, dict[str, Any]]) -> str:
    lines = [f"{'':44}" + "".join(f"{spec:>12}" for spec in rows)]
    for label, form in _LINES.items():
        lines.append(f"{label:44}" + "".join(f"{form(row):>12}" for row in rows.values()))
    return "\n".join(lines)


def _ms(pair: tuple[float, float]) -> str:
    return f"{pair[0]:.1f} ({pair[1]:.1f})"


_LINES: dict[str, Callable[[dict[str, Any]], str]] = {
    "bytes of a cycle's record, alone": lambda row: f"{row['alone']:.0f}",
    f"  in a chunk of {CHUNK_CYCLES}": lambda row: f"{row['chunk']:.0f}",
    "bytes of the file for each cycle, alone": lambda row: f"{row['file_alone']:.0f}",
    "  in chunks": lambda row: f"{row['file_chunk']:.0f}",
    "commits a second": lambda row: f"{row['commits']:.0f}",
    "  bare SQLite, the record as one row": lambda row: f"{row['plain']:.0f}",
    "  ratio": lambda row: f"{row['commits'] / row['plain']:.2f}",
    "ms to put 60 together, median (longest)": lambda row: _ms(row["compact_ms"]),
    "ms to delete 60, median (longest)": lambda row: _ms(row["forget_ms"]),
    "file when as many came as went, over before": lambda row: f"{row['grown']:.2f}",
}

if __name__ == "__main__":
    sys.exit(main())
