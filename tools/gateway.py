"""`thermesh gateway`: one site's gateway as a service, until it is stopped."""

import gc
import json
import logging
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway import certificates, keys, passwords, running, service
from gateway.broker import LOOPBACKS, Broker, is_own, open_broker
from gateway.config import MODES, ConfigError, GatewayConfig, load_config, next_run
from gateway.gateway import Gateway, Outcome
from gateway.learning import Learner, Learning
from gateway.link import Link
from gateway.passwords import Login
from gateway.received import Received
from gateway.rollouts import Order, Rollouts, place
from gateway.site import Cell, Site
from gateway.store import ACTIVE, PUSHED, REFUSED, Store, StoredModel
from gateway.store_age import Ageing
from gateway.twin import NOTHING
from gateway.upkeep import Chores, Upkeep
from protocol.grid import node_name
from tools.acl import guests_of
from tools.mesh.files import Access, write_node_files
from tools.model_choice import Stage, choose_model
from tools.results import cycle_line

log = logging.getLogger(__name__)

# So long after a start that failed, behind a change of the site, follows the next.
_AGAIN_S = 1.0


def run_gateway(path: Path, cycles: int | None, as_json: bool, stage: Stage) -> None:
    """Serve the site that a gateway's file describes.

    Args:
        path: the file (gateway/config.py).
        cycles: end after so many; None: run on until KeyboardInterrupt.
        as_json: print decisions as JSON lines, as in cycles.jsonl.
        stage: opens progress bars.

    Raises:
        ValueError: configuration, store, model or broker cannot be used; one line.
    """
    config, shown = load_config(path), Shown(as_json)
    with running.claim(config.state):
        running.takes_order(config.state)  # its file was just read
        is_over, followed_at, named = False, -1, ""
        while not is_over:
            try:
                _serve(path, config, shown, cycles and cycles - shown.count, stage)
                is_over = True
            except _FollowError as follow:
                config, followed_at, is_over = follow.config, shown.count, shown.count == cycles
            except (OSError, ValueError) as error:
                if shown.count != followed_at:  # it is not the start behind a change, which has to succeed some time
                    raise
                if str(error) != named:
                    log.error("the gateway tries again each second: %s", error)
                named = str(error)
                time.sleep(_AGAIN_S)


class _FollowError(Exception):
    """The site's file changed, and the gateway goes on with it in a new run."""

    def __init__(self, config: GatewayConfig):
        self.config = config


def _serve(path: Path, config: GatewayConfig, shown: "Shown", cycles: int | None, stage: Stage) -> None:
    """One run, until so many cycles are over, or until the site changes."""
    with ExitStack() as stack:
        store = stack.enter_context(Store(config.state, config.site, create=True))
        run, key = _new_run(store, config), _site_key(store, config)
        active = _model_in_force(store, config, key, stage)
        log.info("%s: cycles, decisions, models and labels", store.path)
        broker, known = _open_broker(config)
        stack.enter_context(broker)
        link = stack.enter_context(Link(broker.host, broker.port, config.site.name, broker.login))
        log.info("site %s, run %d, broker %s", config.site.name, run, _broker_line(broker))
        _write_nodes(config, access_to(broker, known), active.filter_set, key)
        gateway = Gateway(config.site, active.model, config.timing, run, config.limits)
        gateway.mode, gateway.copies = MODES[config.mode], config.copies
        gateway.received = Received(store.reporters())
        rollouts = Rollouts(store, gateway, link.publish_wave, key)
        rollouts.start(active)
        learner = Learner(config.state, config.site, config.learning.cycles_max, config.limits.threshold)
        learning = stack.enter_context(Learning(config.learning, learner, store, rollouts))
        recorder = service.Recorder(store, run, config.limits)
        ageing = stack.enter_context(Ageing(config.state, config.site, config.keeping))
        upkeep = Upkeep(config.state, gateway, recorder, Chores(rollouts, learning, ageing), broker.encryption)

        def look() -> None:
            broker.keep_alive()
            _clear_left_behind(gateway, link)
            upkeep.look()
            _follow(path, config)

        beside = service.Beside(shown, look)
        # What is there by now stays: looking through all of it for garbage took 50 ms, now and then, in any cycle.
        gc.collect()
        gc.freeze()
        stack.callback(gc.unfreeze)
        service.serve(gateway, link, recorder, beside, config.site.cycle_s, cycles)


def _open_broker(config: GatewayConfig) -> tuple[Broker, Mapping[str, str]]:
    """The broker that the gateway's file names, and the passwords by user name; an own one lets in who has one."""
    folder = config.state / "broker"
    if is_own(config.broker):
        known, _ = passwords.load_or_make(config.state, config.site)
        return open_broker(config.broker, folder, guests=guests_of(config.site, known)), known
    known = passwords.load(config.state, config.site)
    login = None
    if known:
        login = Login(passwords.GATEWAY, known[passwords.GATEWAY], certificates.load(config.state))
    return open_broker(config.broker, folder, login, config.plain), known


def access_to(broker: Broker, known: Mapping[str, str]) -> Access:
    """How nodes get to the broker that the gateway has reached; `known`: passwords by user name."""
    if broker.login is None:  # it asks nobody
        return Access(broker.host, broker.port)
    return Access(broker.host, broker.port, known, broker.login.authority)


def _broker_line(broker: Broker) -> str:
    where = f"{broker.name} at {broker.host}:{broker.port}"
    if broker.encryption != "none":
        return f"{where}, encrypted"
    return f"{where}, on the loopback" if broker.host in LOOPBACKS else f"{where}, NOT ENCRYPTED"


def _follow(path: Path, config: GatewayConfig) -> None:
    """Raises _FollowError where the site's file changed and somebody ordered to follow it."""
    if not running.takes_order(config.state):
        return
    try:
        changed = load_config(path)
        if changed.state != config.state:
            raise ConfigError(f"{path} names another state folder; start the gateway anew")
        _try(changed)
    except (OSError, ValueError) as error:
        log.error("the site stays as it is: %s", error)
        return
    log.info("site %s: it has %d nodes, before %d", config.site.name, len(changed.site.cells), len(config.site.cells))
    raise _FollowError(changed)


def _try(config: GatewayConfig) -> None:
    """See whether a gateway could start with this; raises OSError or ValueError where it could not."""
    with Store(config.state, config.site):
        sensors_of(config.state / "nodes", config.site)
    if not is_own(config.broker):
        passwords.load(config.state, config.site)


def _clear_left_behind(gateway: Gateway, link: Link) -> None:
    """Take off the broker what it still keeps of nodes that are gone from the site."""
    while gateway.left_behind:
        cell = gateway.left_behind.pop()
        log.info("node %s is none of the site: what it left at the broker is cleared", node_name(*cell))
        link.clear_node(*cell)


def sensors_of(folder: Path, site: Site) -> dict[Cell, dict[str, Any]]:
    """The `sensor` table of each node: the one in its file, which people edit; a simulated one where there is none.

    Raises:
        ValueError: a file holds no such table; one line that names it.
    """
    sensors: dict[Cell, dict[str, Any]] = {}
    for seed, cell in enumerate(site.cells):
        file = folder / f"{node_name(*cell)}.json"
        try:
            config = json.loads(file.read_bytes()) if file.exists() else {}
        except (ValueError, RecursionError):
            config = None
        simulated = {"kind": "simulated", "seed": seed, "mean_ccel": site.reference_ccel}
        sensor = config.get("sensor", simulated) if isinstance(config, dict) else None
        if not isinstance(sensor, dict):
            raise ValueError(f"{file}: holds no JSON object with a table sensor; mend it, or delete it for a new one")
        sensors[cell] = sensor
    return sensors


def _write_nodes(config: GatewayConfig, access: Access, filter_set: bytes, key: Ed25519PrivateKey) -> None:
    """Each node's file, and filters for those that have none yet.

    Raises:
        ValueError: they cannot be written, or a file of before holds no sensor; one line that names file and remedy.
    """
    files = config.state / "nodes"
    sensors = sensors_of(files, config.site)
    try:
        write_node_files(files, config.site, access, filter_set, keys.public_hex(key), sensors)
    except OSError as error:
        raise ValueError(f"{files}: {error.strerror or error}; check the folder and its free space") from None
    log.info("%s: each node's configuration, with a simulated sensor unless it names another, and filters", files)


def _site_key(store: Store, config: GatewayConfig) -> Ed25519PrivateKey:
    """The key that signed what nodes hold; a new one only for a site where nothing was ever sent."""
    active = store.active_model()
    if active is None:
        return keys.load_or_make(config.state)
    key = keys.load(config.state)
    keys.check_signed(config.state, key, active.filter_set)
    return key


def _new_run(store: Store, config: GatewayConfig) -> int:
    """The number of this start, above that of every cycle in the store, also when the file of the last one is lost."""
    return next_run(config.state, store.last_run() or 0)


def _model_in_force(store: Store, config: GatewayConfig, key: Ed25519PrivateKey, stage: Stage) -> StoredModel:
    """The active model of the store; where there is none, one to start with, which is active then.

    When the file names another spec than the active model's, a model of it is ordered to be rolled out.
    """
    active, ordered = store.active_model(), store.latest_model(PUSHED)
    if ordered and ordered.model.spec_name != config.spec:
        store.set_status(*_numbers(ordered), REFUSED, f"the gateway's file names spec {config.spec}")
        ordered = None
    if active and active.model.spec_name == config.spec:
        return active
    if ordered is None:
        start = Order(choose_model(config.spec, config.site, 0, stage), f"{config.spec} to start with")
        ordered = place(store, key, start, 0, time.time())
    if active:
        return active
    store.set_status(*_numbers(ordered), ACTIVE)
    return ordered


def _numbers(stored: StoredModel) -> tuple[int, int]:
    return stored.model.filters.version, stored.model.head.revision


class Shown:
    """Prints outcomes; one that cannot be printed is said once, and stops no decision.

    Attributes:
        count: outcomes so far.
    """

    def __init__(self, as_json: bool):
        """Nothing is printed yet."""
        self.count = 0
        self._as_json = as_json
        self._fault = False

    def __call__(self, outcome: Outcome) -> None:
        """Print one.

        Raises:
            BrokenPipeError: nobody reads any more.
        """
        self.count += 1
        try:
            print(json.dumps(cycle_line(outcome)) if self._as_json else _line(outcome), flush=True)
            self._fault = False
        except BrokenPipeError:
            raise
        except OSError as error:
            if not self._fault:
                log.error("decisions cannot be printed: %s", error.strerror or error)
            self._fault = True


def _line(outcome: Outcome) -> str:
    record, decided = outcome.record, outcome.decision
    nodes, knows = int(record.pooled.sum()), (record.features != NOTHING).any()
    word = f"abnormal at block {decided.where}" if decided.abnormal else "normal" if knows else "nothing heard"
    heard = f"{nodes} nodes spoke" if record.proofs is not None else f"{nodes} nodes"
    return (
        f"cycle {record.cycle}: {word}, score {decided.scores[1]:.3f}, {heard}, {record.late} late, "
        f"{outcome.exact.equal} of {outcome.exact.compared} features exact"
    )
