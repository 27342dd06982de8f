"""A layer with sign in training once more, in plain numpy and written from the definition: margins, loss, gradients.

As tools/training_oracle.py, for the networks of gateway/training_sign.py: cell by cell windows, no padded grid.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.training_graph import Arrays, Recipe

Floats = NDArray[np.floating[Any]]

# Of the members behind the corner: rows down, columns right, slot among the neighbours, tap of the window.
_MEMBERS = ((0, 1, 4, 5), (1, 0, 6, 7), (1, 1, 7, 8))
_WINDOW = [4, 5, 7, 8]


def gradients(recipe: Recipe, parameters: Arrays, batch: Arrays) -> tuple[float, Arrays]:
    """The loss over a batch, penalty included, and its gradient by weights and bias."""
    window = parameters["filters0.weights"][:, 0, _WINDOW]
    window = window - window.mean(axis=1, keepdims=True)
    used, bias = window, parameters["filters0.bias"][:, np.newaxis]
    if recipe.rounds:
        pruned = np.array([_pruned(weights) for weights in window])
        scale = 126 / np.maximum(np.abs(pruned).max(axis=1, keepdims=True), 1e-6)
        used, bias = _whole(pruned * scale) / scale, np.rint(bias * 100 * scale).clip(-LIMIT, LIMIT) / (100 * scale)
    members = _members(batch)
    margins = np.einsum("ft,nprt->nprf", used, members) / 100 + bias[:, 0]
    loss, by_margins = _entropy(margins, batch["pooled"], batch["targets"])
    by_weights = np.einsum("nprf,nprt->ft", by_margins, members) / 100
    if recipe.radius:
        penalty, more, directly = _penalty(margins, used, batch["pooled"], recipe.radius)
        loss, by_margins = loss + penalty, by_margins + more
        by_weights = np.einsum("nprf,nprt->ft", by_margins, members) / 100 + directly
    placed = np.zeros_like(parameters["filters0.weights"])
    placed[:, 0, _WINDOW] = by_weights - by_weights.mean(axis=1, keepdims=True)
    return loss, {"filters0.weights": placed, "filters0.bias": by_margins.sum(axis=(0, 1, 2))}


LIMIT = 2**24 - 2**16


def _pruned(weights: Floats) -> Floats:
    """Without those under 0.3 of the largest, twice; the others' sum stays 0. Random weights are never whole 126ths."""
    for _ in range(2):
        kept = np.abs(weights) >= 0.3 * np.abs(weights).max()
        weights = np.where(kept, weights - weights[kept].mean(), 0)
    return weights


def _whole(scaled: Floats) -> Floats:
    """Rounded; what that adds to a filter's sum is taken from its largest weight."""
    whole = np.rint(scaled)
    for weights in whole:
        weights[np.abs(weights).argmax()] -= weights.sum()
    return whole


def _members(batch: Arrays) -> Floats:
    """What each window reads: [n, rows, cols, 4], the corner's own value in place of absent ones."""
    own = batch["readings"]
    rows, cols = own.shape[1:]
    padded = np.pad(own, ((0, 0), (0, 1), (0, 1)))
    seen = [own]
    for down, right, slot, _ in _MEMBERS:
        neighbour = padded[:, down : down + rows, right : right + cols]
        seen.append(np.where(batch["heard"][0, slot], neighbour, own))
    return np.stack(seen, axis=-1)


def _entropy(margins: Floats, pooled: NDArray[np.bool_], targets: Floats) -> tuple[float, Floats]:
    """Mean cross-entropy of the largest margins, 48 logits a degree, and its gradient by all margins."""
    found, total = np.zeros_like(margins), 0.0
    for cycle, (of_cycle, here, target) in enumerate(zip(margins, pooled, targets, strict=True)):
        largest = np.where(here, of_cycle.max(axis=-1), -1e3)
        place = np.unravel_index(largest.argmax(), largest.shape)
        logits = np.array([-24, 24]) * largest[place]
        log_scores = logits - np.logaddexp(*logits)
        total -= float((target * log_scores).sum())
        if here[place]:
            error = np.exp(log_scores) - target
            found[cycle][place][of_cycle[place].argmax()] = (error * (-24, 24)).sum() / len(margins)
    return total / len(margins), found


def _penalty(
    margins: Floats, weights: Floats, pooled: NDArray[np.bool_], weight: float
) -> tuple[float, Floats, Floats]:
    """The hinge on the radius, its gradients by margins and, through the magnitudes, by weights."""
    magnitudes = np.abs(weights).sum(axis=1)
    by_margins, by_magnitudes, total = np.zeros_like(margins), np.zeros_like(magnitudes), 0.0
    cost = 10 * weight / pooled.sum()
    for place in map(tuple, np.argwhere(pooled)):
        ratios = margins[place] / magnitudes
        best = ratios.argmax()
        short = 0.5 - abs(ratios[best])
        if short > 0:
            total += cost * short
            by_ratio = -cost * np.sign(ratios[best])
            by_margins[place][best] = by_ratio / magnitudes[best]
            by_magnitudes[best] -= by_ratio * ratios[best] / magnitudes[best]
    return total, by_margins, by_magnitudes[:, np.newaxis] * np.sign(weights)
