"""Time one training step in ONNX Runtime, numpy and PyTorch: `python -m tools.bench_train [--json] [--torch PYTHON]`.

Batch 100, spec seed, the lounge of 17 x 25 nodes, Adam, one thread. Engines take turns, start from the same weights and
must come to the same losses. Time is processor time, which other programs on the machine disturb least. Memory is that
of the whole process, a fresh one for each engine: interpreter, numpy, the engine's library, the batch (about 1 MB) and
what steps need; its peak after the last step, and beside it the peak before the first one. PyTorch is no part of the
project: without it the other two are measured, and --torch names an interpreter that has it. Exit code 1 when a ratio
is out of its bounds, 2 when something cannot be measured.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from gateway import twin
from gateway.model import SPECS
from gateway.quantise import shares_of
from gateway.site import lounge
from gateway.start_weights import load_start

SPEC = SPECS["seed"]
BATCH = 100
ROUNDS = 3
# The first steps of a process make it grow, and are left out.
STEPS, STEPS_WARM = 60, 10
RATE, FILTER_RATE = 1e-4, 1e-4
# How much is lost between nodes, so that nobody can leave the masks out.
LOST_SHARE = 0.1
LABELS = {"onnx": "ONNX Runtime", "numpy": "numpy", "torch": "PyTorch"}
# Neighbours then differ by up to 3.5 degrees: neither all calm nor all abnormal.
NOISE_CCEL = 50
# What the project wants of its engine.
TIME_OVER_TORCH_MAX = 1.0
MEMORY_OVER_TORCH_MAX = 1 / 3
# Engines add in different orders, and a latent weight on the edge between two integers may fall to either side.
LOSS_TOLERANCE = 0.01

Arrays = dict[str, NDArray[Any]]


class BenchError(RuntimeError):
    """An engine failed, or came to other losses; one line says which and what to do."""


class Engine(Protocol):
    """A network in training: learns from a batch, returns the loss before that."""

    def step(self, batch: Arrays, rate: float, filter_rate: float) -> float:
        """One step."""


class Task(NamedTuple):
    """What every engine gets, under the names of gateway/training_graph.py."""

    parameters: Arrays
    constants: Arrays
    batch: Arrays


class Measured(NamedTuple):
    """One engine: median ms of processor time a step, peak MB of its process before all steps and after, losses."""

    step_ms: float
    ready_mb: float
    peak_mb: float
    losses: list[float]


def main() -> int:
    """Run the command; its exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench_train", description="Time one training step.")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--torch", default=sys.executable, metavar="PYTHON", help="an interpreter that has PyTorch")
    parser.add_argument("--rounds", type=int, default=ROUNDS, choices=range(1, 101), metavar="1..100")
    parser.add_argument("--engine", nargs=2, metavar=("NAME", "TASK"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.engine:
        return _run_engine(*options.engine)
    try:
        measured = bench(options.rounds, options.torch)
    except BenchError as error:
        print(f"bench-train: {error}", file=sys.stderr)
        return 2
    answer = _as_json(measured)
    print(json.dumps(answer) if options.json else _table(answer))
    return 0 if answer["holds"] is not False else 1


def bench(rounds: int, torch_python: str) -> dict[str, Measured]:
    """Let all engines take turns; the median of their rounds. Without PyTorch there is no "torch" in the answer.

    Raises:
        BenchError: an engine failed, or two came to different losses.
    """
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "task.npz"
        _save(make_task(), path)
        pythons = {name: torch_python if name == "torch" else sys.executable for name in LABELS}
        turns = [_measure(pythons[name], name, path) for _ in range(rounds) for name in LABELS]
    found: dict[str, list[Measured]] = {}
    for name, measured in zip(list(LABELS) * rounds, turns, strict=True):
        if measured:
            found.setdefault(name, []).append(measured)
    losses = [measured.losses for runs in found.values() for measured in runs]
    if not np.allclose(losses, losses[0], rtol=LOSS_TOLERANCE, atol=0):
        raise BenchError(
            f"the engines came to different losses: { ({name: x[0].losses for name, x in found.items()}) }"
        )
    return {
        name: Measured(
            statistics.median(x.step_ms for x in runs),
            max(x.ready_mb for x in runs),
            max(x.peak_mb for x in runs),
            runs[0].losses,
        )
        for name, runs in found.items()
    }


def make_task(seed: int = 1) -> Task:
    """The start model, and a batch of random fields of which some values get lost."""
    site, rng = lounge(), np.random.default_rng(seed)
    model = load_start(SPEC.name, site)
    if model is None:
        raise BenchError(f"there are no start weights for {SPEC.name}; make them with: python -m tools.fit_start")
    parameters: Arrays = {}
    constants: Arrays = {}
    for index, layer in enumerate(model.filters.layers):
        shares = shares_of(layer)
        parameters |= {f"filters{index}.weights": shares.weights, f"filters{index}.bias": shares.bias}
        constants[f"filters{index}.step"] = np.array(1 << layer.shift, np.float32)
    for index, (weights, bias) in enumerate(model.head.layers):
        parameters |= {f"dense{index}.weights": weights, f"dense{index}.bias": bias}
    inputs_len = model.head.widths[0]
    constants |= {"centre": np.zeros(inputs_len, np.float32), "scale": np.ones(inputs_len, np.float32)}
    fields = (BATCH, site.rows, site.cols)
    everywhere = np.ones(fields, np.bool_)
    exists = twin.slots_of(site.neighbour_masks & twin.neighbours_where(everywhere))
    batch = {
        "readings": np.rint(rng.normal(0, NOISE_CCEL, fields)).astype(np.float32),
        "heard": exists & (rng.random((SPEC.exchanges, *exists.shape)) >= LOST_SHARE),
        "pooled": everywhere,
        "targets": np.eye(2, dtype=np.float32)[rng.integers(0, 2, BATCH)],
    }
    return Task(parameters, constants, batch)


def _measure(python: str, name: str, path: Path) -> Measured | None:
    """One engine in a process of its own; None where it is not installed."""
    command = [python, "-m", "tools.bench_train", "--engine", name, str(path)]
    root = Path(__file__).resolve().parent.parent
    one_thread = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    result = subprocess.run(command, cwd=root, env=one_thread, capture_output=True, text=True, check=False)
    if result.returncode:
        last = (result.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise BenchError(f"{LABELS[name]} failed: {last}")
    answer = json.loads(result.stdout)
    return Measured(**answer) if answer else None


def _run_engine(name: str, path: str) -> int:
    """What the process of an engine does: print its `Measured`, or null where it is not installed."""
    task = _load(path)
    try:
        engine = _engine(name, task)
    except ImportError:
        print("null")
        return 0
    times_ms, losses, ready_mb = [], [], _peak_mb()
    for _ in range(STEPS):
        started_ns = time.process_time_ns()
        losses.append(engine.step(task.batch, RATE, FILTER_RATE))
        times_ms.append((time.process_time_ns() - started_ns) / 1e6)
    step_ms = statistics.median(times_ms[STEPS_WARM:])
    print(json.dumps(Measured(step_ms, ready_mb, _peak_mb(), losses[:STEPS_WARM])._asdict()))
    return 0


def _save(task: Task, path: Path) -> None:
    arrays = {f"{part}/{name}": x for part, named in task._asdict().items() for name, x in named.items()}
    np.savez(path, allow_pickle=False, **arrays)


def _load(path: str) -> Task:
    task = Task({}, {}, {})
    with np.load(path, allow_pickle=False) as arrays:
        for place in arrays.files:
            part, name = place.split("/")
            getattr(task, part)[name] = arrays[place]
    return task


def _engine(name: str, task: Task) -> Engine:
    """Imported here, so that no engine's process pays for another's library."""
    if name == "torch":
        from tools.training_torch import TorchEngine

        return TorchEngine(SPEC, task.parameters, task.constants)
    from gateway.training_graph import Recipe

    widths = tuple(len(task.parameters[f"dense{index}.weights"]) for index in range(len(SPEC.hidden) + 1))
    recipe = Recipe(lounge(), SPEC.layers, (*widths, 2), SPEC.appends_maximum)
    if name == "onnx":
        from gateway.trainer import Engine as OnnxEngine

        return OnnxEngine(recipe, task.parameters, task.constants)
    from tools.training_oracle import Oracle

    return Oracle(recipe, task.parameters, task.constants)


def _peak_mb() -> float:
    """Of this process since it began: unlike ru_maxrss, Linux's VmHWM knows nothing of the process that started it."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    if found is None:
        raise BenchError("/proc/self/status tells no VmHWM; measure on Linux")
    return int(found[1]) / 1024


def _as_json(measured: dict[str, Measured]) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "batch": BATCH,
        "spec": SPEC.name,
        "step_ms": {name: round(x.step_ms, 2) for name, x in measured.items()},
        "ready_mb": {name: round(x.ready_mb, 1) for name, x in measured.items()},
        "peak_mb": {name: round(x.peak_mb, 1) for name, x in measured.items()},
        "time_over_torch": None,
        "memory_over_torch": None,
        "holds": None,
    }
    if "torch" in measured:
        onnx, torch = measured["onnx"], measured["torch"]
        ratios = onnx.step_ms / torch.step_ms, onnx.peak_mb / torch.peak_mb
        answer["time_over_torch"], answer["memory_over_torch"] = (round(ratio, 3) for ratio in ratios)
        answer["holds"] = ratios[0] <= TIME_OVER_TORCH_MAX and ratios[1] <= MEMORY_OVER_TORCH_MAX
    return answer


def _table(answer: dict[str, Any]) -> str:
    lines = [f"one step, batch {BATCH}, spec {SPEC.name}, 17 x 25 nodes, one thread", ""]
    lines.append(f"{'':14}ms a step    peak MB    of it before the first step")
    for name, label in LABELS.items():
        if name in answer["step_ms"]:
            step_ms, peak_mb, ready_mb = (answer[key][name] for key in ("step_ms", "peak_mb", "ready_mb"))
            lines.append(f"{label:14}{step_ms:9.1f}{peak_mb:11.0f}{ready_mb:11.0f}")
        else:
            lines.append(f"{label:14}not installed; name an interpreter that has it: --torch PYTHON")
    if answer["holds"] is not None:
        time_ratio, memory_ratio = answer["time_over_torch"], answer["memory_over_torch"]
        lines += ["", f"ONNX Runtime over PyTorch: time {time_ratio} (at most {TIME_OVER_TORCH_MAX}), "]
        lines[-1] += f"memory {memory_ratio} (at most {MEMORY_OVER_TORCH_MAX:.3f})"
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
