"""The decision: scores become normal or abnormal, and where in the mesh.

`init` and `update` over a small state, no I/O. Abnormal begins at a score of threshold + band / 2 and ends below
threshold - band / 2, so that a score at the threshold does not flicker. *Where* is, among the blocks that by themselves
speak for abnormal, the one with the strongest feature, between equals the one with the strongest next feature. To leave
a block out and see what the head makes of it (occlusion, Zeiler and Fergus 2014) does not find it: where several blocks
are abnormal, each can be spared.
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
    """The block that speaks loudest for abnormal, the first of several; None if no block noticed anything.

    Loudest is the strongest feature; where that is 255 in many blocks, the next strongest tells them apart.

    A block speaks for abnormal if the head finds the cycle more abnormal with it alone than in silence; where none
    does, all that noticed something are looked at.
    """
    suspects = np.argwhere((features > 0).any(axis=-1))
    if not len(suspects):
        return None
    silence = _log_odds(np.zeros_like(features)[np.newaxis], head)
    alone = np.concatenate(
        [
            _log_odds(_alone(features, suspects[start : start + _BLOCKS_AT_ONCE]), head)
            for start in range(0, len(suspects), _BLOCKS_AT_ONCE)
        ]
    )
    if (alone > silence).any():
        suspects = suspects[alone > silence]
    row, col = max(suspects.tolist(), key=lambda block: sorted(features[tuple(block)], reverse=True))
    return row, col


def _alone(features: NDArray[np.integer], blocks: NDArray[np.intp]) -> NDArray[np.integer]:
    """A cycle for each of these blocks, in which it alone noticed something: blocks [k, 2] -> [k, *features.shape]."""
    batch = np.zeros((len(blocks), *features.shape), features.dtype)
    rows, cols = blocks.T
    batch[np.arange(len(blocks)), rows, cols] = features[rows, cols]
    return batch


def _log_odds(batch: NDArray[np.integer], head: HeadRunner) -> NDArray[np.float32]:
    """Of abnormal, one per cycle; probabilities near 1 would not tell one strong block from another."""
    logits = head.logits(batch.reshape(len(batch), -1))
    return logits[:, 1] - logits[:, 0]
