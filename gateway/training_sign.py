"""A layer with sign in the training graph: the margins of all windows, what is lost by them, and the way back.

A filter's *margin* in a window is its sum + bias in degrees, so that a filter of weights -1 and 1 and a bias of -3 has
the margin 0 where a difference is 3 degrees. Weights count without the taps outside the window and without their mean,
so they always add up to 0; rounding and leaving out small ones (gateway/quantise.py) is passed straight through.

A cycle is abnormal when the largest margin of any filter in any window is 0 or more. So that margin, steep, is what the
loss is taken of: logits (-m, m) * STEEPNESS / 2. There is no head to learn.

Beside it may stand a hinge on the windows' radius, the share of degrees by which all members may move before the state
changes, |max over f of margin_f / sum of |weights|| (sim/zones.py says what it is good for): the further readings lie
from where a state changes, the less nodes have to say. It counts every window as if none of its members were absent.
"""

from typing import NamedTuple

import numpy as np

from gateway.quantise import BIAS_LIMIT, DEGREE_CCEL, PEAK, PEAK_LEAST, PRUNED, WHOLE_WITHIN
from gateway.training_layers import Mesh, Nodes
from protocol.filter_set import WINDOW_TAPS
from protocol.fixed import WEIGHT_ZERO
from protocol.grid import CENTRE, TAPS

# Logits per degree of margin.
STEEPNESS = 48.0
# A radius from here on costs nothing, in degrees; and what one degree less costs, for a weight of 1 of the penalty.
RADIUS_ENOUGH = 0.5
RADIUS_COST = 10.0
# The margin of a place without a reading.
NOWHERE = -1e3

_COLUMNS = np.arange(len(WINDOW_TAPS))


class Margins(NamedTuple):
    """What the windows come to.

    Attributes:
        taps: ccel [4, places], the corner's own value where a member is absent.
        weights: [filters, 4], as the nodes hold them, divided by their scale.
        values: degrees [filters, places].
        pooled: 1 or 0 [1, places].
    """

    taps: str
    weights: str
    values: str
    pooled: str


def margins(g: Nodes, mesh: Mesh, value: str, heard: list[str], pooled: str, rounds: bool) -> Margins:
    """Readings [1, places] -> the margins of `filters0`; `heard` by slot, `pooled` 1 or 0 [1, places]."""
    taps = [value]
    for tap in WINDOW_TAPS[1:]:
        slot = tap - (tap > CENTRE)
        taps.append(g.add("Where", heard[slot], mesh.fetched(g, value, slot), value))
    members = g.joined(taps, 0)
    by_tap = g.add("Squeeze", "filters0.weights", np.array([1]))
    window = g.add("Gather", by_tap, np.array(WINDOW_TAPS), axis=1)
    weights = _without_mean(g, window)
    bias = g.shaped(g.add("Mul", "filters0.bias", float(DEGREE_CCEL)), -1, 1)
    if not rounds:
        sums = g.add("Add", g.add("MatMul", weights, members), bias)
        return Margins(members, weights, g.add("Div", sums, float(DEGREE_CCEL)), pooled)
    scale, whole = _whole(g, weights)
    offset = g.add("Clip", g.add("Round", g.add("Mul", bias, scale)), float(-BIAS_LIMIT), float(BIAS_LIMIT))
    sums = g.add("Add", g.add("MatMul", whole, members), offset)
    values = g.add("Div", sums, g.add("Mul", scale, float(DEGREE_CCEL)))
    return Margins(members, g.add("Div", whole, scale), values, pooled)


def states(g: Nodes, found: Margins) -> str:
    """What the nodes give: 1 where any margin is 0 or more, else 0; [1, places]."""
    return g.number(g.add("GreaterOrEqual", g.add("ReduceMax", found.values, axes=[0], keepdims=1), 0.0))


def logits(g: Nodes, mesh: Mesh, found: Margins) -> tuple[str, str]:
    """(largest margins [batch, places of a cycle], logits [batch, 2])."""
    largest = g.add("ReduceMax", found.values, axes=[0], keepdims=1)
    masked = g.add("Where", g.add("Greater", found.pooled, 0.0), largest, NOWHERE)
    by_cycle = g.shaped(masked, -1, mesh.height * mesh.width)
    top = g.add("ReduceMax", by_cycle, axes=[1], keepdims=1)
    return by_cycle, g.add("Mul", top, _SIDES, name="logits")


_SIDES = np.array([[-STEEPNESS / 2, STEEPNESS / 2]])


def logits_back(g: Nodes, mesh: Mesh, found: Margins, by_cycle: str, error: str) -> str:
    """From the gradient by the logits to that by the margins: all goes to the largest one, the first of several."""
    by_top = g.add("ReduceSum", g.add("Mul", error, _SIDES), np.array([1]), keepdims=1)
    places = np.arange(mesh.height * mesh.width)[np.newaxis]
    winner = g.add("Equal", g.add("ArgMax", by_cycle, axis=1, keepdims=1), places)
    by_place = g.shaped(g.add("Mul", g.number(winner), by_top), 1, -1)
    return g.add("Mul", _winners(g, found.values), by_place)


class Penalty(NamedTuple):
    """The hinge on the radius: its value [], and its gradients by the margins and by the weights [filters, 4]."""

    value: str
    by_margins: str
    by_weights: str


def radius_penalty(g: Nodes, found: Margins, weight: float) -> Penalty:
    """`weight` * RADIUS_COST * mean over windows of max(0, RADIUS_ENOUGH - radius), and the way back from it."""
    magnitude = g.add("Max", g.add("ReduceSum", g.add("Abs", found.weights), np.array([1]), keepdims=1), PEAK_LEAST)
    ratios = g.add("Div", found.values, magnitude)
    best = g.add("ReduceMax", ratios, axes=[0], keepdims=1)
    short = g.add("Mul", g.add("Relu", g.add("Sub", RADIUS_ENOUGH, g.add("Abs", best))), found.pooled)
    windows = g.add("Max", g.add("ReduceSum", found.pooled, keepdims=0), 1.0)
    cost = g.add("Div", weight * RADIUS_COST, windows)
    value = g.add("Mul", cost, g.add("ReduceSum", short, keepdims=0))
    moves = g.add("Mul", g.add("Sign", best), g.number(g.add("Greater", short, 0.0)))
    by_best = g.add("Neg", g.add("Mul", cost, moves))
    by_ratios = g.add("Mul", _winners(g, ratios), by_best)
    by_margins = g.add("Div", by_ratios, magnitude)
    summed = g.add("ReduceSum", g.add("Mul", by_ratios, ratios), np.array([1]), keepdims=1)
    by_magnitude = g.add("Neg", g.add("Div", summed, magnitude))
    return Penalty(value, by_margins, g.add("Mul", by_magnitude, g.add("Sign", found.weights)))


def parameters_back(g: Nodes, found: Margins, by_margins: str, by_weights: str) -> tuple[str, str]:
    """The gradients by weights [filters, 1, 9] and bias [filters]; `by_weights`, beside the margins', may be empty."""
    window = g.add("Div", g.add("Gemm", by_margins, found.taps, transB=1), float(DEGREE_CCEL))
    if by_weights:
        window = g.add("Add", window, by_weights)
    placed = g.add("MatMul", _without_mean(g, window), np.eye(TAPS)[list(WINDOW_TAPS)])
    weights = g.add("Unsqueeze", placed, np.array([1]))
    return weights, g.add("ReduceSum", by_margins, np.array([1]), keepdims=0)


def _whole(g: Nodes, window: str) -> tuple[str, str]:
    """(scale [filters, 1], whole weights [filters, 4]) that add up to 0, as gateway/quantise.py has them."""
    scaled = g.add("Mul", window, float(PEAK))
    already = g.add("Round", scaled)
    near = g.add("Less", _largest(g, g.add("Sub", scaled, already)), WHOLE_WITHIN)
    stays = g.add("And", near, g.add("Less", _largest(g, already), float(WEIGHT_ZERO)))
    for _ in range(2):
        least = g.add("Mul", _largest(g, window), PRUNED)
        kept = g.number(g.add("GreaterOrEqual", g.add("Abs", window), least))
        window = g.add("Mul", window, kept)
        total, count = (g.add("ReduceSum", each, np.array([1]), keepdims=1) for each in (window, kept))
        window = g.add("Sub", window, g.add("Mul", kept, g.add("Div", total, count)))
    scale = g.add("Div", float(PEAK), g.add("Max", _largest(g, window), PEAK_LEAST))
    whole = g.add("Round", g.add("Mul", window, scale))
    largest = g.add("Equal", g.add("ArgMax", g.add("Abs", whole), axis=1, keepdims=1), _COLUMNS)
    rest = g.add("Mul", g.number(largest), g.add("ReduceSum", whole, np.array([1]), keepdims=1))
    whole = g.add("Sub", whole, rest)
    return g.add("Where", stays, float(PEAK), scale), g.add("Where", stays, already, whole)


def _largest(g: Nodes, window: str) -> str:
    """The largest magnitude of each filter, [filters, 1]."""
    return g.add("ReduceMax", g.add("Abs", window), axes=[1], keepdims=1)


def _winners(g: Nodes, values: str) -> str:
    """1 at the largest filter of each place, the first of several, else 0: [filters, places]."""
    first = g.add("ArgMax", values, axis=0, keepdims=1)
    filters = g.shaped(g.add("Range", np.array(0), g.add("Squeeze", g.add("Shape", values, end=1)), np.array(1)), -1, 1)
    return g.number(g.add("Equal", first, filters))


def _without_mean(g: Nodes, window: str) -> str:
    """Each filter's weights, or gradients by them, less their mean: [filters, 4]."""
    return g.add("Sub", window, g.add("ReduceMean", window, axes=[1], keepdims=1))
