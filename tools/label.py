"""`thermesh label`: an operator says which cycles were abnormal; learning believes that more than the site's rule."""

import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from gateway.config import load_config
from gateway.rule import abnormal
from gateway.store import CYCLE_MAX, Store, StoredCycle

LABELS = {"abnormal": True, "normal": False, "none": None}


class LabelError(ValueError):
    """What was asked cannot be done; one line that names field, value and remedy."""


class Order(NamedTuple):
    """What an operator asked for, as it was written.

    Attributes:
        cycles: "12" or "12-20".
        label: a word of LABELS.
        run: the gateway's start; None for that of the latest cycle.
        note: why.
    """

    cycles: str | None
    label: str | None
    run: int | None
    note: str


def list_cycles(config: Path, last: int) -> dict[str, Any]:
    """The latest cycles, the newest at the end: what was decided, what the rule and what the operator say.

    Raises:
        ValueError: the gateway's file or its store cannot be used.
    """
    with _store(config) as store:
        return {"store": str(store.path), "cycles": [_line(stored) for stored in store.latest_cycles(last)]}


def set_label(config: Path, order: Order) -> dict[str, Any]:
    """Label cycles, or take their labels away.

    Returns:
        run, first, last, label (None: taken away), changed (how many cycles or labels there were).

    Raises:
        ValueError: the order makes no sense, no such cycle is stored, or the store cannot be used.
    """
    first, last = cycles = _parse_cycles(order.cycles)
    if order.label not in LABELS:
        raise LabelError(f"--as: {(order.label or 'nothing')[:40]!r} is no label; write {', '.join(LABELS)}")
    value = LABELS[order.label]
    with _store(config) as store:
        run = _run_of(store, order, cycles)
        if value is None:
            changed = store.remove_label(run, cycles)
        else:
            changed = store.set_label(run, cycles, value, time.time(), order.note)
    word = None if value is None else order.label
    return {"run": run, "first": first, "last": last, "label": word, "changed": changed}


def table(found: dict[str, Any]) -> list[str]:
    """The lines that people read of what `list_cycles` gives."""
    if not found["cycles"]:
        return [f"{found['store']}: no cycle yet"]
    lines = [f"{'run':>6} {'cycle':>8}  {'time (UTC)':19}  {'decided':8}  {'rule':8}  {'label':8}  note"]
    for line in found["cycles"]:
        words = "  ".join(f"{line[key] or '-':8}" for key in ("decided", "rule", "label"))
        lines.append(f"{line['run']:6} {line['cycle']:8}  {line['time'][:19]}  {words}  {line['note']}".rstrip())
    return lines


def _run_of(store: Store, order: Order, cycles: tuple[int, int]) -> int:
    """The run that is meant; it has some of the cycles."""
    run = store.last_run() if order.run is None else order.run
    if run is None:
        raise LabelError(f"{store.path}: no cycle is stored yet; let `thermesh gateway` run for some")
    if not store.cycle_span(run, cycles):
        span = store.cycle_span(run)
        there = f"cycles {span[0]}-{span[1]}" if span else "none"
        raise LabelError(f"--cycles: {order.cycles} of run {run} is not stored; of this run there are {there}")
    return run


def _store(config: Path) -> Store:
    loaded = load_config(config)
    return Store(loaded.state, loaded.site)


def _line(stored: StoredCycle) -> dict[str, Any]:
    record = stored.outcome.record
    return {
        "run": stored.run,
        "cycle": record.cycle,
        "time": datetime.fromtimestamp(stored.at_s, UTC).isoformat(timespec="seconds"),
        "decided": _word(stored.outcome.decision.abnormal),
        "rule": _word(bool(abnormal(record.readings_ccel, record.has_reading))),
        "label": None if stored.label is None else _word(stored.label),
        "note": stored.note,
    }


def _word(is_abnormal: bool) -> str:
    return "abnormal" if is_abnormal else "normal"


def _parse_cycles(text: str | None) -> tuple[int, int]:
    """"12" -> (12, 12), "12-20" -> (12, 20)."""
    found = re.fullmatch(r"([0-9]{1,10})(?:-([0-9]{1,10}))?", text or "")
    first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
    if not first <= last <= CYCLE_MAX:
        raise LabelError(f"--cycles: {(text or 'nothing')[:40]!r} is no cycle or range; write 12 or 12-20")
    return first, last
