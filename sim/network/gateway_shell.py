"""The shell around the real gateway: opens a cycle each period, restarts it, knows what its store would know."""

from collections.abc import Callable
from dataclasses import replace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway import wave
from gateway.gateway import Gateway, Outcome, Timing
from gateway.model import Model
from gateway.site import Site
from protocol import frame
from sim.network.clock import Clock

TIMING = Timing(period_ms=10_000)
# Runs begin shortly before their low byte wraps.
FIRST_RUN = 254
# The gateway's own clock: monotonic, of any origin.
ORIGIN_MS = 1 << 40


class GatewayShell:
    """The gateway, what it keeps over a restart, and its connection.

    Attributes:
        gateway: the real Gateway of the present run.
        is_up: it runs.
        connected: to the broker.
        wave: the signed set that its connection publishes again each time, b"" before the first.
        pushed: the signed sets so far.
        given_up: roll-outs that too few nodes took.
        reports: payloads that came in since the cycle opened.
        publish_beacon, publish_wave: the connection's; set by who joins the parts.
        on_outcome: called with each Outcome.
        on_push: called with a signed set and its version before anybody gets it.
    """

    def __init__(self, site: Site, model: Model, key: Ed25519PrivateKey, clock: Clock):
        """It starts with the first `start`."""
        self._site, self._key, self._clock = site, key, clock
        self._model = model
        self._pending: tuple[Model, bytes] | None = None
        self._highest = model.filters.version
        self._run = FIRST_RUN
        self._wants_push = False
        self._is_dirty = False
        self.gateway = Gateway(site, model, TIMING, self._run)
        self.is_up = self.connected = False
        self.wave = b""
        self.pushed: list[bytes] = []
        self.given_up = 0
        self.reports: list[bytes] = []
        self.publish_beacon: Callable[[bytes], None]
        self.publish_wave: Callable[[bytes], None]
        self.on_outcome: Callable[[Outcome], None]
        self.on_push: Callable[[bytes, int], None]

    @property
    def newest(self) -> int:
        """The highest version that it ever rolled out, or began with."""
        return self._highest

    def start(self) -> None:
        """Begin a run with what the store knows: the model in force, and the roll-out that was on its way."""
        self._run += 1
        self.gateway = Gateway(self._site, self._model, TIMING, self._run)
        self.is_up, self.wave = True, b""
        if self._pending:
            self.gateway.push(*self._pending)
            self.wave = self._pending[1]
        self._clock.after(TIMING.exchange_ms, self._open_cycle, self._run)

    def stop(self) -> None:
        """The process ends; the broker forgets its connection."""
        self.is_up = self.connected = False
        self._is_dirty = False

    def ask_push(self) -> None:
        """Roll out a new version before the next cycle that it opens."""
        self._wants_push = True

    def take(self, name: str, payload: bytes) -> None:
        """A message comes in."""
        if self.is_up and self.connected:
            if frame.kind_of(payload) == frame.REPORT:
                self.reports.append(payload)
            self.gateway.on_message(name, payload)
            self._is_dirty = True

    def settle(self) -> None:
        """Look at what came in, at the end of a ms."""
        if self._is_dirty:
            self._is_dirty = False
            self._poll(self._run)

    def _now_ms(self) -> int:
        return ORIGIN_MS + self._clock.now_ms

    def _open_cycle(self, run: int) -> None:
        if not self.is_up or run != self._run:
            return
        if self._wants_push:
            self._push()
        self.reports.clear()
        data = self.gateway.start_cycle(self._now_ms())
        self._keep()
        self.publish_beacon(data)
        wave_again = self.gateway.wave_to_repeat()
        if wave_again and self.connected:
            self.publish_wave(wave_again)
        self._clock.after(self.gateway.due_ms() - self._now_ms(), self._poll, run)
        self._clock.after(TIMING.period_ms, self._open_cycle, run)

    def _poll(self, run: int) -> None:
        if self.is_up and run == self._run:
            outcome = self.gateway.poll(self._now_ms())
            if outcome:
                self.on_outcome(outcome)

    def _push(self) -> None:
        """The next version of the filters, a little different, so that a mixed cycle shows in its features."""
        self._wants_push = False
        self._highest = max(self._highest, self.gateway.highest_version) + 1
        model = changed(self._model, self._highest)
        data = wave.signed(model.filters, self._site.name, self._key)
        self.gateway.push(model, data)
        self._pending, self.wave = (model, data), data
        self.pushed.append(data)
        self.on_push(data, self._highest)
        if self.connected:
            self.publish_wave(data)

    def _keep(self) -> None:
        """What the store is told when a cycle opens."""
        self._model = self.gateway.model
        rollout = self.gateway.rollout
        if self._pending and rollout and (rollout.switched or rollout.gave_up):
            self._pending = None
            self.given_up += rollout.gave_up


def changed(model: Model, version: int) -> Model:
    """The model with the next version of its filters: each layer's biases are one step of its output higher."""
    layers = tuple(replace(layer, bias=layer.bias + (1 << layer.shift)) for layer in model.filters.layers)
    return replace(model, filters=replace(model.filters, version=version, layers=layers), head=replace(model.head))
