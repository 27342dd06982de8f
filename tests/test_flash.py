"""The device build on real MicroPython: what its modules leave in a node's heap."""

import re

from on_micropython import run

from tools.flash.bundle import LASTING, bundle, exported, module
from tools.flash.rename import FILE_WORDS

# Imports every bundle that stays.
SCRIPT = f"""
import micropython, os
for name in {[module(name) for name in LASTING]}:
    __import__(name)
load = __import__({module("link")!r}).{exported("load_cold")}
"""
MEASURED = "micropython.qstr_info()\n"


def names_after(printed):
    """The number of names, each time that they were counted."""
    return [int(count) for count in re.findall(r"n_qstr=(\d+)", printed)]


def test_modules_that_are_loaded_for_a_call_leave_few_names_behind_however_many_there_are(device_build):
    paths = [path for name in LASTING for path in bundle(name) if path != module(name)]
    load_all = "".join(f"load({folder!r}, {name!r})\n" for folder, name in (path.split("/") for path in paths))
    before, after = names_after(run(SCRIPT + MEASURED + load_all + MEASURED, device_build))
    assert len(paths) > 8 * FILE_WORDS
    assert after - before <= FILE_WORDS + len(["shape"])  # a layer has one, as a memoryview, so it keeps its name


def test_a_module_that_cannot_be_loaded_leaves_the_node_where_its_files_are(device_build):
    then = "try:\n  load('add', 'nobody')\nexcept ImportError:\n  print(os.getcwd())"
    assert run(SCRIPT + then, device_build).strip() == str(device_build)
