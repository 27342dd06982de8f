"""One model on its way: when the gateway asks nodes what they hold."""

import pytest
from mesh_in_memory import make_model

from gateway.site import site_of_cells
from gateway.wave import Holding, Rollout
from protocol.filter_set import CONFIRMED, STAGED, TRIAL

PAIR = site_of_cells("pair", {(0, 0), (0, 1)})
OLD, HOLDS, TRIES, HAS = (
    Holding(version, highest, phase, 0)
    for version, highest, phase in ((1, 1, CONFIRMED), (1, 2, STAGED), (2, 2, TRIAL), (2, 2, CONFIRMED))
)


@pytest.fixture
def asks():
    """Whether nodes are asked in the next cycle, by what both said last; None: it never said anything."""
    rollout = Rollout(make_model("seed", PAIR).numbered(2, 1), b"")

    def next_cycle(*said):
        holdings = {cell: holding for cell, holding in zip(PAIR.cells, said, strict=True) if holding}
        rollout.start_cycle(holdings, set(PAIR.cells))
        return rollout.asks

    return next_cycle


def test_nobody_is_asked_as_long_as_every_cycle_brings_news(asks):
    steps = [(OLD, OLD), (HOLDS, OLD), (HOLDS, HOLDS), (TRIES, HAS), (HAS, HAS)]
    assert not any(asks(*step) for step in steps)


def test_nodes_are_asked_when_a_cycle_brought_nothing_new_and_again_in_every_third(asks):
    assert [False, True, False, False, True, False] == [asks(OLD, HOLDS) for _ in range(6)]
    assert not asks(HOLDS, HOLDS)
    assert asks(HOLDS, HOLDS)


def test_a_node_that_comes_and_goes_is_no_news(asks):
    assert [False, True, False] == [asks(HOLDS, HOLDS), asks(HOLDS, OLD), asks(HOLDS, HOLDS)]
    assert [False, True] == [asks(HOLDS, OLD), asks(HOLDS, HOLDS)]


def test_a_node_that_never_said_what_it_holds_is_asked_in_every_cycle(asks):
    assert [True, True, True] == [asks(HOLDS, None) for _ in range(3)]
    assert not asks(HOLDS, OLD)
