"""How much heap a node takes, step by step, on real MicroPython with the device build: `python -m tools.bench_heap`.

A node with eight neighbours, of spec seed in modes always and change and of spec zone in mode event, is started up to
its first connection and through its first cycle, then takes in a signed filter set, as from the wave; after each step
the garbage is collected and what is left is counted. Bytes of the 64-bit Unix port, whose pointers are twice as long as
a board's.
"""

import functools
import json
import tempfile
from dataclasses import replace
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.keys import public_hex
from gateway.model import SPECS
from gateway.start_weights import start_filters
from gateway.wave import signed
from protocol import beacon
from tools.flash.build import build
from tools.flash.bundle import attributes, exported, module
from tools.rig.interpreter import run

HEAP = 32 * 1024
SPEC_OF = {"always": "seed", "change": "seed", "event": "zone"}
MODES = {"always": beacon.MODE_ALWAYS, "change": beacon.MODE_CHANGE, "event": beacon.MODE_EVENT}
STAYS = "its first cycle done: this is what stays"
_SCRIPT = """
import gc, sys
steps = []
def count(name):
    gc.collect()
    steps.append((name, gc.mem_alloc()))
count("the interpreter, and this count")
import START
count("start loaded")
prepared = START.PREPARE("node.json")
count("configuration, filters, topics, sensor")
sys.modules.pop("START")
del START
count("start forgotten")
import LINK
count("link loaded")
node = LINK.MAKE(prepared, 0)
del prepared
count("the node built")
node.SAID(b"tm/1/lounge/cycle", bytes.fromhex(BEACON))
machine = node.MACHINE
machine.poll(0)
machine.poll(60000)
wave = machine.WAVE
del machine
count("its first cycle done: this is what stays")

with open("new.filters", "rb") as file:
    data = file.read()
for at in range(0, len(data), 128):
    wave.FEED(at, len(data), data[at : at + 128], 0)
del data, file
count("a signed set received into the flash")
most = 0
while wave.STEP(0):
    gc.collect()
    most = max(most, gc.mem_alloc())
steps.append(("signature and self-tests checked: at most", most))
count("the set staged beside the active one")
import json
print(json.dumps(steps))
"""


def steps(folder: Path, mode: str) -> list[tuple[str, int]]:
    """(step, bytes in use after it); `mode`: one of SPEC_OF."""
    build(folder)
    filters, key = start_filters(SPECS[SPEC_OF[mode]]), Ed25519PrivateKey.generate()
    opening = beacon.Beacon(MODES[mode], 1, 1, 600_000, 10_000, 10_000, filters.version, 0, 9, 13, 0)
    (folder / "filters.bin").write_bytes(filters.pack("lounge"))
    (folder / "new.filters").write_bytes(signed(replace(filters, version=2), "lounge", key))
    config = {
        "site": "lounge",
        "row": 5,
        "col": 5,
        "neighbours": 255,
        "host": "127.0.0.1",
        "port": 1883,
        "keepalive_s": 60,
        "filters": "filters.bin",
        "key": public_hex(key),
        "next_to_gateway": False,
        "sensor": {"kind": "simulated", "seed": 1, "mean_ccel": 2200},
    }
    (folder / "node.json").write_text(json.dumps(config))
    words = {"BEACON": repr(beacon.pack(opening, bytes(15)).hex())}
    called = {"SAID": "_on_message", "MACHINE": "node", "WAVE": "wave", "FEED": "feed", "STEP": "step"}
    words |= {word: attributes("link")[name] for word, name in called.items()}
    words |= {"START": module("start"), "LINK": module("link")}
    words |= {"PREPARE": exported("prepare"), "MAKE": exported("Link")}
    script = functools.reduce(lambda text, word: text.replace(*word), words.items(), _SCRIPT)
    return [(name, size) for name, size in json.loads(run(script, (folder,), "64K"))]


def main() -> None:
    """Print a table for each mode."""
    for mode, spec in SPEC_OF.items():
        with tempfile.TemporaryDirectory() as scratch:
            rows = steps(Path(scratch), mode)
        print(f"spec {spec}, mode {mode}")
        for name, size in rows:
            print(f"{size:7,} bytes  {name}")
    print(f"{HEAP:7,} bytes  the smallest heap that `thermesh demo` takes")


if __name__ == "__main__":
    main()
