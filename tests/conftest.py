"""What tests of every file share: one seed, shown when a seeded test fails."""

import os

import pytest

SEED_DEFAULT = 1


@pytest.fixture
def seed() -> int:
    """Seed of a test's randomness: THERMESH_TEST_SEED, else a fixed one. pytest shows this output on failure only."""
    value = int(os.environ.get("THERMESH_TEST_SEED", SEED_DEFAULT))
    print(f"repeat with THERMESH_TEST_SEED={value}")
    return value
