"""Which model decides and which is on its way: what the store says is carried out, what happens goes into the store.

An order is a model in the store with status `pushed`, from learning or from an operator's command in a process of its
own. Looked at between two cycles: the newest order is rolled out (gateway/wave.py); before it decides it is `active`,
and if too few nodes take it `refused`. So a roll-out that a restart interrupts goes on: its status is what it was.

A node that loses power while filters are on trial goes back to those before and takes none but newer ones: it cannot
know whether they were the reason. The gateway can guess: it orders the same weights again, a few times. So it does if
nodes hold newer filters than it decides with, as after a store that was put back from a copy.
"""

import logging
import time
from collections.abc import Callable
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.gateway import Gateway
from gateway.model import Model
from gateway.store import ACTIVE, PUSHED, REFUSED, Store, StoredModel
from gateway.store_schema import StoreError
from gateway.wave import Rollout, signed
from protocol.filter_set import TRIAL

# The same weights are sent again so often in a row: nodes that still return do so because of them.
AGAIN_MAX = 3

log = logging.getLogger(__name__)


class Order(NamedTuple):
    """A model to roll out.

    Attributes:
        model: with any numbers; it gets the next ones.
        note: where it comes from.
        accuracy_before, accuracy_after: as StoredModel has them.
    """

    model: Model
    note: str
    accuracy_before: float | None = None
    accuracy_after: float | None = None


def place(store: Store, key: Ed25519PrivateKey, order: Order, highest: int, now_s: float) -> StoredModel:
    """Sign an order under the next version and put it into the store, for the service to carry out.

    Args:
        store: of the site.
        key: the site's private key.
        order: what to roll out.
        highest: the highest version that was heard of from nodes; nodes take none below.
        now_s: UTC seconds.

    Raises:
        StoreError: the store does not take it.
        gateway.model.ModelError: the numbers are used up.
    """
    version, revision = store.highest_model()
    model = order.model.numbered(max(version, highest) + 1, revision + 1)
    data = signed(model.filters, store.site.name, key)
    stored = StoredModel(model, data, PUSHED, now_s, order.accuracy_before, order.accuracy_after, order.note)
    store.add_model(stored)
    return stored


class Rollouts:
    """Carries out a store's orders for one gateway."""

    def __init__(
        self,
        store: Store,
        gateway: Gateway,
        publish: Callable[[bytes], None],
        key: Ed25519PrivateKey,
        now_s: Callable[[], float] = time.time,
    ):
        """`publish` hands a signed filter set to the nodes next to the gateway."""
        self._store = store
        self._gateway = gateway
        self._publish = publish
        self._key = key
        self._now_s = now_s
        self._settled: Rollout | None = None
        self._waiting: int | None = None
        self._again = 0
        gateway.may_switch = self._write_switch

    def start(self, active: StoredModel) -> None:
        """Go on where an earlier run stopped; before any message of a node is taken in, whose version could refuse it.

        Args:
            active: the store's active model, which the gateway decides with.

        Raises:
            StoreError: the store cannot be used.
        """
        self._gateway.resume(active.filter_set)
        resumed = self._gateway.rollout
        self.look()
        if self._gateway.rollout is resumed:
            self._publish(active.filter_set)

    def look(self) -> None:
        """Between two cycles: write down what became of the roll-out, and begin the next one.

        Raises:
            StoreError: the store cannot be used; the next look tries again.
            gateway.model.ModelError: an order's numbers are used up.
        """
        self._settle()
        waiting = self._store.model_keys(PUSHED) or self._order_again()
        for key in waiting[:-1]:
            self._store.set_status(*key, REFUSED, f"overtaken by filters {waiting[-1][0]}")
        rollout = self._gateway.rollout
        if waiting and not (rollout and waiting[-1] == _key(rollout.model)):
            self._begin(waiting[-1])

    def order(self, order: Order) -> StoredModel:
        """Place an order that the next look carries out.

        Raises:
            As `place`.
        """
        return place(self._store, self._key, order, self._gateway.highest_version, self._now_s())

    @property
    def under_way(self) -> bool:
        """Whether a model is on its way that does not decide yet."""
        rollout = self._gateway.rollout
        return bool(rollout and not rollout.switched and not rollout.gave_up)

    def _write_switch(self, model: Model) -> bool:
        """Write down that a model decides from the cycle on that opens now; False while the store does not take it."""
        version, revision = _key(model)
        try:
            self._store.set_status(version, revision, ACTIVE)
        except StoreError as error:
            if self._waiting != version:
                log.error("filters %d wait for the store: %s", version, error)
            self._waiting = version
            return False
        log.info("filters %d with head %d decide from now on", version, revision)
        return True

    def _settle(self) -> None:
        """Write down that the model on its way never decides."""
        rollout = self._gateway.rollout
        if rollout and rollout.gave_up and rollout is not self._settled:
            version, revision = _key(rollout.model)
            self._store.set_status(version, revision, REFUSED, "given up: too few nodes took it")
            log.warning("filters %d are given up: too few nodes took them; the ones before stay in use", version)
            self._settled = rollout

    def _order_again(self) -> list[tuple[int, int]]:
        """Order the weights that decide once more for nodes that take them under a higher version only; the keys."""
        model, version = self._gateway.model, self._gateway.model.filters.version
        there = self._gateway.counted_on()
        held = [holding for cell, holding in self._gateway.holdings.items() if cell in there]
        lost = sum(not one.holds(version) and one.highest >= version for one in held)
        if held and all(one.has_confirmed(version) for one in held):
            self._again = 0
        if not lost or any(one.phase == TRIAL for one in held) or self._again > AGAIN_MAX:
            return []
        what = f"{lost} nodes cannot come to filters {version} any more"
        if self._again == AGAIN_MAX:
            self._again += 1
            log.error("%s, after %d tries: `thermesh filters rollback` sends those before", what, AGAIN_MAX)
            return []
        ordered = self.order(Order(model, f"again: {what}"))
        self._again += 1
        log.warning("%s: the same weights are sent again", what)
        return [_key(ordered.model)]

    def _begin(self, key: tuple[int, int]) -> None:
        stored = self._store.model(*key)
        if stored is None:
            return
        if stored.model.filters.version <= self._gateway.highest_version:
            following = self.order(Order(stored.model, stored.note, stored.accuracy_before, stored.accuracy_after))
            self._store.set_status(*key, REFUSED, "nodes knew of its version or a higher one already")
            stored = following
        self._gateway.push(stored.model, stored.filter_set)
        self._publish(stored.filter_set)
        log.info("filters %d with head %d are on their way: %s", *_key(stored.model), stored.note or "no note")


def _key(model: Model) -> tuple[int, int]:
    return model.filters.version, model.head.revision
