"""`thermesh sim`: one simulation; `python -m tools.sim`: many of them side by side, for `make trial-sim`."""

import argparse
import multiprocessing
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from gateway.config import MODES
from sim.network.simulation import CYCLES, SPEC_OF_MODE, Plan, Simulation
from tools.model_choice import Stage

TRIAL_SEEDS = 200
TRIAL_PROCESSES = 2


def simulate(plan: Plan, trace: Path | None, stage: Stage) -> dict[str, Any]:
    """Run one simulation. Returns its summary; `broken` in it is empty where every promise held.

    Raises:
        OSError: the trace cannot be written.
    """
    progress = stage(f"simulating, {plan.scenario}")
    if trace is None:
        with Simulation(plan) as simulation:
            return simulation.run(progress)
    with trace.open("w", encoding="utf-8") as file, Simulation(plan, file) as simulation:
        return simulation.run(progress)


def lines(summary: dict[str, Any]) -> list[str]:
    """A summary for people."""
    exact, filters, seconds = summary["exact"], summary["filters"], summary["seconds"]
    versions = ", ".join(f"{count} with version {version}" for version, count in summary["versions"].items())
    faults = ", ".join(f"{count} {name}" for name, count in summary["faults"].items() if count)
    checked = ", ".join(f"{name} {count}" for name, count in summary["checked"].items() if count)
    found = [
        f"nodes      {summary['nodes']}, scenario {summary['scenario']}, seed {summary['seed']}",
        f"cycles     {summary['cycles']}: {versions}",
        f"frames     {summary['frames']}, {summary['bytes']} bytes",
        f"faults     {faults or 'none'}",
        f"exact      {exact['equal']} of {exact['compared']} features equal the reference",
        f"late       {summary['late']} values",
        *_event_lines(summary["event"]),
        f"filters    {filters['confirmed']} nodes confirmed version {filters['newest']}",
        f"roll-outs  {filters['ordered']}, {filters['refused']} of them refused",
        f"checked    {checked}",
        f"digest     {summary['digest']}",
        f"time       {seconds['virtual']:g} s simulated in {seconds['real']:g} s ({seconds['cpu']:g} s busy)",
    ]
    for broken in summary["broken"]:
        found.append(f"BROKEN     {broken['promise']} at {broken['now_ms']} ms, {broken['who']}: {broken['what']}")
    return [*found, f"replay     {summary['replay']}"] if summary["broken"] else found


def _event_lines(event: dict[str, Any] | None) -> list[str]:
    """What mode event came to while there were faults, and behind them."""
    if event is None:
        return []
    air = event["faults"]["air"]
    return [
        f"agreement  {_agreement(event['faults'])}",
        f"recovered  {_agreement(event['recovered'])}",
        f"on the air {air['mesh'] + air['up']:.0f} bytes a cycle, {air['up']:.0f} of them to the gateway; "
        f"heartbeats {air['heartbeats']:.0f}, beacons {air['beacons']:.0f}, roll-out {air['filters']:.0f}, "
        f"proofs {air['proofs']:.0f}",
    ]


def _agreement(found: dict[str, Any]) -> str:
    answers, states = (100 * found[name] / max(found["cycles"], 1) for name in ("answers", "states"))
    told = f"{found['cycles']} cycles: the answer is that of a full exchange in"
    return f"{told} {answers:.2f} %, all states in {states:.2f} %, {found['late']} late"


def trial(seeds: range, scenario: str, mode: str, processes: int) -> list[dict[str, Any]]:
    """Simulate 7 x 7 sites with holes, one for each seed, in processes side by side.

    Returns the summaries of those in which a promise was broken; each is printed with the command that replays it.
    """
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    cycles, spec = CYCLES[mode], SPEC_OF_MODE[mode]
    plans = [Plan(seed, scenario, cycles=cycles, spec=spec, mode=mode) for seed in seeds]
    failed = []
    # Fresh processes: a fork would copy the threads of ONNX Runtime.
    with multiprocessing.get_context("spawn").Pool(processes) as pool, Progress(*columns, console=console) as bar:
        task = bar.add_task(f"{scenario}, mode {mode}, seeds {seeds.start} to {seeds.stop - 1}", total=len(plans))
        for summary in pool.imap_unordered(_run, plans):
            bar.advance(task)
            if summary["broken"]:
                failed.append(summary)
                print("\n".join(lines(summary)[-2:]), flush=True)
    return failed


def _run(plan: Plan) -> dict[str, Any]:
    with Simulation(plan) as simulation:
        return simulation.run()


def main() -> int:
    """Run a trial from the command line; 1 when a promise was broken."""
    parser = argparse.ArgumentParser(description="Simulate many sites, each with a wave and faults of all kinds.")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seeds", type=int, default=TRIAL_SEEDS, help="how many")
    parser.add_argument("--scenario", default="chaos")
    parser.add_argument("--mode", choices=MODES, default="always")
    parser.add_argument("--processes", type=int, default=TRIAL_PROCESSES)
    options = parser.parse_args()
    seeds = range(options.first, options.first + options.seeds)
    failed = trial(seeds, options.scenario, options.mode, options.processes)
    kept = f"{len(seeds) - len(failed)} of {len(seeds)} seeds kept every promise"
    print(f"{kept} ({options.scenario}, mode {options.mode})")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
