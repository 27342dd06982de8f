"""What a person sees at the end of a demo: the room, the proof, the bill."""

from typing import Any

import numpy as np
from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from gateway.gateway import Outcome
from protocol.grid import BLOCK_SIDE

# Cold to hot, as weather maps do; 256-colour numbers, for terminals without true colour.
_COLOURS = (21, 27, 33, 39, 51, 50, 48, 118, 190, 226, 220, 214, 208, 202, 196)
_CELL = "  "
_NO_READING = -1


def show(console: Console, summary: dict[str, Any], outcomes: list[Outcome]) -> None:
    """Print the picture of the last abnormal cycle (else the last one), then the facts."""
    if outcomes:
        console.print(_room(next((o for o in reversed(outcomes) if o.decision.abnormal), outcomes[-1])))
    console.print(_facts(summary, outcomes))
    if summary["ledger"]:
        console.print(_bill(summary["ledger"]))
    for word, colour in (("note", "yellow"), ("problem", "red")):
        for line in summary[f"{word}s"]:
            # As Text: others' words may hold what rich takes for its markup.
            console.print(Text.assemble((word, colour), f": {line}"))


def _room(outcome: Outcome) -> Panel:
    record, where = outcome.record, outcome.decision.where
    degrees = record.readings_ccel / 100
    there = degrees[record.has_reading]
    low, high = (there.min(), there.max()) if there.size else (0.0, 0.0)
    share = (degrees - low) / (high - low) if high > low else np.full_like(degrees, 0.5)
    places = np.clip(share * len(_COLOURS), 0, len(_COLOURS) - 1).astype(np.int64)
    marked = np.zeros(places.shape, np.bool_)
    word = "abnormal" if outcome.decision.abnormal else "normal"
    span = f"{low:.1f} to {high:.1f} degrees Celsius" if there.size else "no readings"
    if where:
        word = f"abnormal at block {where[0]}, {where[1]} (marked)"
        top, left = where[0] * BLOCK_SIDE, where[1] * BLOCK_SIDE
        marked[top : top + BLOCK_SIDE, left : left + BLOCK_SIDE] = True
    rows = zip(np.where(record.has_reading, places, _NO_READING).tolist(), marked.tolist(), strict=True)
    lines = Group(*(_row(*row) for row in rows))
    return Panel(lines, title=f"cycle {record.cycle}: {word}; {span}", expand=False)


def _row(places: list[int], marked: list[bool]) -> Text:
    """A row of the room: each cell's place among the colours, and whether it is marked."""
    line = Text()
    for place, is_marked in zip(places, marked, strict=True):
        if place == _NO_READING:
            line.append(_CELL)
        else:
            line.append("[]" if is_marked else _CELL, style=f"bold black on color({_COLOURS[place]})")
    return line


_COMPARED = {
    "always": "features",
    "change": "features of what nodes said last",
    "event": "node states and features",
}


def _facts(summary: dict[str, Any], outcomes: list[Outcome]) -> Table:
    exact, seconds, right, where = (summary[key] for key in ("exact", "seconds", "accuracy", "where"))
    abnormal = sum(outcome.decision.abnormal for outcome in outcomes)
    rows = {
        "nodes": ", ".join(f"{count} x {name}" for name, count in summary["runtime"].items())
        + (f", heap {summary['heap']} each" if summary["heap"] else ""),
        "broker": summary["broker"],
        "network": f"{summary['spec']}, {_mode(summary)}",
        "exact": f"{exact['equal']} of {exact['compared']} {_COMPARED[summary['mode']]} are exact, bit for bit",
        "decisions": f"{summary['cycles']} cycles, {abnormal} abnormal",
        "carried": f"{summary['carried']:,} blocks of all cycles together, which said nothing new",
        "filters": _filters(summary["filters"]),
        "right": _right(right),
        "where": f"in {where['near']} of {where['found']} abnormal cycles found, at or next to the largest difference",
        "time": f"{seconds['cycles']} s for all cycles, {seconds['total']} s in all",
    }
    if summary["mode"] == "always":
        del rows["carried"]
    table = Table(show_header=False, box=None)
    table.add_column(style="bold")
    table.add_column()
    for name, value in rows.items():
        table.add_row(name, Text(value))
    return table


def _mode(summary: dict[str, Any]) -> str:
    threshold = f", threshold {summary['threshold_ccel'] / 100:.2f} degrees" if summary["mode"] == "change" else ""
    return f"mode {summary['mode']}{threshold}"


def _right(right: dict[str, Any]) -> str:
    if not right["cycles"]:
        return "no cycle was left that had not been trained on"
    return (
        f"{right['after']} % of the {right['cycles']} cycles not trained on, {right['before']} % before learning "
        f"(always the same answer: {right['majority']} %; the two-line rule that makes the labels: {right['rule']:g} %)"
    )


def _filters(filters: dict[str, Any]) -> str:
    if filters["to"] is None:
        return f"version {filters['from']}; no wave was sent"
    origin = "learned here and better" if filters["accepted"] else "the same weights, for nothing better was learned"
    return (
        f"version {filters['from']} to {filters['to']} ({origin}): "
        f"confirmed by {filters['confirmed']} nodes, refused {filters['refused']} times"
    )


# Alternatives that are on the bill beside single readings, by name in the ledger.
_OTHERS = {"deltas": "differences of one byte", "send_on_change": "readings that moved by 0.25 degrees"}


def _bill(bill: dict[str, Any]) -> Table:
    table = Table(title="per cycle", title_justify="left")
    for name in ("", "frames", "bytes"):
        table.add_column(name, justify="left" if not name else "right")
    for name, row in bill["kinds"].items():
        if row["frames"]:
            table.add_row(name, f"{row['frames']:,.1f}", f"{row['bytes']:,.0f}")
    table.add_section()
    mesh, raw = bill["total"], bill["raw_gather"]["total"]
    table.add_row("the mesh", f"{mesh['frames']:,.1f}", f"{mesh['bytes']:,.0f}", style="bold")
    table.add_row("raw readings to the gateway", f"{raw['frames']:,.1f}", f"{raw['bytes']:,.0f}")
    table.add_section()
    table.add_row("the mesh, on the air (802.15.4)", "", f"{mesh['bytes_on_air']:,.0f}")
    table.add_row("raw readings, on the air", "", f"{raw['bytes_on_air']:,.0f}")
    for name, words in _OTHERS.items():
        table.add_row(f"{words}, on the air", "", f"{bill['alternatives'][name]['star']['bytes_on_air']:,.0f}")
    if bill["proof"]["frames"]:
        table.add_row("beside it: proofs", f"{bill['proof']['frames']:,.1f}", f"{bill['proof']['bytes']:,.0f}")
    table.add_section()
    mesh, raw = bill["broker"], bill["raw_gather"]["broker"]
    out, raw_out = mesh["messages_out"], raw["messages_out"]
    table.add_row("broker's deliveries, mesh", f"{out:,.1f}", f"{mesh['bytes_out']:,.0f}")
    table.add_row("broker's deliveries, raw", f"{raw_out:,.1f}", f"{raw['bytes_out']:,.0f}")
    return table
