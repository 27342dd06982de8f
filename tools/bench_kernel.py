"""Time one node's unit on MicroPython (viper and plain), CPython and in C: `python -m tools.bench_kernel [--json]`.

Beside it stands the zone that a node of spec zone works out in mode event, on all but C.
Machines are noisy, ratios are not: the contestants take turns, and the fastest batch of each counts. Exit code 1 when
a ratio is out of its bounds, 2 when gcc or MicroPython is missing.
"""

import argparse
import json
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from firmware.unit import convolve
from firmware.zone import limits
from tools.rig import interpreter, kernel_timing

ROUNDS = 7
BATCHES = 10
# About 5 ms a batch, short enough that some batch of the run is left undisturbed.
CALLS = {"c": 10_000, "viper": 2_500, "plain": 50, "cpython": 100}
LABELS = {
    "c": "C loop, gcc -O2",
    "viper": "MicroPython, viper",
    "plain": "MicroPython, plain",
    "cpython": f"CPython {platform.python_version()}",
}
# Viper is what makes the kernel affordable on a node; beyond these it is not worth its unchecked loads.
PLAIN_OVER_VIPER_MIN = 15
VIPER_OVER_C_MAX = 8
_SOURCE = Path(__file__).with_suffix(".c")
_ON_MICROPYTHON = """
from firmware.unit import convolve
from firmware.zone import limits
from tools.rig import kernel_timing
print(*kernel_timing.measure(convolve, {calls}, {batches}), *kernel_timing.measure_zone(limits, {calls}, {batches}))
"""

Contestant = Callable[[], str]


class BenchError(RuntimeError):
    """A contestant is missing, or came to other activations; one line says which and what to do."""


class Result(NamedTuple):
    """ns of one pair of units, and of one zone, by contestant, and the two ratios that are bounded."""

    ns: dict[str, int]
    zone_ns: dict[str, int]

    @property
    def plain_over_viper(self) -> float:
        """How much faster viper is than the plain variant."""
        return self.ns["plain"] / self.ns["viper"]

    @property
    def viper_over_c(self) -> float:
        """How much slower viper is than C."""
        return self.ns["viper"] / self.ns["c"]

    @property
    def holds(self) -> bool:
        """Whether both ratios are within their bounds."""
        return self.plain_over_viper >= PLAIN_OVER_VIPER_MIN and self.viper_over_c <= VIPER_OVER_C_MAX


def bench(rounds: int) -> Result:
    """Let all contestants take turns.

    Raises:
        BenchError: gcc or MicroPython is missing, or two contestants disagree.
    """
    with tempfile.TemporaryDirectory() as scratch:
        contestants = _contestants(Path(scratch))
        ns: tuple[dict[str, int], dict[str, int]] = {}, {}
        answers: tuple[dict[str, str], dict[str, str]] = {}, {}
        for _ in range(rounds):
            for name, measure in contestants.items():
                words = measure().split()
                for kind, (taken_ns, answer) in enumerate(zip(words[::2], words[1::2], strict=True)):
                    ns[kind][name] = min(ns[kind].get(name, int(taken_ns)), int(taken_ns))
                    answers[kind][name] = answer
    for what, by_name in zip(("activations", "zones"), answers, strict=True):
        if len(set(by_name.values())) != 1:
            raise BenchError(f"the contestants came to different {what}: {by_name}")
    return Result(*ns)


def main() -> int:
    """Run the command; its exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench_kernel", description="Time one node's unit.")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--rounds", type=int, default=ROUNDS, choices=range(1, 101), metavar="1..100")
    options = parser.parse_args()
    try:
        result = bench(options.rounds)
    except (BenchError, interpreter.InterpreterError) as error:
        print(f"bench-kernel: {error}", file=sys.stderr)
        return 2
    print(json.dumps(_as_json(result)) if options.json else _table(result))
    return 0 if result.holds else 1


def _contestants(scratch: Path) -> dict[str, Contestant]:
    program = _compiled(scratch)
    viper = (interpreter.SOURCES,)
    plain = (interpreter.write_plain_kernel(scratch), interpreter.SOURCES)
    return {
        "c": lambda: _run_c(program),
        "viper": lambda: interpreter.run(_ON_MICROPYTHON.format(calls=CALLS["viper"], batches=BATCHES), viper),
        "plain": lambda: interpreter.run(_ON_MICROPYTHON.format(calls=CALLS["plain"], batches=BATCHES), plain),
        "cpython": _measure_here,
    }


def _measure_here() -> str:
    units = kernel_timing.measure(convolve, CALLS["cpython"], BATCHES)
    return " ".join(map(str, (*units, *kernel_timing.measure_zone(limits, CALLS["cpython"], BATCHES))))


def _compiled(scratch: Path) -> Path:
    gcc = shutil.which("gcc")
    if gcc is None:
        raise BenchError("gcc is not on PATH; install it, for example with: apt install gcc")
    program = scratch / "kernel"
    result = subprocess.run([gcc, "-O2", "-o", program, _SOURCE], capture_output=True, text=True, check=False)
    if result.returncode:
        raise BenchError(f"gcc cannot compile {_SOURCE.name}: {result.stderr.strip()}")
    return program


def _run_c(program: Path) -> str:
    layers = [size for pair in zip(kernel_timing.TAPS, kernel_timing.SHIFTS, strict=True) for size in pair]
    sizes = [CALLS["c"], BATCHES, kernel_timing.CHANNELS, *layers]
    return subprocess.run([program, *map(str, sizes)], capture_output=True, text=True, check=True).stdout


def _as_json(result: Result) -> dict[str, object]:
    return {
        "multiply_adds": kernel_timing.MULTIPLY_ADDS,
        "ns": result.ns,
        "zone_ns": result.zone_ns,
        "plain_over_viper": round(result.plain_over_viper, 2),
        "plain_over_viper_min": PLAIN_OVER_VIPER_MIN,
        "viper_over_c": round(result.viper_over_c, 2),
        "viper_over_c_max": VIPER_OVER_C_MAX,
        "holds": result.holds,
    }


def _table(result: Result) -> str:
    rows = [f"{LABELS[name]:22}{ns:>12,}{ns / result.ns['c']:>12.1f}x" for name, ns in result.ns.items()]
    zones = [f"{LABELS[name]:22}{ns:>12,}{ns / result.ns[name]:>12.1f}x" for name, ns in result.zone_ns.items()]
    return "\n".join(
        [
            f"One node's unit pair of spec seed, conv3x3 1->5 and 5->5: {kernel_timing.MULTIPLY_ADDS} multiply-adds.",
            "",
            f"{'':22}{'ns a pair':>12}{'against C':>13}",
            *rows,
            "",
            f"viper over plain: {result.plain_over_viper:.0f}x (at least {PLAIN_OVER_VIPER_MIN}x)",
            f"viper over C: {result.viper_over_c:.1f}x slower (at most {VIPER_OVER_C_MAX}x)",
            "",
            "One node's zone of spec zone, four windows of five filters:",
            "",
            f"{'':22}{'ns a zone':>12}{'against the pair':>18}",
            *zones,
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
