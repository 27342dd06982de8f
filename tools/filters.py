"""`thermesh filters`: which filters are in use and on their way, node by node; sends others, or those before again."""

import json
import time
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gateway import keys, running
from gateway.config import GatewayConfig, load_config
from gateway.model import Filters, Model, ModelError
from gateway.rollouts import Order, place
from gateway.site import Site
from gateway.store import NOTE_LEN_MAX, PUSHED, RETIRED, Store, StoredModel
from gateway.store_blobs import pack_head
from protocol.grid import node_name

# Filters of the largest shape take less.
FILE_SIZE_MAX = 1 << 20
MODELS_SHOWN = 20
_SILENT = ", and has not written down how things stand: see its log"
FAULTY_SHOWN = 5
# How far a node is with the newest filters, and the sign for it in the picture.
SIGNS = {"confirmed": "#", "trial": "t", "staged": "s", "returned": "r", "older": "-", "unheard": "?"}
ENCRYPTION = {"psk": "by TLS with a key", "certificate": "by TLS with a certificate", "none": "NOT ENCRYPTED"}


class FiltersError(ValueError):
    """What was asked cannot be done; one line that names field, value and remedy."""


def status(config: Path) -> dict[str, Any]:
    """All that is known of a site's filters.

    Returns:
        running: whether a gateway runs with this file now.
        active: filters and head that decide, None before the first start.
        rollout: the newest filters: their version, state ("on its way", "decides", "given up" or "waiting" for a
            gateway to run), how many nodes are how far (the words of SIGNS); None before the first start.
        nodes: by name what each said last (filters, highest, phase, refused) and `word`, how far it is.
        learning: state, cycles_left, done, steps, last; None before the first start.
        reports: late (stored in no cycle) and gaps, counted since the start; None before the first start.
        store: unstored (cycles since the start), fault ("" when the last one was stored); None before the first start.
        quarantine: by name how many messages of a node that sends too much were dropped; it is not listened to.
        faults: by name and kind what came from nodes and was of no use, those with the most first, 100 at most.
        encryption: of the connections to the broker: `gateway`, one of ENCRYPTION, and `nodes`, how many by the same
            words; None before the first start.
        models: every model that is stored, the oldest first.

    Raises:
        ValueError: the gateway's file, its store or its state folder cannot be used.
    """
    loaded = load_config(config)
    with Store(loaded.state, loaded.site) as store:
        models = [_line(stored) for stored in store.models()]
    active = next((model for model in models if model["status"] == "active"), None)
    runs, facts = running.is_running(loaded.state), running.read(loaded.state)
    nodes = _nodes(loaded.site, facts)
    rollout = _rollout(models, active, nodes, facts)
    return {
        "running": runs,
        "active": active and {key: active[key] for key in ("filters", "head", "spec")},
        "rollout": rollout,
        "nodes": nodes,
        "learning": facts and facts["learning"],
        "reports": facts and facts.get("reports"),
        "store": facts and facts.get("store"),
        "quarantine": facts.get("quarantine", {}) if facts else {},
        "faults": facts.get("faults", {}) if facts else {},
        "encryption": facts and facts.get("encryption"),
        "models": models,
    }


def push(config: Path, version: int | None, file: Path | None) -> dict[str, Any]:
    """Order that filters are sent to all nodes, under the next version; by default those in use.

    Args:
        config: the gateway's file.
        version: of a stored model, whose filters and head are sent again.
        file: filters as JSON, as `thermesh demo --out` writes them; the head stays the one in use.

    Returns:
        filters, head: the new numbers; source: what was sent; running: whether a gateway runs that does it now.

    Raises:
        ValueError: there is no such model or file, or the store cannot be used.
    """
    if version is not None and file is not None:
        raise FiltersError(f"--version {version}, --file {file}: name one of the two")
    loaded = load_config(config)
    with Store(loaded.state, loaded.site) as store:
        active = active_model(store)
        if file is not None:
            model, source = _from_file(file, loaded.spec, active), f"from file {file.name}"
        else:
            stored = active if version is None else stored_model(store, version)
            model, source = stored.model, f"weights of filters {stored.model.filters.version} again"
        return place_order(store, loaded, model, source)


def rollback(config: Path) -> dict[str, Any]:
    """Order that the weights before are sent to all nodes, under the next version: nodes take no older one.

    Those before are the last active model's that differ from the active one's; while a new one is on its way and does
    not decide yet, the active one's.

    Returns:
        As `push`.

    Raises:
        ValueError: there was no model before, or the store cannot be used.
    """
    loaded = load_config(config)
    with Store(loaded.state, loaded.site) as store:
        active = active_model(store)
        before = active if store.model_keys(PUSHED) else _before(store, active)
        if before is None:
            remedy = "`thermesh filters status` lists what is stored"
            raise FiltersError(f"{store.path}: no model was active before the one in use; {remedy}")
        source = f"back to the weights of filters {before.model.filters.version}"
        return place_order(store, loaded, before.model, source)


def _before(store: Store, active: StoredModel) -> StoredModel | None:
    """The latest model that decided before with other weights: the same ones may have been sent several times."""
    for key in reversed(store.model_keys(RETIRED)):
        stored = store.model(*key)
        if stored and _weights(stored.model) != _weights(active.model):
            return stored
    return None


def _weights(model: Model) -> tuple[str, bytes, bytes]:
    return model.spec_name, replace(model.filters, version=0).pack(""), pack_head(model.head)


def lines(found: dict[str, Any], site: Site) -> list[str]:
    """What people read of what `status` gives."""
    active, rollout, learning, reports = (found[key] for key in ("active", "rollout", "learning", "reports"))
    store = found["store"]
    silent = found["running"] and learning is None
    text = [f"gateway   {'runs' if found['running'] else 'does not run'}{_SILENT if silent else ''}"]
    if store and store["fault"]:
        text.append(f"store     takes no cycles, {store['unstored']} since the start: {store['fault']}")
    if reports and (reports["late"] or reports["gaps"]):
        text.append(f"reports   {reports['late']} in no cycle and {reports['gaps']} gaps since the start")
    if active:
        text.append(f"in use    filters {active['filters']} with head {active['head']}, spec {active['spec']}")
    if rollout:
        counts = ", ".join(f"{count} {word}" for word, count in rollout["nodes"].items() if count)
        text.append(f"newest    filters {rollout['filters']}: {rollout['state']}; nodes: {counts}")
        text += [f"          {row}" for row in _picture(found["nodes"], site)]
        text.append("          " + "  ".join(f"{sign} {word}" for word, sign in SIGNS.items()))
    if found["encryption"]:
        text.append(f"broker    {_encryption_line(**found['encryption'])}")
    if learning:
        text.append(f"learning  {_learning_line(learning)}")
    for name, dropped in found["quarantine"].items():
        text.append(f"flood     {name} sends more than it can need and is not listened to: {dropped} messages dropped")
    for name, kinds in list(found["faults"].items())[:FAULTY_SHOWN]:
        text.append(f"faults    {name}: {', '.join(f'{count} {kind}' for kind, count in kinds.items())}")
    text.append(f"{'filters':>7} {'head':>6}  {'status':8}  {'made (UTC)':19}  {'before':>8}  {'after':>8}  note")
    for model in found["models"][-MODELS_SHOWN:]:
        before, after = (_percent(model[key]) for key in ("accuracy_before", "accuracy_after"))
        numbers = f"{model['filters']:7} {model['head']:6}  {model['status']:8}  {model['created'][:19]}"
        text.append(f"{numbers}  {before:>8}  {after:>8}  {model['note']}".rstrip())
    return text


def _encryption_line(gateway: str, nodes: dict[str, int]) -> str:
    counts = ", ".join(f"{count} {ENCRYPTION.get(word, word)}" for word, count in sorted(nodes.items()))
    return f"gateway {ENCRYPTION.get(gateway, gateway)}; nodes: {counts or 'none heard yet'}"


def order_line(done: dict[str, Any]) -> str:
    """What people read of what `push` and `rollback` give."""
    what = f"filters {done['filters']} with head {done['head']} ({done['source']})"
    if done["running"]:
        return f"{what}: ordered; the gateway sends them, `thermesh filters status` shows how far they are"
    return f"{what}: ordered; no gateway runs with this file now, they are sent at its next start"


def place_order(store: Store, config: GatewayConfig, model: Model, source: str) -> dict[str, Any]:
    """Order that a model is sent to all nodes, under the next version.

    Args:
        store: of the site.
        config: of the gateway.
        model: with any numbers.
        source: where it comes from, for people.

    Returns:
        As `push`.

    Raises:
        ValueError: it is of another spec, or the store or the key cannot be used.
    """
    if model.spec_name != config.spec:
        raise FiltersError(f"spec: these weights are of {model.spec_name}, the gateway's file says {config.spec}")
    facts = None
    with suppress(running.RunningError):  # damaged: the service numbers the order anew where nodes know of more
        facts = running.read(config.state)
    held = [node for node in facts["nodes"].values() if node] if facts else []
    highest = max((max(node["filters"], node["highest"]) for node in held), default=0)
    order = Order(model, source[:NOTE_LEN_MAX])
    placed = place(store, keys.load(config.state), order, highest, time.time()).model
    return {
        "filters": placed.filters.version,
        "head": placed.head.revision,
        "source": source,
        "running": running.is_running(config.state),
    }


def active_model(store: Store) -> StoredModel:
    """The model in use.

    Raises:
        FiltersError: there is none yet.
    """
    active = store.active_model()
    if active is None:
        raise FiltersError(f"{store.path}: no model is in use yet; run `thermesh gateway` with this file first")
    return active


def stored_model(store: Store, version: int) -> StoredModel:
    """The stored model with these filters, of several heads the latest.

    Raises:
        FiltersError: there is none.
    """
    found = [key for key in store.model_keys() if key[0] == version]
    stored = store.model(*found[-1]) if found else None
    if stored is None:
        there = ", ".join(str(key[0]) for key in store.model_keys()[-MODELS_SHOWN:])
        raise FiltersError(f"--version: {version} is not stored; there are {there}")
    return stored


def _from_file(file: Path, spec: str, active: StoredModel) -> Model:
    """The filters of a file with the head that is in use."""
    try:
        with file.open("rb") as opened:
            data = opened.read(FILE_SIZE_MAX + 1)
    except OSError as error:
        raise FiltersError(f"--file {file}: cannot be read: {error.strerror}; name a JSON file of filters") from None
    try:
        if len(data) > FILE_SIZE_MAX:
            raise ValueError(f"is longer than {FILE_SIZE_MAX} bytes")
        return Model(spec, Filters.from_json(json.loads(data)), active.model.head)
    except ModelError as error:
        raise FiltersError(f"--file {file}: {error}") from None
    except (ValueError, RecursionError) as error:
        remedy = "write filters as `thermesh demo --out` does"
        raise FiltersError(f"--file {file}: is no JSON: {str(error)[:100]}; {remedy}") from None


def _nodes(site: Site, facts: dict[str, Any] | None) -> dict[str, dict[str, Any]]:
    """What each node of the site said last, all None where it said nothing."""
    known = facts["nodes"] if facts else {}
    nothing = dict.fromkeys(("filters", "highest", "phase", "refused"))
    return {name: dict(known.get(name) or nothing) for name in (node_name(*cell) for cell in site.cells)}


def _rollout(
    models: list[dict[str, Any]],
    active: dict[str, Any] | None,
    nodes: dict[str, dict[str, Any]],
    facts: dict[str, Any] | None,
) -> dict[str, Any] | None:
    """How far the newest filters are; adds to each node its word."""
    waiting = [model["filters"] for model in models if model["status"] == PUSHED]
    known = facts["rollout"] if facts else None
    if waiting and not (known and known["filters"] == waiting[-1]):
        known = {"filters": waiting[-1], "state": "waiting"}
    if known is None and active:
        known = {"filters": active["filters"], "state": "decides"}
    for node in nodes.values():
        node["word"] = _word(node, known["filters"] if known else 0)
    if known is None:
        return None
    counts = Counter(node["word"] for node in nodes.values())
    return {**known, "nodes": {word: counts[word] for word in SIGNS}}


def _word(node: dict[str, Any], newest: int) -> str:
    if node["filters"] is None:
        return "unheard"
    if node["phase"] == "returned":
        return "returned"
    if node["filters"] == newest:
        return "trial" if node["phase"] == "trial" else "confirmed"
    return "staged" if node["phase"] == "staged" and node["highest"] == newest else "older"


def _picture(nodes: dict[str, dict[str, Any]], site: Site) -> list[str]:
    """The site as rows of signs, a blank for a hole."""
    grid = [[" "] * site.cols for _ in range(site.rows)]
    for row, col in site.cells:
        grid[row][col] = SIGNS[nodes[node_name(row, col)]["word"]]
    return [" ".join(row).rstrip() for row in grid]


def _learning_line(learning: dict[str, Any]) -> str:
    last = f"; the last: {learning['last']}" if learning["last"] else ""
    if learning["state"] == "running":
        return f"runs, {learning['done']} of {learning['steps']} steps{last}"
    if learning["state"] == "off":
        return "is off: learning.every_cycles is 0"
    return f"again after {learning['cycles_left']} more cycles{last}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f} %"


def _line(stored: StoredModel) -> dict[str, Any]:
    return {
        "filters": stored.model.filters.version,
        "head": stored.model.head.revision,
        "spec": stored.model.spec_name,
        "status": stored.status,
        "created": datetime.fromtimestamp(stored.created_s, UTC).isoformat(timespec="seconds"),
        "accuracy_before": stored.accuracy_before,
        "accuracy_after": stored.accuracy_after,
        "note": stored.note,
    }
