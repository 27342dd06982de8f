"""What tests of every file share: one seed, shown when a seeded test fails, and one build for MicroPython."""

import os
import signal
from pathlib import Path

import on_micropython
import pytest

from tools.flash.build import build

SEED_DEFAULT = 1
# A shell ignores Ctrl-C in what it starts in the background, and so would every program that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def seed() -> int:
    """Seed of a test's randomness: THERMESH_TEST_SEED, else a fixed one. pytest shows this output on failure only."""
    value = int(os.environ.get("THERMESH_TEST_SEED", SEED_DEFAULT))
    print(f"repeat with THERMESH_TEST_SEED={value}")
    return value


@pytest.fixture(scope="session")
def device_build(tmp_path_factory) -> Path:
    """The root of a node's flash with the compiled bundles, for MicroPython on this machine."""
    on_micropython.require_micropython()
    folder = tmp_path_factory.mktemp("device")
    build(folder)
    return folder
