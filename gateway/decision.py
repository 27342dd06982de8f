"""The decision: scores become normal or abnormal, and where in the mesh.

`init` and `update` over a small state, no I/O. Abnormal begins at a score of threshold + band / 2 and ends below
threshold - band / 2, so that a score at the threshold does not flicker. *Where* is the block without which the cycle
would look least abnormal: its features are set to 0, as if it had noticed nothing (occlusion, Zeiler and Fergus 2014).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gateway.head import HeadRunner

# Blocks looked at in one run of the head: 128 x 10,240 features of the largest site are 5 MB as float32.
_BLOCKS_AT_ONCE = 128


class Limits(NamedTuple):
    """When a score of abnormal counts: 0 < threshold - band / 2, threshold + band / 2 < 1, band >= 0."""

    threshold: float = 0.5
    band: float = 0.1


LIMITS_DEFAULT = Limits()


class State(NamedTuple):
    """What the next decision needs of the last one; it is stored, so that every decision can be recomputed."""

    abnormal: bool


class Decision(NamedTuple):
    """What one cycle came to.

    Attributes:
        scores: (normal, abnormal), 0..1 each, together 1.
        abnormal: with hysteresis.
        where: (block row, block column) that speaks loudest for abnormal; None when normal, or when no block noticed
            anything.
    """

    scores: tuple[float, float]
    abnormal: bool
    where: tuple[int, int] | None


def check_limits(limits: Limits) -> Limits:
    """The limits themselves.

    Raises:
        ValueError: no score could ever cross them.
    """
    threshold, band = limits
    if not band >= 0:
        raise ValueError(f"band: {band} is negative; write 0 for no hysteresis")
    if not 0 < threshold - band / 2 <= threshold + band / 2 < 1:
        raise ValueError(f"threshold: {threshold} with band {band} does not lie between 0 and 1")
    return limits


def init() -> State:
    """The state before the first cycle."""
    return State(abnormal=False)


def update(
    state: State, features: NDArray[np.integer], head: HeadRunner, limits: Limits = LIMITS_DEFAULT
) -> tuple[State, Decision]:
    """Decide one cycle.

    Args:
        state: what the cycle before left behind.
        features: int16 [block rows, block cols, channels], -1 where missing.
        head: the runner of the model that is in force.
        limits: checked ones.

    Returns:
        The new state and the decision.
    """
    normal, abnormal = (float(score) for score in head.scores(features.ravel())[0])
    turn = limits.threshold + (-limits.band if state.abnormal else limits.band) / 2
    decided = abnormal >= turn
    return State(decided), Decision((normal, abnormal), decided, locate(features, head) if decided else None)


def locate(features: NDArray[np.integer], head: HeadRunner) -> tuple[int, int] | None:
    """The block whose removal lowers the log-odds of abnormal most, the first of several; None if all features are 0.

    Log-odds, because probabilities near 1 do not tell one strong block from another.
    """
    suspects = np.argwhere((features > 0).any(axis=-1))
    if not len(suspects):
        return None
    log_odds = np.concatenate(
        [
            _without(features, suspects[start : start + _BLOCKS_AT_ONCE], head)
            for start in range(0, len(suspects), _BLOCKS_AT_ONCE)
        ]
    )
    row, col = suspects[np.argmin(log_odds)]
    return int(row), int(col)


def _without(features: NDArray[np.integer], blocks: NDArray[np.intp], head: HeadRunner) -> NDArray[np.float32]:
    """Log-odds of abnormal with each of these blocks silenced in turn: blocks [k, 2] -> float32 [k]."""
    batch = np.repeat(features[np.newaxis], len(blocks), axis=0)
    batch[np.arange(len(blocks)), blocks[:, 0], blocks[:, 1]] = 0
    logits = head.logits(batch.reshape(len(blocks), -1))
    return logits[:, 1] - logits[:, 0]
