"""What judging one signature costs: `python -m tools.bench_verify`.

A 32-byte digest, as a node judges it, on real MicroPython and on CPython, in time and heap; beside it the time that
`cryptography` (OpenSSL) takes. Of the 64-bit Unix port, whose pointers are twice as long as a board's. Machines are
noisy: the fastest of some rounds counts. Exit code 1 when a figure is beyond its bound, 2 when MicroPython is missing.
"""

import inspect
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from protocol.ed25519 import verify
from tools.flash.build import build
from tools.rig import interpreter

ROUNDS = 20
# 425 nodes on the two cores of a PC judge the same signature; and no step may keep a node from its cycle.
VERIFICATION_US_MAX = 60_000
STEP_US_MAX = 2_000
# Beside a running node some 5 KB of the 32 KB are free.
HEAP_MAX = 5_000
_HEAP = "64K"
_LEAST_FREE_MAX = 16_384
_BLOCK = 32
BUNDLE = "ed25519"
SOURCE = "protocol.ed25519"
"""The verifier in the device build; where that has no bundle of it, as the interpreter itself compiles it."""

_TIME = """
import time
from {module} import verify
{measure}
print(*measure(verify, {case}, {rounds}))
"""
_LOAD = """
import gc
import protocol.compat  # what it imports stays in a node anyway
def loaded():
    gc.collect()
    before = gc.mem_alloc()
    import {module}
    gc.collect()
    return gc.mem_alloc() - before
print(loaded())
"""
_RUN = """
import gc
from {module} import verify
def take_all(chain):
    try:
        while True:
            chain = (chain,)
    except MemoryError:
        return chain
def run(free, case):
    gc.collect()
    room = bytearray(free - {block})
    gc.collect()
    chain = take_all(None)
    room = None
    gc.collect()
    for verdict in verify(*case):
        pass
    return verdict
print(run({free}, {case}))
"""

Case = tuple[bytes, bytes, bytes]


class Cost(NamedTuple):
    """On one runtime: us of a verification and of its longest step, number of steps, bytes needed beside the code."""

    us: float
    step_us: float
    steps: int
    heap: int


def measure(verify: Callable[..., Iterator[bool | None]], case: Case, rounds: int) -> tuple[float, float, int]:
    """(us of the fastest verification, us of the longest step where it took least, steps); MicroPython runs it too."""
    best_ns = best_step_ns = 1 << 60
    for _ in range(rounds):
        total_ns = longest_ns = steps = 0
        checking = verify(*case)
        verdict = None
        while verdict is None:
            start_ns = time.time_ns()
            verdict = next(checking)
            taken_ns = time.time_ns() - start_ns
            total_ns += taken_ns
            longest_ns = max(longest_ns, taken_ns)
            steps += 1
        if not verdict:
            raise ValueError("an honest signature was refused")
        best_ns = min(best_ns, total_ns)
        best_step_ns = min(best_step_ns, longest_ns)
    return best_ns / 1000, best_step_ns / 1000, steps


def on_micropython(module: str, paths: tuple[Path, ...], case: Case) -> tuple[Cost, int]:
    """The cost on MicroPython, and the bytes of heap that loading the module takes."""
    timing = _TIME.format(module=module, measure=inspect.getsource(measure), case=case, rounds=ROUNDS)
    us, step_us, steps = interpreter.run(timing, paths).split()
    loaded = int(interpreter.run(_LOAD.format(module=module), paths, _HEAP))
    low, high = _BLOCK, _LEAST_FREE_MAX
    while high - low > _BLOCK // 2:
        free = (low + high) // 2
        low, high = (low, free) if _runs_in(free, module, paths, case) else (free, high)
    return Cost(float(us), float(step_us), int(steps), high), loaded


def _runs_in(free: int, module: str, paths: tuple[Path, ...], case: Case) -> bool:
    try:
        source = _RUN.format(module=module, free=free, case=case, block=_BLOCK)
        return interpreter.run(source, paths, _HEAP).strip() == "True"
    except interpreter.InterpreterError:
        return False


def on_cpython(case: Case) -> Cost:
    """The cost on CPython; its heap is the peak that tracemalloc sees."""
    us, step_us, steps = measure(verify, case, ROUNDS)
    tracemalloc.start()
    for _ in verify(*case):
        pass
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return Cost(us, step_us, steps, peak)


def signed(message: bytes) -> Case:
    """An honest (public key, signature, message)."""
    key = Ed25519PrivateKey.from_private_bytes(sha256(b"a gateway's key").digest())
    return key.public_key().public_bytes_raw(), key.sign(message), message


def cryptography_us(case: Case) -> float:
    """Time of one verification by the library, us."""
    key, signature, message = case
    public = Ed25519PublicKey.from_public_bytes(key)
    best_ns = 1 << 60
    for _ in range(ROUNDS):
        start_ns = time.perf_counter_ns()
        public.verify(signature, message)
        best_ns = min(best_ns, time.perf_counter_ns() - start_ns)
    return best_ns / 1000


def main() -> int:
    """Print the table; the exit code."""
    case = signed(sha256(b"a filter set").digest())
    try:
        with tempfile.TemporaryDirectory() as scratch:
            build(Path(scratch))
            module = BUNDLE if (Path(scratch) / f"{BUNDLE}.mpy").exists() else SOURCE
            micropython, loaded = on_micropython(module, (Path(scratch), interpreter.SOURCES), case)
    except interpreter.InterpreterError as error:
        print(f"bench-verify: {error}", file=sys.stderr)
        return 2
    library_us = cryptography_us(case)
    print(f"{'':24}{'verification':>14}{'longest step':>14}{'steps':>7}{'heap':>10}{'against OpenSSL':>17}")
    for name, cost in (("MicroPython", micropython), ("CPython", on_cpython(case))):
        times = f"{cost.us / 1000:>11.2f} ms{cost.step_us / 1000:>11.2f} ms{cost.steps:>7}"
        print(f"{name:24}{times}{cost.heap:>8,} B{cost.us / library_us:>16.0f}x")
    print(f"{'cryptography':24}{library_us / 1000:>11.2f} ms")
    print(f"\nloading {module} takes {loaded:,} bytes; with the heap above {loaded + micropython.heap:,}")
    print(f"bounds: {VERIFICATION_US_MAX // 1000} ms, {STEP_US_MAX // 1000} ms a step, {HEAP_MAX:,} bytes in all")
    fits = loaded + micropython.heap <= HEAP_MAX
    return 0 if fits and micropython.us <= VERIFICATION_US_MAX and micropython.step_us <= STEP_US_MAX else 1


if __name__ == "__main__":
    sys.exit(main())
