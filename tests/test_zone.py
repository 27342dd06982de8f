"""Silent zones: whoever keeps within the limits may keep silent, and every state is right (proof: docs/zones.md)."""

import json
import random
from array import array
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from on_micropython import run
from sign_layers import random_sign_layer

from firmware import zone
from firmware.quiet import GONE, HEARTBEAT, Quiet, heartbeat_due
from firmware.zone import FAR
from gateway.model import Filters
from protocol.grid import CENTRE, TAPS
from sim.zones import Windows

CORNER_TAPS = (4, 5, 7, 8)
MESHES = 60
CYCLES = 12

Rule = namedtuple("Rule", "weights bias")
"""Filters as people write them: rows of four weights C E S SE, and one bias each."""


def stored(rule):
    """A rule as the kernel takes it: weights and bias."""
    weights = bytearray([128] * TAPS * len(rule.weights))
    for index, row in enumerate(rule.weights):
        for tap, weight in zip(CORNER_TAPS, row, strict=True):
            weights[index * TAPS + tap] = weight + 128
    return weights, array("I", [bias + 2**29 for bias in rule.bias])


def limits(rule, view, there):
    out = array("H", [0] * zone.RESULTS)
    zone.limits(out, array("H", [value + 2**15 for value in view]), there, *stored(rule))
    return tuple(out)


def is_abnormal(rule, window):
    """What a window is, by the definition: `window` gives C E S SE, None where a member has no reading."""
    values = [window[0] if value is None else value for value in window]
    sums = [sum(w * v for w, v in zip(row, values, strict=True)) for row in rule.weights]
    return any(total + bias >= 0 for total, bias in zip(sums, rule.bias, strict=True))


def random_rule(draw):
    rows = []
    for _ in range(draw.randint(1, 5)):
        most = draw.choice((1, 31))
        row = [draw.randint(-most, most) for _ in range(3)]
        row.insert(draw.randint(0, 3), -sum(row))
        rows.append(row)
    return Rule(rows, [draw.randint(-1_000 * max(map(abs, row)), 50) for row in rows])


class Mesh:
    """Nodes that know what they heard, and nothing else; messages arrive in any order."""

    def __init__(self, rule, cells, draw):
        self.rule, self.cells, self.draw = rule, cells, draw
        self.readings = dict.fromkeys(cells)
        self.nodes = {cell: Quiet() for cell in cells}
        for node in self.nodes.values():
            node.use(*stored(rule))
        self.spoken = {}

    def window(self, corner, values):
        row, col = corner
        return [values.get(cell) for cell in (corner, (row, col + 1), (row + 1, col), (row + 1, col + 1))]

    def limits_of(self, cell):
        self.nodes[cell].abnormal()
        return tuple(self.nodes[cell]._results)

    def word_of(self, cell):
        return -1 if self.readings[cell] is None else self.readings[cell] + 2**15

    def settle(self, readings):
        """One cycle: speak and deliver until all are silent, in an order drawn at random."""
        self.readings, self.spoken = readings, dict.fromkeys(self.cells, 0)
        on_the_way = []
        while True:
            speakers = [cell for cell in self.cells if self.nodes[cell].has_to_speak(self.word_of(cell))]
            if not speakers and not on_the_way:
                return
            if speakers and (not on_the_way or self.draw.random() < 0.5):
                cell = self.draw.choice(speakers)
                self.spoken[cell] += 1
                self.nodes[cell].hear(CENTRE, self.word_of(cell))
                near = [other for other in self.cells if other != cell and distance(cell, other) == 1]
                on_the_way += [(other, tap_from(other, cell), self.word_of(cell)) for other in near]
            else:
                to, tap, word = on_the_way.pop(self.draw.randrange(len(on_the_way)))
                self.nodes[to].hear(tap, word)

    def states(self):
        """What each node with a reading takes its own window for."""
        return {cell: self.nodes[cell].abnormal() & 1 for cell in self.cells if self.readings[cell] is not None}

    def true_states(self):
        there = [cell for cell in self.cells if self.readings[cell] is not None]
        return {cell: is_abnormal(self.rule, self.window(cell, self.readings)) for cell in there}


def distance(cell, other):
    return max(abs(cell[0] - other[0]), abs(cell[1] - other[1]))


def tap_from(cell, other):
    return (other[0] - cell[0] + 1) * 3 + other[1] - cell[1] + 1


def random_mesh(draw):
    rows, cols = draw.randint(1, 5), draw.randint(1, 5)
    cells = [(row, col) for row in range(rows) for col in range(cols) if draw.random() < 0.85] or [(0, 0)]
    return Mesh(random_rule(draw), cells, draw)


def drift(mesh, readings):
    """The next cycle's readings: most move a little, some far, some fall silent or come back, some to their limits."""
    draw, cells = mesh.draw, mesh.cells
    if readings and draw.random() < 0.5:
        return to_the_limits(mesh, readings)
    moved = {}
    for cell in cells:
        value = readings.get(cell)
        if value is None:
            moved[cell] = draw.randint(1_800, 2_600) if draw.random() < 0.5 else None
        elif draw.random() < 0.05:
            moved[cell] = None
        else:
            moved[cell] = value + (draw.randint(-900, 900) if draw.random() < 0.1 else draw.randint(-15, 15))
    return moved


def to_the_limits(mesh, readings):
    """All members of one window move as far as they may without a word, in the way that hurts most."""
    draw, moved = mesh.draw, dict(readings)
    row, col = draw.choice(mesh.cells)
    weights = draw.choice(mesh.rule.weights)
    way = draw.choice((1, -1))
    for cell, weight in zip([(row, col), (row, col + 1), (row + 1, col), (row + 1, col + 1)], weights, strict=True):
        if readings.get(cell) is not None:
            up, down, _ = mesh.limits_of(cell)
            step = up if weight * way > 0 else -down
            moved[cell] = mesh.nodes[cell].view[CENTRE] - 2**15 + (step if abs(step) < FAR else 0)
    return moved


def broken_promises(seed, meshes=MESHES):
    """Cycles of random meshes in which all are silent and somebody is wrong, or somebody spoke twice."""
    draw = random.Random(seed)
    found = []
    for _ in range(meshes):
        mesh, readings = random_mesh(draw), {}
        for cycle in range(CYCLES):
            readings = drift(mesh, readings)
            mesh.settle(readings)
            if mesh.states() != mesh.true_states() or max(mesh.spoken.values(), default=0) > 1:
                found.append(cycle)
    return found


def test_when_all_are_silent_every_state_is_that_of_the_readings_and_nobody_spoke_twice(seed):
    assert [] == broken_promises(seed)


@pytest.mark.parametrize("mistake", [("0 - 1 - total", "0 - total"), ("total // size", "total // size + 1")])
def test_a_limit_that_is_one_too_wide_is_found(mistake, seed, monkeypatch):
    source = Path(zone.__file__).read_text(encoding="utf-8")
    assert mistake[0] in source
    wrong = {}
    exec(compile(source.replace(*mistake), zone.__file__, "exec"), wrong)
    monkeypatch.setattr("firmware.quiet.limits", wrong["limits"])
    assert broken_promises(seed)


def test_most_keep_silent_when_little_moves(seed):
    draw = random.Random(seed)
    rule = Rule([[-1, 1, 0, 0], [1, -1, 0, 0], [-1, 0, 1, 0], [1, 0, -1, 0]], [-300] * 4)
    mesh = Mesh(rule, [(row, col) for row in range(6) for col in range(6)], draw)
    readings = {cell: 2_000 + draw.randint(-20, 20) for cell in mesh.cells}
    mesh.settle(readings)
    assert 36 == sum(mesh.spoken.values())
    for _ in range(10):
        readings = {cell: value + draw.randint(-10, 10) for cell, value in readings.items()}
        mesh.settle(readings)
        assert 0 == sum(mesh.spoken.values())


ALL = 0b111111111


@pytest.mark.parametrize(
    ("weights", "bias", "view", "there", "expected"),
    [
        # One filter E - C >= 300 and all at one level: E may rise by 149, C fall by 149, and the node is both.
        ([[-1, 1, 0, 0]], [-300], [0] * 9, ALL, (149, 149, 0)),
        # Alone there is no window but its own, its weights add up to 0: no limits.
        ([[-1, 1, 0, 0]], [-300], [0] * 9, 1 << CENTRE, (FAR, FAR, 0)),
        # ... and a bias of 0 makes it abnormal whatever happens.
        ([[-1, 1, 0, 0]], [0], [0] * 9, 1 << CENTRE, (FAR, FAR, 1)),
        # 500 over: of its own window it is C, which may rise by 100 until E - C is 300; of W's it is E, still normal.
        ([[-1, 1, 0, 0]], [-300], [0, 0, 0, 0, 0, 500, 0, 0, 0], ALL, (100, FAR, 1)),
        # Two witnesses: the one with more room counts, E - C with (600 - 300) // 2.
        ([[-1, 1, 0, 0], [-1, 0, 1, 0]], [-300, -300], [0, 0, 0, 0, 0, 600, 0, 500, 0], ALL, (149, FAR, 1)),
    ],
)
def test_limits_worked_out_by_hand(weights, bias, view, there, expected):
    assert expected == limits(Rule(weights, bias), view, there)


def random_cases(seed):
    draw = random.Random(seed)
    for _ in range(300):
        rule = random_rule(draw)
        there = draw.getrandbits(TAPS) | 1 << CENTRE
        yield rule, [draw.randint(-2_000, 2_000) for _ in range(TAPS)], there


ON_MICROPYTHON = """
import json
import micropython
from array import array
from firmware import zone
out = array("H", [0] * zone.RESULTS)
found = []
for view, there, weights, bias in json.loads({cases!r}):
    view, weights, bias = array("H", view), bytes(weights), array("I", bias)
    micropython.heap_lock()
    zone.limits(out, view, there, weights, bias)
    micropython.heap_unlock()
    found.append(list(out))
print(json.dumps(found))
"""


def test_micropython_works_out_the_same_limits_and_allocates_nothing(seed):
    cases, expected = [], []
    for rule, view, there in random_cases(seed):
        weights, bias = stored(rule)
        cases.append([[value + 2**15 for value in view], there, list(weights), list(bias)])
        expected.append(list(limits(rule, view, there)))
    assert expected == json.loads(run(ON_MICROPYTHON.format(cases=json.dumps(cases)), heap="1M"))


def test_beyond_a_limit_by_one_some_reading_changes_a_state(seed):
    """So limits are not only safe: on their own, each is as wide as a shared move of all members lets it be."""
    draw = random.Random(seed)
    rule = Rule([[-1, 1, 0, 0]], [-300])
    for _ in range(100):
        view = [draw.randint(-140, 140) for _ in range(TAPS)]
        up, down, state = limits(rule, view, ALL)
        assert 0 == state
        # The node moves up by all it may and its western neighbour down by as much: still normal. One more is not.
        window = [view[3] - (up + 1), view[4] + up + 1, 0, 0]
        east = [view[4] - (down + 1), view[5] + down + 1, 0, 0]
        reached = [2 * (up + 1) + view[4] - view[3] >= 300, 2 * (down + 1) + view[5] - view[4] >= 300]
        assert reached == [is_abnormal(rule, window), is_abnormal(rule, east)]
        assert all(reached)
        assert view[4] - view[3] + 2 * up < 300
        assert view[5] - view[4] + 2 * down < 300


# The last words that a node knows


def quiet():
    node = Quiet()
    node.use(*stored(Rule([[-1, 1, 0, 0]], [-300])))
    return node


def test_a_node_says_its_first_word_and_every_loss_and_return_of_its_reading():
    node = quiet()
    for word in (-1, 33_000, -1, 33_000):
        assert node.has_to_speak(word)
        node.hear(CENTRE, word)
        assert not node.has_to_speak(word)


def test_a_neighbour_is_gone_after_two_heartbeats_without_a_word_and_not_before():
    node = quiet()
    node.hear(CENTRE, 33_000)
    node.hear(5, 33_000)
    for _ in range(GONE - 1):
        node.start_cycle()
    assert 1 << 5 & node.there & node.known
    node.start_cycle()
    assert (1 << CENTRE, 1 << CENTRE) == (node.there, node.known)


def test_every_node_has_its_heartbeat_once_and_a_site_spreads_them():
    cells = [(row, col) for row in range(17) for col in range(25)]
    due = [sum(heartbeat_due(*cell, cycle) for cell in cells) for cycle in range(HEARTBEAT)]
    assert 425 == sum(due)
    assert max(due) <= 2 * 425 / HEARTBEAT


def test_who_is_taken_for_something_else_knows_it():
    node = quiet()
    assert not node.differs(33_000)  # it never said anything
    node.hear(CENTRE, 33_000)
    assert not node.differs(33_000)
    assert node.differs(33_001)
    assert node.differs(-1)
    node.hear(CENTRE, -1)
    assert not node.differs(-1)


def test_nodes_and_the_simulation_of_whole_rooms_work_out_the_same_limits(seed):
    rng = np.random.default_rng(seed)
    for _ in range(20):
        layer = random_sign_layer(rng, thresholds=(-20_000, 60_000))
        present, view = rng.random((6, 7)) < 0.8, rng.integers(-2_000, 2_000, (6, 7))
        windows = Windows(Filters(1, 0, (layer,)), present)
        rule = Rule([list(map(int, row[0, list(CORNER_TAPS)])) for row in layer.weights], layer.bias.tolist())
        expected, states = windows.limits(view), windows.states(view)
        for row, col in np.argwhere(present):
            near = [(row + tap // 3 - 1, col + tap % 3 - 1) for tap in range(TAPS)]
            inside = [0 <= r < 6 and 0 <= c < 7 and present[r, c] for r, c in near]
            values = [int(view[cell]) if here else 0 for cell, here in zip(near, inside, strict=True)]
            up, down, abnormal = limits(rule, values, sum(here << tap for tap, here in enumerate(inside)))
            wanted = [min(int(limit[row, col]), FAR) for limit in expected]
            corners = [(row, col), (row, col - 1), (row - 1, col), (row - 1, col - 1)]
            bits = sum(int(min(cell) >= 0 and states[cell]) << window for window, cell in enumerate(corners))
            assert [up, down, abnormal] == [*wanted, bits]
