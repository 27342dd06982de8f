"""A decision once more, from nothing but what is stored: whoever doubts it can have it proved."""

from dataclasses import replace

from gateway import decision
from gateway.exactness import compare
from gateway.gateway import Outcome
from gateway.head import HeadRunner
from gateway.model import SPECS
from gateway.store import Store, StoredCycle
from gateway.store_schema import StoreError

# Of scores, which are probabilities: how far the same model differs on another machine.
SCORE_TOLERANCE = 1e-5


def recompute(store: Store, stored: StoredCycle) -> Outcome:
    """The outcome of a stored cycle: its scores, decision, where and comparison with the twin computed anew.

    Args:
        store: holds the model.
        stored: from the same store.

    Returns:
        What the gateway found when it decided; on another machine scores may differ by SCORE_TOLERANCE.

    Raises:
        StoreError: the model is not in the store.
    """
    outcome, basis = stored.outcome, stored.basis
    version, revision = outcome.filter_version, outcome.head_revision
    found = store.model(version, revision)
    if found is None:
        raise StoreError(f"{store.path}: filters {version} with head {revision} are not stored")
    runner = HeadRunner(SPECS[found.model.spec_name], found.model.head)
    _, decided = decision.update(basis.state, outcome.record.features, runner, basis.limits)
    exact = compare(outcome.record, found.model.filters, replace(store.site, cells=basis.cells))
    return outcome._replace(decision=decided, exact=exact)


def agrees(again: Outcome, outcome: Outcome) -> bool:
    """Whether a recomputed outcome is the one that was decided: equal but for SCORE_TOLERANCE of its scores.

    What was reported is not looked at: neither its record nor its arrivals.
    """
    scores = zip(again.decision.scores, outcome.decision.scores, strict=True)
    is_near = all(abs(new - old) <= SCORE_TOLERANCE for new, old in scores)
    same = outcome._replace(decision=outcome.decision._replace(scores=again.decision.scores))
    return is_near and again._replace(record=outcome.record, arrivals=outcome.arrivals) == same
