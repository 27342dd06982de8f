"""Learning beside the service: samples from the store become a better model, in a thread of its own.

After so many stored cycles a training begins (gateway/acceptance.py) from the model that decides. The thread has a
store of its own and reads only; what it found is taken in between two cycles: an accepted model is ordered to be rolled
out, a refused one is kept in the store with both accuracies. Whatever goes wrong in it is logged and ends nothing else.
"""

import logging
import sys
import threading
import time
from collections.abc import Callable
from os import PRIO_PROCESS, getpriority, setpriority
from pathlib import Path
from typing import Any, NamedTuple, Self

from gateway.acceptance import Trained, training
from gateway.model import Model
from gateway.rollouts import Order, Rollouts
from gateway.site import Site
from gateway.store import REFUSED, Store, StoredModel

log = logging.getLogger(__name__)

CYCLES_MAX = 100_000
# How much of a core learning gives way to whatever decides; 19 is the most.
_NICENESS = 10
# A training is told of in the log when it begins, at every quarter, and when it ends.
_QUARTERS = 4


class Plan(NamedTuple):
    """When to learn, and from how much.

    Attributes:
        every_cycles: after so many stored cycles; 0 for never.
        cycles_max: from the latest so many, 2..CYCLES_MAX.
    """

    every_cycles: int = 240
    cycles_max: int = 2_880


def check_plan(plan: Plan) -> Plan:
    """The plan itself.

    Raises:
        ValueError: a field is out of range.
    """
    if not 0 <= plan.every_cycles <= CYCLES_MAX:
        raise ValueError(f"every_cycles: {plan.every_cycles} is not in 0..{CYCLES_MAX}; write 0 to learn never")
    if not 2 <= plan.cycles_max <= CYCLES_MAX:
        raise ValueError(f"cycles_max: {plan.cycles_max} is not in 2..{CYCLES_MAX}")
    return plan


class Lesson(NamedTuple):
    """What one training came to.

    Attributes:
        before: the model that it began with.
        trained: candidate and accuracies.
        cycles, abnormal: samples, and how many of them are abnormal.
        steps: of training; 0 where there was nothing to learn.
    """

    before: Model
    trained: Trained
    cycles: int
    abnormal: int
    steps: int


class Learner:
    """One training at a time, in a thread of its own.

    Attributes:
        progress: (steps done, steps to do) of the training that runs.
    """

    def __init__(self, state: Path, site: Site, cycles_max: int, threshold: float):
        """Nothing runs yet; `state` is the folder with the store, `threshold` the score that decisions turn at."""
        self.progress = 0, 0
        self._state, self._site, self._cycles_max, self._threshold = state, site, cycles_max, threshold
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._lesson: Lesson | None = None
        self._error: Exception | None = None

    @property
    def busy(self) -> bool:
        """Whether a training runs, or one is over and not taken yet."""
        return self._thread is not None

    def begin(self, model: Model, version: int, seed: int) -> None:
        """Start a training; the last one has been taken.

        Args:
            model: to begin with.
            version: above the model's; whoever rolls the candidate out gives the number that counts.
            seed: of everything random.
        """
        self.progress, self._lesson, self._error = (0, 0), None, None
        self._thread = threading.Thread(target=self._run, args=(model, version, seed), name="learning")
        self._thread.start()

    def take(self) -> Lesson | None:
        """What the training came to, once it is over, else None.

        Raises:
            Exception: whatever ended it.
        """
        if self._thread is None or self._thread.is_alive():
            return None
        self._thread = None
        if self._error:
            raise self._error
        return self._lesson

    def close(self) -> None:
        """End a training that runs, after its step."""
        self._stop.set()
        if self._thread:
            self._thread.join()

    def _run(self, model: Model, version: int, seed: int) -> None:
        try:
            if sys.platform == "linux":  # elsewhere threads have no niceness of their own
                thread = threading.get_native_id()
                setpriority(PRIO_PROCESS, thread, max(_NICENESS, getpriority(PRIO_PROCESS, thread)))
            self._lesson = self._learn(model, version, seed)
        except Exception as error:  # handed to whoever takes the lesson: learning never ends the service
            self._error = error

    def _learn(self, model: Model, version: int, seed: int) -> Lesson | None:
        with Store(self._state, self._site) as store:
            samples = store.samples(self._cycles_max)
        steps, to_do = training(model, self._site, samples, version, seed, self._threshold), 0
        while not self._stop.is_set():
            try:
                self.progress = _, to_do = next(steps)
            except StopIteration as over:
                return Lesson(model, over.value, samples.cycles, int(samples.abnormal.sum()), to_do)
        steps.close()
        return None


class Learning:
    """Decides when to learn, and what is done with what was learned; a context manager.

    Attributes:
        last: one sentence on the last training, "" before the first.
    """

    def __init__(
        self, plan: Plan, learner: Learner, store: Store, rollouts: Rollouts, now_s: Callable[[], float] = time.time
    ):
        """For a service that starts now: cycles count from the last model that was kept.

        Raises:
            StoreError: the store cannot be used.
        """
        self.last = ""
        self._plan, self._learner, self._store, self._rollouts, self._now_s = plan, learner, store, rollouts, now_s
        self._begun_at = -store.cycles_since(store.last_model_s(), plan.every_cycles)
        self._stored = self._quarter = 0
        self._lesson: Lesson | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._learner.close()

    def look(self, model: Model, stored: int) -> None:
        """Between two cycles: take in a training that is over, or begin one.

        Args:
            model: decides now.
            stored: cycles since the start that are in the store.

        Raises:
            StoreError: the store cannot be used.
        """
        self._stored = stored
        if self._learner.busy or self._lesson:
            self._tell_progress()
            self._take(model)
        elif self._plan.every_cycles and not self.cycles_left and not self._rollouts.under_way:
            self._begun_at, self._quarter = stored, 0
            version, revision = self._store.highest_model()
            log.info("learning begins from filters %d with head %d", model.filters.version, model.head.revision)
            self._learner.begin(model, version + 1, revision)

    @property
    def cycles_left(self) -> int:
        """How many more cycles have to be stored until the next training."""
        return max(0, self._plan.every_cycles - (self._stored - self._begun_at))

    def facts(self) -> dict[str, Any]:
        """For `thermesh filters status`: state off, waiting or running; cycles_left; steps done of steps; last."""
        done, steps = self._learner.progress
        state = "running" if self._learner.busy else "waiting" if self._plan.every_cycles else "off"
        left = self.cycles_left if self._plan.every_cycles else None
        return {"state": state, "cycles_left": left, "done": done, "steps": steps, "last": self.last}

    def _tell_progress(self) -> None:
        done, steps = self._learner.progress
        quarter = _QUARTERS * done // steps if steps else 0
        if quarter > self._quarter:
            log.info("learning: %d of %d steps", done, steps)
        self._quarter = quarter

    def _take(self, model: Model) -> None:
        try:
            self._lesson = self._lesson or self._learner.take()
        except Exception as error:  # whatever it was, the service goes on
            self.last = f"failed: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
            log.error("learning %s", self.last)
            return
        if self._lesson:  # kept until it is judged: the store may fail in the middle
            self.last = self._judge(self._lesson, model)
            self._lesson = None
            log.info("learning: %s", self.last)

    def _judge(self, lesson: Lesson, model: Model) -> str:
        """Roll out what is better, keep what is not; returns the sentence that says so."""
        trained, source = lesson.trained, f"learned from {lesson.cycles} cycles, {lesson.abnormal} abnormal"
        before, after = trained.accuracy_before, trained.accuracy_after
        if not lesson.steps or before is None or after is None:
            return f"nothing to learn from {lesson.cycles} cycles, {lesson.abnormal} abnormal: {_why(trained)}"
        found = f"{source}: {100 * before:.2f} % -> {100 * after:.2f} % of the held-out ones right"
        if trained.accepted and lesson.before is model and not self._rollouts.under_way:
            placed = self._rollouts.order(Order(trained.model, source, before, after))
            return f"{found}, accepted as filters {placed.model.filters.version}"
        why = "another model decides by now" if trained.accepted else "not better"
        version, revision = self._store.highest_model()
        kept = trained.model.numbered(version + 1, revision + 1)
        data = kept.filters.pack(self._store.site.name)
        self._store.add_model(StoredModel(kept, data, REFUSED, self._now_s(), before, after, f"{source}; {why}"))
        return f"{found}, refused: {why}"


def _why(trained: Trained) -> str:
    """Why a training took no step."""
    if trained.accuracy_before is None:
        return "too few cycles"
    if trained.accuracy_before == 1:
        return "all held-out ones are decided right"
    return "all that could be learned from are of one class"
