"""`thermesh report traffic`."""

from pathlib import Path
from typing import Annotated

import typer

from tools.answer import FINE, NO, AsJson, print_answer, stages

report_app = typer.Typer(help="What was simulated, as a page, a picture and one JSON object.")


@report_app.command("traffic")
def report_traffic(
    rooms: Annotated[str | None, typer.Option(help="Simulated rooms: 0-9, 0,3,5 or 4; default 0-9.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Room 0 alone, one threshold: about a minute.")] = False,
    out: Annotated[Path, typer.Option(help="Folder for traffic.md, .png and .json.")] = Path("traffic"),
    as_json: AsJson = False,
) -> int:
    """Compare all modes and specs with all ways to gather readings: how right they are, for how many bytes.

    A room takes about a minute on one core, and is kept in the folder: whoever stops goes on where it was.

    Exit code 1: something that was promised of mode event or mode change does not hold.
    """
    from tools.report.traffic import holds, lines, traffic

    with stages() as stage:
        answer = traffic(rooms, quick, out, stage)
    print_answer(answer, as_json, lines)
    return FINE if holds(answer) else NO
