"""What the commands have in common: exit codes, options, how they answer on stdout and tell how far they are."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

FINE, NO, WRONG, STOPPED = 0, 1, 2, 130

GatewayFile = Annotated[Path, typer.Option("--config", help="The gateway's file (TOML), as for `thermesh gateway`.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def print_answer(found: dict[str, Any], as_json: bool, lines: Callable[[dict[str, Any]], list[str]]) -> None:
    """One JSON object, or the lines that say the same to people."""
    if as_json:
        print_json(found)
    else:
        print("\n".join(lines(found)))


def print_json(value: dict[str, Any]) -> None:
    """One JSON object on stdout."""
    print(json.dumps(value, indent=1))


def facts_lines(found: dict[str, Any]) -> list[str]:
    """A line for each field."""
    return [f"{key:12} {value}" for key, value in found.items()]


@contextmanager
def stages() -> Iterator[Any]:
    """Progress bars on stderr: each call of what this yields opens a bar and returns what moves it."""
    bars = Progress(
        TextColumn("{task.description:32}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=not sys.stderr.isatty(),
        disable=not sys.stderr.isatty(),
    )

    def stage(name: str) -> Any:
        task: TaskID = bars.add_task(name, total=None)
        return lambda done, total: bars.update(task, completed=done, total=total)

    with bars:
        yield stage
