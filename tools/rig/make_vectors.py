"""Write the golden files in tools/rig/vectors/, all from the reference: `python -m tools.rig.make_vectors`.

    frames.json  every kind of frame and the health message: what it says, its fields, its bytes
    units.json   units to check by hand, and the digest of the recipe in kernel_recipe.py
    mesh.json    5 x 6 meshes with holes, missing readings and lost frames: readings, filters -> absence bytes, features

They change only together with the wire version or the arithmetic; tests/test_vectors.py makes them anew and compares.
"""

import json
from pathlib import Path
from typing import Any

from tools.rig import reference
from tools.rig.kernel_recipe import Draws, Unit, digest
from tools.rig.reference import Cell, Fields

FOLDER = Path(__file__).parent / "vectors"
SHAPES = {
    "seed": (("conv3x3", 1, 5, "clamp"), ("conv3x3", 5, 5, "clamp")),
    "lean": (("conv3x3", 1, 5, "clamp"), ("conv1x1", 5, 5, "clamp"), ("conv1x1", 5, 1, "clamp")),
    "zone": (("conv3x3", 1, 5, "sign"),),
}
_ROWS, _COLS = 5, 6
_HOLES = ((0, 0), (0, 1), (1, 0), (1, 1), (2, 4), (4, 5))  # a whole block, one inside, a corner
_HALF = [None, None, -(2**15), 2**15 - 1]
_SILENT = ((1, 3), (4, 2), (4, 3))  # no reading: one inside, all that is left of a block
# Whole numbers, of which a header holds the low parts only.
_HEADER = {"row": 3, "col": 12, "run": 0x12345678, "cycle": 0xABCDEF01, "version": 0x00BEEF05}
_BEACON = {"flags": 4, "run": 7, "cycle": 41, "period_ms": 1_800_000, "exchange_ms": 20_000, "gather_ms": 10_000}
_BEACON |= {"version": 5, "acked_cycle": 40, "setting": 0}
_PERIOD_MS_MAX = 178_956_969


def vectors() -> dict[str, str]:
    """The text of every golden file by its name."""
    return {"frames.json": _text(frames()), "units.json": _text(units()), "mesh.json": _text(meshes())}


def main() -> None:
    """Write them all."""
    for name, text in vectors().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
        print(f"{name}: {len(text)} bytes")


def frames() -> list[Fields]:
    """Frames as {says, fields, hex}."""
    said = [*_halo_frames(), *_members(), *_filters(), *_event_frames(), *_beacons(), *_reports(), *_health_messages()]
    return [{"says": says, "fields": fields, "hex": reference.pack(fields).hex()} for says, fields in said]


def units() -> list[Fields]:
    """Units as {says, inputs, weights, bias, shift, activations}, then the recipe's digest."""
    cases = [
        {
            "says": says,
            "inputs": inputs,
            "weights": weights,
            "bias": bias,
            "shift": shift,
            "activations": _unit(inputs, weights, bias, shift),
        }
        for says, inputs, weights, bias, shift in _units_by_hand() + _signs_by_hand()
    ]
    return [*cases, {"says": "every unit of tools/rig/kernel_recipe.py", "sha256": digest(compute)}]


def compute(unit: Unit) -> bytes:
    """A unit of the recipe by the reference."""
    taps = len(unit.inputs)
    weights = [list(unit.weights[taps * index : taps * (index + 1)]) for index in range(len(unit.bias))]
    return bytes(_unit(unit.inputs, weights, list(unit.bias), unit.shift))


def _unit(inputs: list[int], weights: list[list[int]], bias: list[int], shift: int) -> list[int]:
    """By the reference; shift 0 stands for the sign."""
    return reference.unit(inputs, weights, bias, shift) if shift else reference.sign(inputs, weights, bias)


def meshes() -> list[Fields]:
    """For each spec one cycle in which only readings are missing, and one in which frames got lost as well."""
    draws = Draws(2)
    return [_mesh(name, lossy, draws) for name in SHAPES for lossy in (False, True)]


# Frames


def _halo_frames() -> list[tuple[str, Fields]]:
    return [
        ("a reading of 21.51 degrees", {"kind": "reading", **_HEADER, "reading_ccel": 2151}),
        ("the coldest reading", {"kind": "reading", **_HEADER, "reading_ccel": -32768}),
        ("the hottest reading, of the first node", {"kind": "reading", **_lowest(), "reading_ccel": 32767}),
        ("a reading just below zero, of the last node", {"kind": "reading", **_highest(), "reading_ccel": -1}),
        ("this sensor gives nothing", {"kind": "no_reading", **_HEADER}),
        ("five activations", {"kind": "activations", **_HEADER, "exchange": 1, "activations": [0, 1, 127, 128, 255]}),
        ("one activation", {"kind": "activations", **_lowest(), "exchange": 3, "activations": [9]}),
        ("sixteen activations", {"kind": "activations", **_highest(), "exchange": 2, "activations": list(range(16))}),
    ]


def _lowest() -> Fields:
    return {"row": 0, "col": 0, "run": 0, "cycle": 0, "version": 0}


def _highest() -> Fields:
    return {"row": 254, "col": 254, "run": 2**32 - 1, "cycle": 2**32 - 1, "version": 2**32 - 1}


def _members() -> list[tuple[str, Fields]]:
    def fields(absence: list[int], reading_ccel: int | None, activations: list[int]) -> Fields:
        values = {"absence": absence, "reading_ccel": reading_ccel, "activations": activations}
        return {"kind": "member", **_HEADER, **values}

    return [
        ("a member that heard all", fields([0, 0], None, [10, 20, 30, 40, 50])),
        ("a member with its reading", fields([0, 0], -7, [10, 20, 30, 40, 50])),
        ("a member that missed NE and SE in the second exchange", fields([0, 132], None, [1, 2, 3, 4, 5])),
        ("a member with both", fields([1, 255], 2151, [255])),
        ("the longest member frame", fields([255, 255, 255, 255], 32767, [255] * 16)),
    ]


def _filters() -> list[tuple[str, Fields]]:
    def fields(highest: int, phase: str, refused: int) -> Fields:
        return {"kind": "filters", **_HEADER, "highest": highest, "phase": phase, "refused": refused}

    return [
        ("filters that are confirmed", fields(0x00BEEF05, "confirmed", 0)),
        ("filters on trial", fields(0x00BEEF05, "trial", 1)),
        ("other filters are held beside those in use", fields(0x01020304, "staged", 255)),
        ("the filters before are back; the count of refused ones wrapped", fields(2**32 - 1, "returned", 258)),
    ]


def _event_frames() -> list[tuple[str, Fields]]:
    """Those of mode event; a VALUE and a CHALLENGE have no version."""
    unversioned = {name: number for name, number in _HEADER.items() if name != "version"}
    return [
        ("a reading outside its zone", {"kind": "value", **unversioned, "reading_ccel": -1}),
        ("this node's window is normal", {"kind": "state", **_HEADER, "state": 0}),
        ("this node has no reading, so no state", {"kind": "state", **_highest(), "state": 2}),
        ("neighbours, what did you say last?", {"kind": "refresh", **_HEADER}),
        ("abnormal at 21.51 degrees, as asked", {"kind": "proof", **_HEADER, "state": 1, "reading_ccel": 2151}),
        ("the corner saw this", {"kind": "challenge", **unversioned, "place": 0, "words_ccel": [2151, -1, 0, 2502]}),
        ("SE saw it, C and E are a hole", {"kind": "challenge", **unversioned, "place": 3, "words_ccel": _HALF}),
    ]


def _beacons() -> list[tuple[str, Fields]]:
    def fields(rows: int, cols: int, acknowledged: list[list[int]], **others: int) -> Fields:
        shape = {"block_rows": rows, "block_cols": cols, "acknowledged": acknowledged}
        return {"kind": "beacon", **_BEACON, **others, **shape}

    every = [[row, col] for row in range(3) for col in range(3)]
    limits = {"flags": 127, "run": 2**32 - 1, "cycle": 2**32 - 1, "period_ms": _PERIOD_MS_MAX}
    limits |= {"exchange_ms": 2**16 - 1, "gather_ms": 2**16 - 1, "version": 2**32 - 1, "acked_cycle": 2**32 - 1}
    return [
        ("the first beacon acknowledges nothing", fields(2, 3, [])),
        ("five of nine blocks are stored", fields(3, 3, [[0, 0], [0, 2], [1, 1], [2, 0], [2, 2]])),
        ("all nine blocks are stored: the last bit opens a second byte", fields(3, 3, every)),
        ("the last of the lounge's 117 blocks is stored", fields(9, 13, [[8, 12]])),
        ("one block, every number at its limit", fields(1, 1, [[0, 0]], **limits)),
        ("the shortest times", fields(1, 1, [], period_ms=1, exchange_ms=1, gather_ms=1)),
        ("no cycle is opened, health is wanted", fields(1, 8, [[0, 7]], flags=24)),
        ("nodes say which filters they hold", fields(1, 8, [], flags=36)),
        ("mode event, with proofs", fields(1, 8, [], flags=66)),
        ("mode change, with proofs", fields(1, 8, [[0, 3]], flags=65, setting=25)),
        ("mode change, the largest threshold", fields(3, 3, [[2, 2]], flags=1, setting=2**16 - 1)),
        ("mode event, links lose nothing", fields(1, 8, [[0, 3]], flags=2)),
        ("mode event, what matters is said most often", fields(3, 3, [[2, 2]], flags=66, setting=8)),
    ]


def _reports() -> list[tuple[str, Fields]]:
    def fields(exchanges: int, members: list[Any], **marks: bool) -> Fields:
        numbers = {"boot": 0xDEADBEEF, "seq": 2**32 - 2, "exchanges": exchanges}
        return {"kind": "report", **_HEADER, **numbers, **marks, "members": members}

    def unit(absence: list[int], reading_ccel: int | None, activations: list[int]) -> Fields:
        return {"absence": absence, "reading_ccel": reading_ccel, "activations": activations}

    quiet = [unit([0, 0], None, [1, 200]), unit([0, 0], None, [2, 100]), unit([0, 0], None, [3, 0]), None]
    unsure = [unit([0], 5, [7]), unit([2], None, [6]), None, None]
    heard = [unit([0, 0], -1, [9, 9]), unit([1, 0], 2151, [0, 10]), "no_reading", unit([0, 128], -32768, [8, 11])]
    full = [unit([255] * 4, 32767, [corner] * 16) for corner in range(4)]
    return [
        ("three members, nothing missing, no readings wanted", fields(2, quiet)),
        ("three members with readings, two with absence, one without reading", fields(2, heard)),
        ("one member's reading is not known, so none is sent", fields(1, unsure)),
        ("nobody in the block has a reading", fields(2, ["no_reading", None, "no_reading", "no_reading"])),
        ("the longest report", fields(4, full)),
        ("older ones wait", fields(2, quiet, has_older=True)),
        ("no beacon of the cycle was heard, and older ones wait", fields(2, heard, has_older=True, no_beacon=True)),
    ]


def _health_messages() -> list[tuple[str, Fields]]:
    def fields(start: int, faults: dict[str, int]) -> Fields:
        counters = {name: list(range(start + 13 * at, start + 13 * at + 13)) for at, name in enumerate(_COUNTED)}
        return {"kind": "health", **counters, "mqtt": list(range(start + 52, start + 58)), "faults": faults}

    named = {name: 100 + place for place, name in enumerate(reference.FAULTS)}
    return [
        ("every counter is its place, every fault 100 and more", fields(0, named)),
        ("counters just before they wrap", fields(2**30 - 60, {"stale": 2**30 - 1})),
    ]


_COUNTED = ("sent", "sent_bytes", "taken", "taken_bytes")


# Units


def _units_by_hand() -> list[tuple[str, list[int], list[list[int]], list[int], int]]:
    top = 2**29 - 1
    edge = [0, 0, 0, -1, 1, 0, 0, 0, 0]
    one_tap_each = [[0] * tap + [tap + 1] + [0] * (8 - tap) for tap in range(9)]
    return [
        ("3 / 2 rounds to 2, 1 / 2 to 1", [1], [[3], [1]], [0, 0], 1),
        ("-1 / 2 rounds to 0, -3 / 2 to -1, which the ReLU clamps", [1], [[-1], [-3]], [0, 0], 1),
        ("ties round up, a bit less rounds down", [1], [[0]] * 4, [23, 24, 39, 40], 4),
        ("254.5 rounds to 255, 255.5 saturates", [1], [[0]] * 4, [4071, 4072, 4087, 4088], 4),
        ("the centre minus its left neighbour", [0, 0, 0, 180, 330, 0, 0, 0, 0], [edge], [0], 1),
        ("each tap has its own weight", [10] * 9, one_tap_each, [0] * 9, 1),
        ("the largest sum of a first layer", [-32768] * 9, [[-128] * 9, [127] * 9], [top, -top], 24),
        ("the smallest sum of a first layer", [32767] * 9, [[-128] * 9, [127] * 9], [-top, -top], 24),
        ("the bias alone, at its limits", [0] * 9, [[0] * 9] * 3, [-top, 0, top], 22),
        ("two channels in", [*range(1, 10), *[10] * 9], [[1] * 9 + [-1] * 9, [-1] * 9 + [1] * 9], [0, 0], 1),
        ("a conv1x1 reads one tap per channel", [255, 0, 17], [[1, 1, 1], [2, 0, -30]], [0, 1], 1),
        ("the largest shift leaves 32 steps", [255] * 144, [[127] * 144, [-128] * 144], [top, top], 24),
    ]


def _signs_by_hand() -> list[tuple[str, list[int], list[list[int]], list[int], int]]:
    """Shift 0 stands for the sign."""
    east = [0, 0, 0, 0, -1, 1, 0, 0, 0]
    south = [0, 0, 0, 0, -1, 0, 0, 1, 0]
    warm = [0, 0, 0, 0, 100, 399, 0, 400, 0]
    cold = [-32768] * 9
    return [
        ("sign: 299 is not over 300, 300 is", warm, [east, south], [-300, -300], 0),
        ("sign: none reaches 0", warm, [east, south], [-300, -301], 0),
        ("sign: the first is enough", warm, [south, east], [-300, -300], 0),
        ("sign: no filter says anything, a sum of 0 does", warm, [[0] * 9], [0], 0),
        ("sign: a dropped filter never does", warm, [[0] * 9], [-1], 0),
        ("sign: the smallest sum", cold, [[127] * 9], [-(2**29) + 1], 0),
        ("sign: the largest sum", cold, [[-128] * 9], [2**29 - 1], 0),
    ]


# Meshes


def _mesh(name: str, lossy: bool, draws: Draws) -> Fields:
    cells = [(row, col) for row in range(_ROWS) for col in range(_COLS) if (row, col) not in _HOLES]
    readings = {cell: draws.between(1900, 2500) for cell in cells if cell not in _SILENT}
    layers = [_layer(*shape, draws) for shape in SHAPES[name]]
    exchanges = sum(layer["kind"] == "conv3x3" for layer in layers)
    lost = [_lost(cells, draws) if lossy else [] for _ in range(exchanges)]
    absence = [_absence(cells, readings, lost[exchange]) for exchange in range(exchanges)]
    activations = reference.layers_of(readings, 2200, layers, absence)
    features = reference.pool(activations)
    return {
        "says": f"{name}, {'with lost frames' if lossy else 'nothing lost'}",
        "rows": _ROWS,
        "cols": _COLS,
        "holes": _HOLES,
        "reference_ccel": 2200,
        "readings": [[readings.get((row, col)) for col in range(_COLS)] for row in range(_ROWS)],
        "layers": layers,
        "filter_set": reference.filter_set(3, "golden", 2200, layers).hex(),
        "absence": [[[of.get((row, col), 0) for col in range(_COLS)] for row in range(_ROWS)] for of in absence],
        "units": [[activations.get((row, col)) for col in range(_COLS)] for row in range(_ROWS)],
        "features": [[features.get((row, col)) for col in range(-(-_COLS // 2))] for row in range(-(-_ROWS // 2))],
    }


def _layer(kind: str, channels_in: int, channels_out: int, activation: str, draws: Draws) -> Fields:
    """Random weights, biases and a shift that spread activations over 0..255; centred readings are +-300.

    With a sign: weights on the window's taps that add up to 0, and biases that leave some cells on either side.
    """
    if activation == "sign":
        windows = [[draws.between(-42, 42) for _ in range(3)] for _ in range(channels_out)]
        weights = [[0, 0, 0, 0, -sum(window), window[0], 0, *window[1:]] for window in windows]
        bias = [-draws.between(5_000, 15_000) for _ in windows]
        return {"kind": kind, "activation": activation, "shift": 0, "bias": bias, "weights": weights}
    taps = channels_in * (9 if kind == "conv3x3" else 1)
    shift = {9: 9, 45: 10, 5: 8}[taps]
    weights = [[draws.between(-128, 127) for _ in range(taps)] for _ in range(channels_out)]
    bias = [draws.between(0, 127 << shift) for _ in range(channels_out)]
    return {"kind": kind, "shift": shift, "bias": bias, "weights": weights}


def _lost(cells: list[Cell], draws: Draws) -> list[tuple[Cell, Cell]]:
    """(sender, receiver) of each frame of an exchange that does not arrive: about every fifth."""
    pairs = [(one, other) for one in cells for other in cells if one != other]
    near = [(one, to) for one, to in pairs if abs(one[0] - to[0]) <= 1 and abs(one[1] - to[1]) <= 1]
    return [pair for pair in near if draws.between(1, 5) == 1]


def _absence(cells: list[Cell], readings: dict[Cell, int], lost: list[tuple[Cell, Cell]]) -> dict[Cell, int]:
    """The absence byte of every node that computes, in one exchange: whoever has no reading says nothing to hear."""
    heard = {cell: [other for other in readings if (other, cell) not in lost] for cell in readings}
    return {cell: reference.absence_byte(cell, cells, heard[cell]) for cell in readings}


def _text(entries: list[Fields]) -> str:
    """JSON with one entry a line, so that a change shows as what it is."""
    return "[\n" + ",\n".join(json.dumps(entry, separators=(",", ":")) for entry in entries) + "\n]\n"


if __name__ == "__main__":
    main()
