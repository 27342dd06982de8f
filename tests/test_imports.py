"""Who may import whom (ARCHITECTURE.md), read from the source of every module, and what lies at the top level."""

import ast
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

MAY_IMPORT = {
    "protocol": {"protocol"},
    "firmware": {"firmware", "protocol"},
    "gateway": {"gateway", "protocol"},
    "sim": {"sim", "protocol", "firmware", "gateway"},
    "tools": {"tools", "protocol", "firmware", "gateway", "sim"},
}
OURS = {*MAY_IMPORT, "tests"}

# Modules of MicroPython's ports, from docs.micropython.org: standard library, its own, those of boards and drivers.
MICROPYTHON = {
    *("array", "asyncio", "binascii", "builtins", "cmath", "collections", "errno", "gc", "hashlib", "heapq", "io"),
    *("json", "math", "os", "platform", "random", "re", "select", "socket", "ssl", "struct", "sys", "time", "_thread"),
    *("bluetooth", "cryptolib", "deflate", "machine", "micropython", "network", "tls", "uctypes", "vfs"),
    *("dht", "ds18x20", "esp", "esp32", "onewire", "rp2"),
}
# What the pure core must not touch. protocol/compat.py, where the runtimes differ, is the one place with a clock.
IMPURE = {
    *("asyncio", "logging", "machine", "network", "os", "random", "select", "socket", "ssl", "_thread", "threading"),
    *("time", "tls"),
}
COMPAT = ROOT / "protocol" / "compat.py"

MODULES = sorted(path for folder in MAY_IMPORT for path in (ROOT / folder).rglob("*.py"))
SHARED = [path for path in MODULES if path.relative_to(ROOT).parts[0] in ("protocol", "firmware")]
PROTOCOL = [path for path in SHARED if path.relative_to(ROOT).parts[0] == "protocol"]


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imported(path: Path) -> set[str]:
    """Top-level names of all that a module imports, wherever in the file; its own folder for a relative import."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            found.add(path.relative_to(ROOT).parts[0] if node.level else module.partition(".")[0])
    return found


def test_every_folder_of_the_table_holds_modules():
    assert {path.relative_to(ROOT).parts[0] for path in MODULES} == set(MAY_IMPORT)


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_a_module_imports_only_folders_its_own_may_import(path):
    folder = path.relative_to(ROOT).parts[0]
    assert imported(path) & OURS <= MAY_IMPORT[folder]


@pytest.mark.parametrize("path", [path for path in SHARED if path != COMPAT], ids=name)
def test_shared_code_imports_only_what_micropython_has(path):
    assert imported(path) - OURS <= MICROPYTHON


@pytest.mark.parametrize("path", [path for path in PROTOCOL if path != COMPAT], ids=name)
def test_the_protocol_opens_nothing_and_reads_no_clock(path):
    assert imported(path) & IMPURE == set()


def test_compat_reads_the_clock_and_code_from_the_flash_and_nothing_else_of_the_world():
    assert imported(COMPAT) & IMPURE <= {"time", "os"}


def test_the_top_level_holds_the_six_folders_docs_requirements_and_files():
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, capture_output=True, text=True, check=False)
    if listing.returncode:
        pytest.skip("not a git working tree")
    folders = {path.partition("/")[0] for path in listing.stdout.split("\0") if "/" in path}
    assert {folder for folder in folders if not folder.startswith(".")} <= {*OURS, "docs", "requirements"}
