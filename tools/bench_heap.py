"""How much heap a node takes, step by step, on real MicroPython with the device build: `python -m tools.bench_heap`.

A node of spec seed with eight neighbours is started up to its first connection; after each step the garbage is
collected and what is left is counted. Bytes of the 64-bit Unix port, whose pointers are twice as long as a board's.
"""

import json
import tempfile
from pathlib import Path

from gateway.model import SPECS
from gateway.start_weights import start_filters
from tools.flash.build import build
from tools.rig.interpreter import run

HEAP = 32 * 1024
_SCRIPT = """
import gc, sys
steps = []
def count(name):
    gc.collect()
    steps.append((name, gc.mem_alloc()))
count("the interpreter, and this count")
import start
count("start.mpy loaded")
prepared = start.prepare("node.json")
count("configuration, filters, topics, sensor")
sys.modules.pop("start")
del start
count("start.mpy forgotten")
import link
count("link.mpy loaded")
node = link.Link(prepared, 0)
del prepared
count("the node built: this is what stays")
steps.append(("heap", gc.mem_alloc() + gc.mem_free()))
import json
print(json.dumps(steps))
"""


def steps(folder: Path) -> list[tuple[str, int]]:
    """(step, bytes in use after it), and at last the heap's size."""
    build(folder)
    (folder / "filters.bin").write_bytes(start_filters(SPECS["seed"]).pack("lounge"))
    config = {
        "site": "lounge",
        "row": 5,
        "col": 5,
        "neighbours": 255,
        "host": "127.0.0.1",
        "port": 1883,
        "keepalive_s": 60,
        "filters": "filters.bin",
        "key": 64 * "0",
        "next_to_gateway": False,
        "sensor": {"kind": "simulated", "seed": 1, "mean_ccel": 2200},
    }
    (folder / "node.json").write_text(json.dumps(config))
    return [(name, size) for name, size in json.loads(run(_SCRIPT, (folder,), "64K"))]


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as scratch:
        *rows, _ = steps(Path(scratch))
    for name, size in rows:
        print(f"{size:7,} bytes  {name}")
    print(f"{HEAP:7,} bytes  the smallest heap that `thermesh demo` takes")


if __name__ == "__main__":
    main()
