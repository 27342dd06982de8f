"""What a person sees at the end of a demo: the room, the proof, the bill."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from gateway.gateway import Outcome
from protocol.grid import BLOCK_SIDE

# Cold to hot, as weather maps do; 256-colour numbers, for terminals without true colour.
_COLOURS = (21, 27, 33, 39, 51, 50, 48, 118, 190, 226, 220, 214, 208, 202, 196)
_CELL = "  "


def show(console: Console, summary: dict[str, Any], outcomes: list[Outcome]) -> None:
    """Print the picture of the last abnormal cycle (else the last one), then the facts."""
    if outcomes:
        console.print(_room(next((o for o in reversed(outcomes) if o.decision.abnormal), outcomes[-1])))
    console.print(_facts(summary, outcomes))
    if summary["ledger"]:
        console.print(_bill(summary["ledger"]))
    for note in summary["notes"]:
        console.print(f"[yellow]note[/]: {note}")
    for problem in summary["problems"]:
        console.print(f"[red]problem[/]: {problem}")


def _room(outcome: Outcome) -> Panel:
    record, where = outcome.record, outcome.decision.where
    values = np.where(record.has_reading, record.readings_ccel / 100, np.nan)
    block = (where[0] * BLOCK_SIDE, where[1] * BLOCK_SIDE) if where else None
    lines = [_row(values, row, block) for row in range(len(values))]
    low, high = (np.nanmin(values), np.nanmax(values)) if record.has_reading.any() else (0.0, 0.0)
    word = f"abnormal at block {where[0]}, {where[1]} (marked)" if where else "normal"
    title = f"cycle {record.cycle}: {word}; {low:.1f} to {high:.1f} degrees Celsius"
    return Panel(Group(*lines), title=title, expand=False)


def _row(values: NDArray[np.float64], row: int, block: tuple[int, int] | None) -> Text:
    low, high = np.nanmin(values), np.nanmax(values)
    line = Text()
    for col, value in enumerate(values[row]):
        marked = block is not None and block[0] <= row < block[0] + 2 and block[1] <= col < block[1] + 2
        if np.isnan(value):
            line.append(_CELL)
            continue
        share = (value - low) / (high - low) if high > low else 0.5
        colour = _COLOURS[min(int(share * len(_COLOURS)), len(_COLOURS) - 1)]
        line.append("[]" if marked else _CELL, style=f"bold black on color({colour})")
    return line


def _facts(summary: dict[str, Any], outcomes: list[Outcome]) -> Table:
    exact, seconds, right = summary["exact"], summary["seconds"], summary["accuracy"]
    abnormal = sum(outcome.decision.abnormal for outcome in outcomes)
    rows = {
        "nodes": ", ".join(f"{count} x {name}" for name, count in summary["runtime"].items())
        + (f", heap {summary['heap']} each" if summary["heap"] else ""),
        "broker": summary["broker"],
        "network": f"{summary['spec']}, mode {summary['mode']}",
        "exact": f"{exact['equal']} of {exact['compared']} features equal the reference bit for bit",
        "decisions": f"{summary['cycles']} cycles, {abnormal} abnormal",
        "right": f"{right['before']} % (always the same answer: {right['majority']} %; "
        f"the two-line rule that makes the labels: {right['rule']:g} %)",
        "time": f"{seconds['cycles']} s for all cycles, {seconds['total']} s in all",
    }
    table = Table(show_header=False, box=None)
    table.add_column(style="bold")
    table.add_column()
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def _bill(bill: dict[str, Any]) -> Table:
    table = Table(title="per cycle", title_justify="left")
    for name in ("", "frames", "bytes"):
        table.add_column(name, justify="left" if not name else "right")
    for name, row in bill["kinds"].items():
        table.add_row(name, f"{row['frames']:,.1f}", f"{row['bytes']:,.0f}")
    table.add_section()
    mesh, raw = bill["total"], bill["raw_gather"]["total"]
    table.add_row("the mesh", f"{mesh['frames']:,.1f}", f"{mesh['bytes']:,.0f}", style="bold")
    table.add_row("raw readings to the gateway", f"{raw['frames']:,.1f}", f"{raw['bytes']:,.0f}")
    table.add_section()
    mesh, raw = bill["broker"], bill["raw_gather"]["broker"]
    out, raw_out = mesh["messages_out"], raw["messages_out"]
    table.add_row("broker's deliveries, mesh", f"{out:,.1f}", f"{mesh['bytes_out']:,.0f}")
    table.add_row("broker's deliveries, raw", f"{raw_out:,.1f}", f"{raw['bytes_out']:,.0f}")
    return table
