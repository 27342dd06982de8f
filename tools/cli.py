"""The `thermesh` command: reads words, calls what does the work, prints answers on stdout and progress on stderr.

Exit codes: 0 fine, 1 the answer is no, 2 wrong use or input, 130 stopped by Ctrl-C.
"""

import logging
import signal
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from tools.answer import FINE, NO, STOPPED, WRONG, AsJson, GatewayFile, facts_lines, print_answer, print_json, stages
from tools.broker_command import broker_app
from tools.filters_command import filters_app
from tools.node_command import node_app
from tools.report.command import report_app

ERROR_LINE_MAX = 500

app = typer.Typer(
    add_completion=False,
    help="Deep learning inside a sensor mesh: one convolutional network spread over temperature-sensor nodes.",
)
app.add_typer(node_app, name="node")
app.add_typer(broker_app, name="broker")
app.add_typer(filters_app, name="filters")
app.add_typer(report_app, name="report")


def main() -> NoReturn:
    """Entry point: runs the command; every expected error is one line on stderr and a code, never a traceback."""
    # A polite kill cleans up as Ctrl-C does: no node and no broker outlives the command.
    signal.signal(signal.SIGTERM, _interrupt)
    code = WRONG
    try:
        code = app(sys.argv[1:] or ["--help"], standalone_mode=False) or FINE
        if code == STOPPED:
            _say("stopped")
    except KeyboardInterrupt:
        _say("stopped")
        code = STOPPED
    except typer.TyperException as error:
        _say(f"{error.format_message()} (thermesh --help shows what there is)")
    except BrokenPipeError:
        sys.stdout = None  # whoever read has gone; there is nobody to tell
        code = FINE
    except OSError as error:
        _say(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except ValueError as error:
        _say(str(error))
    sys.exit(code)


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _say(message: str) -> None:
    line = " ".join(message.split())
    print(f"thermesh: {line[:ERROR_LINE_MAX]}", file=sys.stderr)


@app.command()
def demo(
    site: Annotated[Path | None, typer.Option(help="Site file (TOML): name, rows, cols, holes.")] = None,
    readings: Annotated[
        Path | None,
        typer.Option(help="CSV of real readings: a header of node names, a row a cycle, degrees Celsius."),
    ] = None,
    spec: Annotated[str, typer.Option(help="The network: seed, lean or zone.")] = "seed",
    mode: Annotated[
        str, typer.Option(help="When nodes speak: always, change (when something moved), or event (spec zone).")
    ] = "always",
    threshold: Annotated[
        float | None, typer.Option(help="Mode change: readings that moved by more are said, degrees; default 0.25.")
    ] = None,
    copies: Annotated[
        int, typer.Option(help="Mode event: how often nodes say what matters, as where links lose frames; default 0.")
    ] = 0,
    cycles: Annotated[int | None, typer.Option(min=1, max=1_000_000, help="How many cycles; default 48.")] = None,
    train_cycles: Annotated[
        int | None, typer.Option(min=1, max=1_000_000, help="Learn from the first so many; default half of them.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Which simulated room, and which day.")] = 0,
    broker: Annotated[str, typer.Option(help="auto, mosquitto, amqtt or HOST:PORT.")] = "auto",
    runtime: Annotated[str, typer.Option(help="What nodes run on: auto, micropython or cpython.")] = "auto",
    heap: Annotated[
        str, typer.Option(help="Heap of each MicroPython node; 32K is the least.")
    ] = "32K",
    out: Annotated[Path | None, typer.Option(help="Folder for readings, cycles, filters and summary.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as one JSON object.")] = False,
) -> int:
    """Run a whole mesh on this machine: real nodes, a real broker, a gateway, and proof that it computed exactly.

    Without options: 425 nodes in a simulated lounge of 17 x 25, one day of half hours with time compressed.

    Exit code 1: a feature was not exact, nodes did not become ready, or the host of all nodes ended.
    """
    from tools.demo.judged import is_exact
    from tools.demo.picture import show
    from tools.demo.plan import Options
    from tools.demo.run import Demo

    asked = (site, readings, spec, mode, threshold, copies, cycles, train_cycles, seed, broker, runtime, heap, out)
    options = Options(*asked)
    with stages() as stage:
        run = Demo(options, stage)
        summary = run.run()
    if as_json:
        print_json(summary)
    else:
        show(Console(), summary, run.outcomes)
    return FINE if is_exact(summary) and run.complete else NO


@app.command()
def data(
    name: Annotated[str, typer.Argument(help="ostia (sea surface) or e1 (air over North America).")],
    out: Annotated[Path, typer.Option(help="CSV file to write.")],
    crop: Annotated[str | None, typer.Option(help="Rows and columns, like 100:117,200:225.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was written as one JSON object.")] = False,
) -> int:
    """Write real gridded temperatures as a readings file for `thermesh demo --readings`."""
    from tools import readings
    from tools.data import extract, parse_crop

    found = extract(name, parse_crop(crop) if crop else None)
    readings.write(out, found.cells, found.ccel, found.present)
    facts = {
        "file": str(out),
        "cycles": len(found.ccel),
        "nodes": len(found.cells),
        "description": found.description,
        "licence": found.licence,
    }
    print_answer(facts, as_json, facts_lines)
    return FINE


@app.command()
def gateway(
    config: Annotated[Path, typer.Option(help="The gateway's file (TOML); gateway/config.py lists its fields.")],
    cycles: Annotated[int | None, typer.Option(min=1, help="End after so many cycles; default: run on.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print each decision as one JSON object a line.")] = False,
) -> int:
    """Run a site's gateway: open cycles, assemble reports, decide, store, learn, send better filters to nodes."""
    from tools.gateway import run_gateway

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    with stages() as stage:
        run_gateway(config, cycles, as_json, stage)
    return FINE


@app.command()
def label(
    config: Annotated[Path, typer.Option(help="The gateway's file (TOML), as for `thermesh gateway`.")],
    cycles: Annotated[str | None, typer.Option(help="Cycles to label: 12, or 12-20.")] = None,
    label_as: Annotated[str | None, typer.Option("--as", help="abnormal, normal, or none to take it away.")] = None,
    run: Annotated[int | None, typer.Option(min=0, max=2**32 - 1, help="Of which start; default: the last.")] = None,
    note: Annotated[str, typer.Option(help="Why, for other people.")] = "",
    last: Annotated[int, typer.Option(min=1, max=1_000_000, help="How many cycles to list.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> int:
    """Say which cycles were abnormal, for the gateway to learn from; without --cycles: list the latest ones."""
    from tools.label import Order, list_cycles, set_label, table

    if cycles is None and label_as is None and not note and run is None:
        print_answer(list_cycles(config, last), as_json, table)
        return FINE
    done = set_label(config, Order(cycles, label_as, run, note))
    text = f"run {done['run']}, labelled {done['label'] or 'none'}: {done['changed']}"
    print_answer(done, as_json, lambda _: [text])
    return FINE


@app.command()
def sim(
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Of everything random; the same gives the same.")] = 0,
    scenario: Annotated[
        str, typer.Option(help="calm, lossy, bursts, partition, reboots, loss10, loss30, chaos or watched.")
    ] = "calm",
    rows: Annotated[int, typer.Option(min=1, max=255, help="Rows of the site.")] = 7,
    cols: Annotated[int, typer.Option(min=1, max=255, help="Columns of the site.")] = 7,
    cycles: Annotated[
        int | None,
        typer.Option(max=1_000_000, help="How many, 30 at least, default 60; mode event: 127, default 157."),
    ] = None,
    spec: Annotated[
        str | None, typer.Option(help="The network: seed (the default), lean or zone (in mode event).")
    ] = None,
    mode: Annotated[str, typer.Option(help="When nodes speak: always, or event (spec zone).")] = "always",
    holes: Annotated[bool, typer.Option(help="Leave cells out at random.")] = True,
    trace: Annotated[Path | None, typer.Option(help="File to write every event to, as JSON lines.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as one JSON object.")] = False,
) -> int:
    """Simulate a mesh on a virtual clock: the real code of nodes and gateway, a new filter set, and what can go wrong.

    Exit code 1: a promise was broken; the summary says which, when, and how to replay it.
    """
    from sim.network.simulation import CYCLES, SPEC_OF_MODE, Plan
    from tools.sim import lines, simulate

    cycles = CYCLES.get(mode, 0) if cycles is None else cycles
    plan = Plan(seed, scenario, rows, cols, cycles, holes, spec or SPEC_OF_MODE.get(mode, "seed"), mode)
    with stages() as stage:
        summary = simulate(plan, trace, stage)
    print_answer(summary, as_json, lines)
    return NO if summary["broken"] else FINE


@app.command()
def keys(config: GatewayFile, as_json: AsJson = False) -> int:
    """Show the site's public key, with which nodes check filters; make the pair where there is none yet.

    The private half stays in the gateway's state folder and is never shown. Keep a backup of it: nodes trust no other.
    """
    from tools.keys import show

    print_answer(show(config), as_json, facts_lines)
    return FINE


@app.command("backup")
def backup_state(
    file: Annotated[Path, typer.Argument(help="The backup to write; one that is there is replaced.")],
    config: GatewayFile,
    as_json: AsJson = False,
) -> int:
    """Write store, key and the nodes' configurations into one file, while the gateway runs or not.

    Whoever has the file can sign filters for the site: it holds the private key.
    """
    from tools.backup import made_lines, make

    with stages() as stage:
        facts = make(config, file, stage)
    print_answer(facts, as_json, made_lines)
    return FINE


@app.command("restore")
def restore_state(
    file: Annotated[Path, typer.Argument(help="A file that `thermesh backup` wrote.")],
    config: GatewayFile,
    replace: Annotated[bool, typer.Option(help="Move a store that is there aside.")] = False,
    as_json: AsJson = False,
) -> int:
    """Make a state folder out of a backup, for a gateway that takes the place of another one.

    Runs and filter versions go on above all that nodes have seen, however old the backup is.
    """
    from tools.backup import restore, restored_lines

    print_answer(restore(config, file, replace), as_json, restored_lines)
    return FINE


if __name__ == "__main__":
    main()
