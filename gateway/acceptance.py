"""Whether what was learned is better: old and new model decide cycles that were not trained on.

Plan: the latest cycles are held out. On the others the model in force is fine-tuned (gateway/trainer.py). Both then
decide the held-out cycles, on the twin's integers and cycle by cycle without hysteresis, and the new one is accepted
only where it is right more often. So a training on too little does no harm: it is refused.
"""

import math
from collections.abc import Callable, Generator
from typing import NamedTuple

import numpy as np

from gateway.head import HeadRunner
from gateway.model import CLASSES, Model, spec_named
from gateway.samples import Samples, features_of, split_latest
from gateway.site import Site
from gateway.trainer import BATCH, Options, Training

HELD_OUT = 0.25
STEPS = 240
# What the model knows is to be bent, not burnt. On 180 cycles of simulated lounges, filters that moved as fast as the
# head cost a point of later accuracy; at a tenth they cost nothing: an int8 weight moves by one or two in all. Values
# lost on purpose cost nearly a point as well: a label knows of a difference that a unit then cannot see.
RATE, FILTER_RATE = 1e-3, 1e-4
# With a sign there is no head that could bend instead, and a bias counts in degrees: 240 such steps go half of one.
SIGN_RATE = 5e-3

# Called with (steps done, steps to do).
Progress = Callable[[int, int], None]


class Trained(NamedTuple):
    """What became of a training.

    Attributes:
        model: the candidate, under its own version and revision whether it is better or not.
        accuracy_before, accuracy_after: share of the held-out cycles that the old and the new model decide right, 0..1;
            None where nothing was held out.
        accepted: whether that share has risen.
    """

    model: Model
    accuracy_before: float | None
    accuracy_after: float | None
    accepted: bool


def train(
    model: Model, site: Site, samples: Samples, version: int, seed: int, progress: Progress | None = None
) -> Trained:
    """`training` from beginning to end; progress is told after every step."""
    steps = training(model, site, samples, version, seed)
    while True:
        try:
            done, to_do = next(steps)
        except StopIteration as finished:
            trained: Trained = finished.value
            return trained
        if progress:
            progress(done, to_do)


def training(
    model: Model, site: Site, samples: Samples, version: int, seed: int, threshold: float = 0.5
) -> Generator[tuple[int, int], None, Trained]:
    """Fine-tune a model and judge it, handing back control after every step.

    Args:
        model: decides now.
        site: where its nodes stand.
        samples: in the order in which they happened; the latest quarter is held out.
        version: of the new filters; the head's revision rises by one.
        seed: of everything random; equal seeds give equal models on one machine.
        threshold: the score of abnormal from which a cycle is decided so.

    Yields:
        (steps done, steps to do); none where there is nothing to learn: samples of one class, or a model that is right
        about all that was held out.

    Returns:
        The candidate; where there was nothing to learn it has the old numbers and is not accepted.

    Raises:
        gateway.model.ModelError: the filters cannot be trained from (gateway/quantise.py).
    """
    same = model.numbered(version, model.head.revision + 1)
    if samples.cycles < 2:
        return Trained(same, None, None, accepted=False)
    learned, held_out = split_latest(samples, HELD_OUT)
    before = accuracy(model, site, held_out, threshold)
    if before == 1 or len(np.unique(learned.abnormal)) < CLASSES:
        return Trained(same, before, before, accepted=False)
    epochs = max(1, round(STEPS / math.ceil(learned.cycles / BATCH)))
    filter_rate = SIGN_RATE if spec_named(model.spec_name).has_sign else FILTER_RATE
    tuning = Training(model, site, learned, Options(RATE, filter_rate, epochs, seed=seed))
    while tuning.done < tuning.steps:
        tuning.step()
        yield tuning.done, tuning.steps
    candidate = tuning.model(version)
    after = accuracy(candidate, site, held_out, threshold)
    return Trained(candidate, before, after, accepted=after > before)


def accuracy(model: Model, site: Site, samples: Samples, threshold: float = 0.5) -> float:
    """The share of cycles, 0..1, that a model decides right on its own, by the twin and without hysteresis."""
    runner = HeadRunner(spec_named(model.spec_name), model.head)
    scores = runner.scores(features_of(samples, model.filters, site))
    return float(((scores[:, 1] >= threshold) == samples.abnormal).mean())
