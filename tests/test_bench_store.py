"""The bench of the store: its figures hold together, and bounds are judged."""

import pytest

from tools.bench_store import bench, holds

FIGURES = {"chunk": 300, "compact_ms": (20, 99), "forget_ms": (20, 99), "commits": 50, "plain": 100}
WRONG = {"chunk": 301}, {"compact_ms": (21, 21)}, {"forget_ms": (21, 21)}, {"commits": 49}


def test_a_simulated_room_takes_less_in_chunks_and_its_file_does_not_grow():
    found = bench("lean", 480)
    assert found["chunk"] < 0.7 * found["alone"] < found["alone"] < 600
    assert found["chunk"] < found["file_chunk"] < found["file_alone"] < 900
    assert 1 == pytest.approx(found["grown"], abs=0.05)


@pytest.mark.parametrize("wrong", [{}, *WRONG])
def test_figures_are_held_against_their_bounds(wrong):
    assert holds(FIGURES | wrong) == (not wrong)
