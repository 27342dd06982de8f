"""The shell around the real gateway: opens a cycle each period, stores each outcome, carries out roll-outs, restarts.

It joins Gateway, Store, Recorder and Rollouts as tools/gateway.py does. What a run leaves behind is its state folder.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray

from gateway.config import next_run
from gateway.decision import LIMITS_DEFAULT
from gateway.gateway import Gateway, Outcome, Timing
from gateway.model import SIGN, Model, NodeLayer
from gateway.received import Received
from gateway.rollouts import Order, Rollouts, place
from gateway.service import Recorder
from gateway.site import Cell, Site
from gateway.store import ACTIVE, Store
from gateway.store_schema import StoreError
from protocol import frame
from sim.network.clock import Clock

TIMING = Timing(period_ms=10_000)
# With two exchanges more, for challenges.
_TIMING_LOSSY = TIMING._replace(exchange_ms=2_000)
# Runs begin shortly before their low byte wraps.
RUN_FLOOR = 254
# The gateway's own clock: monotonic, of any origin.
ORIGIN_MS = 1 << 40
# When the simulation begins, UTC seconds; any would do.
BEGIN_S = 1_700_000_000
# A gateway that ends because of its disk is started again after so long.
AGAIN_MS = 5_000
CONNECT_MS = 1
# By so much other filters with a sign differ.
CHANGE_CCEL = 20


class SimulatedStore(Store):
    """A store whose disk can be made to take nothing; the refusal, the error and the way back are SQLite's own."""

    def refuse_writes(self, refuses: bool) -> None:
        """From now on, or no more."""
        self._database.execute(f"PRAGMA query_only = {'ON' if refuses else 'OFF'}")


class GatewayShell:
    """The gateway, its state folder, and its connection.

    Attributes:
        gateway: the real Gateway of the present run, or of the last one; there from the first `start`.
        flashed: the signed filter set that decides at first.
        newest: the highest version that it ever handed out.
        copies: as in protocol/beacon.py, to be set before the first `start`.
        is_up: it runs.
        stands_still: it runs, and does nothing at present.
        connected: to the broker.
        wave: the signed set that its connection publishes again each time, b"" before the first.
        reports: payloads of reports, and of states in mode event, that came in since the cycle opened.
        postponed: looks at the roll-outs that the store cut short.
        connect, publish_acknowledgement, publish_beacon, publish_wave: the connection's; set by who joins the parts.
        on_outcome: called with each Outcome and whether it was stored, once that is settled.
        on_beacon: called with each beacon, while `reports` are still those of the cycle before.
        on_push: called with a signed set and its version before anybody gets it for the first time.
        on_fault: called with what the gateway raised.
    """

    def __init__(self, folder: Path, site: Site, model: Model, key: Ed25519PrivateKey, clock: Clock, mode: int):
        """Make the state folder, with the model as the one that decides; it runs from the first `start` on.

        In mode event (`mode` as in protocol/beacon.py) every node is asked for its proof in each cycle.
        """
        self._folder, self._site, self._key, self._clock, self._mode = folder, site, key, clock, mode
        self.copies = 0
        with Store(folder, site, create=True) as store:
            first = place(store, key, Order(model, "to start with"), 0, self._now_s())
            self.newest = first.model.filters.version
            store.set_status(self.newest, first.model.head.revision, ACTIVE)
        self.flashed = first.filter_set
        self._open = ExitStack()
        self._store: SimulatedStore
        self._rollouts: Rollouts
        self._recorder: Recorder
        self.gateway: Gateway
        self._disk_fails = self._wants_push = self._is_dirty = False
        self.is_up = self.connected = self.stands_still = False
        self._waiting: list[Callable[[], None]] = []
        self.wave = b""
        self.postponed = 0
        self.reports: list[bytes] = []
        self.connect: Callable[[], None]
        self.publish_acknowledgement: Callable[[Cell, bytes], None]
        self.publish_beacon: Callable[[bytes], None]
        self.publish_wave: Callable[[bytes], None]
        self.on_outcome: Callable[[Outcome, bool], None]
        self.on_beacon: Callable[[bytes], None]
        self.on_push: Callable[[bytes, int], None]
        self.on_fault: Callable[[Exception], None]

    @property
    def disk_fails(self) -> bool:
        """The disk takes nothing at present; what lies on it can be read."""
        return self._disk_fails

    @disk_fails.setter
    def disk_fails(self, fails: bool) -> None:
        self._disk_fails = fails
        if self.is_up:
            self._store.refuse_writes(fails)

    @property
    def gave_up(self) -> bool:
        """No roll-out is on its way, and the newest version does not decide."""
        return not self._rollouts.under_way and self.gateway.model.filters.version != self.newest

    def start(self) -> None:
        """Begin a run with what the store knows. On a disk that fails the process ends, and is started again later."""
        if self._disk_fails:
            self._clock.after(AGAIN_MS, self.start)
            return
        self._store = store = self._open.enter_context(SimulatedStore(self._folder, self._site))
        active = store.active_model()
        if active is None:
            raise StoreError(f"{store.path}: no model is active")
        run = next_run(self._folder, max(store.last_run() or 0, RUN_FLOOR))
        self.gateway = Gateway(self._site, active.model, _TIMING_LOSSY if self.copies else TIMING, run, LIMITS_DEFAULT)
        self.gateway.mode, self.gateway.copies, self.gateway.wants_proof = self._mode, self.copies, True
        self.gateway.received = Received(store.reporters())
        self._rollouts = Rollouts(store, self.gateway, self._hand_out, self._key, self._now_s)
        self._recorder = Recorder(store, run, LIMITS_DEFAULT, self._now_s)
        self.is_up = True
        self.reports.clear()
        self._rollouts.start(active)
        self._clock.after(CONNECT_MS, self.connect)
        self._clock.after(TIMING.exchange_ms, self._in_run, run, self._open_cycle)

    def stop(self) -> None:
        """The process ends; the broker forgets its connection."""
        self.is_up = self.connected = self.stands_still = self._is_dirty = False
        self._waiting.clear()
        self._open.close()

    def stand_still(self) -> None:
        """Do nothing from now on, neither what is due nor with what comes in."""
        self.stands_still = True

    def go_on(self) -> None:
        """Do what was due meanwhile, one cycle's opening at most, and take in what came, in the order of time."""
        self.stands_still = False
        waiting, self._waiting = self._waiting, []
        for action in waiting:
            action()
        self.settle()

    def ask_push(self) -> None:
        """Order a new version before the next cycle that opens, or as soon after as the store takes it."""
        self._wants_push = True

    def take(self, name: str, payload: bytes) -> None:
        """A message comes in."""
        if self.is_up and self.connected:
            self._in_run(self.gateway.run, self._take, name, payload)

    def settle(self) -> None:
        """Look at what came in, at the end of a ms."""
        if self._is_dirty:
            self._is_dirty = False
            self._in_run(self.gateway.run, self._poll)

    def _now_ms(self) -> int:
        return ORIGIN_MS + self._clock.now_ms

    def _now_s(self) -> float:
        return BEGIN_S + self._clock.now_ms / 1_000

    def _in_run(self, run: int, action: Callable[..., object], *arguments: Any) -> None:
        """Do something, once the gateway moves, unless the run that it belongs to is over."""
        if self.stands_still:
            self._waiting.append(partial(self._in_run, run, action, *arguments))
        elif self.is_up and run == self.gateway.run:
            try:
                action(*arguments)
            except Exception as error:
                self.on_fault(error)

    def _take(self, name: str, payload: bytes) -> None:
        self._is_dirty = True
        if frame.kind_of(payload) in (frame.REPORT, frame.STATE):
            self.reports.append(payload)
        self.gateway.on_message(name, payload)

    def _open_cycle(self) -> None:
        self._look()
        for cell, words in self.gateway.acknowledgements():
            self.publish_acknowledgement(cell, words)
        data = self.gateway.start_cycle(self._now_ms())
        self.on_beacon(data)
        self.reports.clear()
        self.publish_beacon(data)
        wave_again = self.gateway.wave_to_repeat()
        if wave_again and self.connected:
            self.publish_wave(wave_again)
        self._clock.after(self.gateway.due_ms() - self._now_ms(), self._in_run, self.gateway.run, self._poll)
        self._clock.after(TIMING.period_ms, self._in_run, self.gateway.run, self._open_cycle)

    def _poll(self) -> None:
        """As gateway.service.serve: what is decided is stored first; what cannot be is not acknowledged."""
        outcome = self.gateway.poll(self._now_ms())
        if outcome is None:
            return
        is_stored = self._recorder.keep(outcome)
        self.gateway.settle(outcome, is_stored)
        self.on_outcome(outcome, is_stored)
        self._look()

    def _look(self) -> None:
        """As gateway.upkeep.Upkeep.look: what the store does not take is tried again at the next look.

        Two looks a cycle: behind its outcome, and before the next beacon. The service's others are between these.
        """
        try:
            if self._wants_push:
                self._rollouts.order(Order(changed(self.gateway.model), "a little different"))
                self._wants_push = False
            self._rollouts.look()
        except StoreError:
            self.postponed += 1

    def _hand_out(self, data: bytes) -> None:
        """What Rollouts publishes; the connection keeps it for later, as gateway.link.Link does."""
        rollout = self.gateway.rollout
        if rollout and rollout.model.filters.version > self.newest:
            self.newest = rollout.model.filters.version
            self.on_push(data, self.newest)
        self.wave = data
        if self.connected:
            self.publish_wave(data)


def changed(model: Model) -> Model:
    """Filters a little different, so that a mixed cycle shows.

    Each layer's biases are one step of its output higher; with a sign, differences smaller by CHANGE_CCEL are abnormal.
    """
    layers = tuple(replace(layer, bias=layer.bias + _raised(layer)) for layer in model.filters.layers)
    return replace(model, filters=replace(model.filters, layers=layers))


def _raised(layer: NodeLayer) -> NDArray[np.int32]:
    """By how much biases rise: int32 [filters]. A filter of a sign that looks at nothing keeps on saying nothing."""
    if layer.activation != SIGN:
        return np.full(layer.filters, 1 << layer.shift, np.int32)
    largest: NDArray[np.int32] = np.abs(layer.weights.astype(np.int32)).max(axis=(1, 2))
    return CHANGE_CCEL * largest
