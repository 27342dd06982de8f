"""`thermesh node add|replace|remove`: a node more, another device in its place, or a node less, while the gateway runs.

The site's file comes first, then what belongs to the node alone, then the order to the gateway: after whatever ends the
command in between, the next start of the gateway finds a site that holds together, or names what is missing.
"""

import re
from pathlib import Path
from typing import Any

from gateway import passwords, running
from gateway.config import GatewayConfig, load_config
from gateway.site import Site, SiteError
from gateway.site_file import add_node, cell_named, remove_node
from protocol.grid import node_name
from tools.broker_config import Listeners, write_config

ADDED, REPLACED, REMOVED = "added", "replaced", "removed"
MOSQUITTO = "mosquitto"
# Plain, TLS and PSK, in this order.
_LISTENERS = 3
_LISTENER = re.compile(r"^listener (\d{1,5}) (\S+)$", re.MULTILINE)


def add(config: Path, name: str) -> dict[str, Any]:
    """Put a node where the site has a hole.

    Args:
        config: the gateway's file.
        name: n-RR-CC.

    Returns:
        node, change (added, replaced or removed), nodes (how many the site has now), file (the node's, None when it is
        removed), restart (names of the others whose files change with it), password ("new", "dropped" or None: the
        broker asks for none), broker (folder of mosquitto's files that were written, None where none are), running.

    Raises:
        ValueError: the gateway's file, the site's or the state folder cannot be used, or the site has no such hole.
    """
    loaded = load_config(config)
    site = add_node(loaded.site_file, name)
    passwords.forget(loaded.state, name)
    _forget_files(loaded, name)
    return _tell(config, loaded, site, name, ADDED)


def replace(config: Path, name: str) -> dict[str, Any]:
    """Prepare another device for a node's place: it starts with the filters in use, and its password is a new one.

    Args, Returns and Raises as `add`; the sensor in the node's file stays.
    """
    loaded = load_config(config)
    if cell_named(loaded.site, name) not in loaded.site.cells:
        raise SiteError(f"node: {name} is a hole in {loaded.site_file}; `thermesh node add` puts a node there")
    passwords.forget(loaded.state, name)
    _forget_files(loaded, name, but=".json")
    return _tell(config, loaded, loaded.site, name, REPLACED)


def remove(config: Path, name: str) -> dict[str, Any]:
    """Make a hole where a node stood, or end what an earlier call of this began. Args, Returns and Raises as `add`."""
    loaded = load_config(config)
    site = loaded.site if _is_half_removed(loaded, name) else remove_node(loaded.site_file, name)
    passwords.forget(loaded.state, name)
    _forget_files(loaded, name)
    return _tell(config, loaded, site, name, REMOVED)


def lines(found: dict[str, Any]) -> list[str]:
    """What people read of that: what was done, and what is left to do, in its order."""
    text = [f"{found['node']} is {found['change']}; the site has {found['nodes']} nodes"]
    # On SIGHUP mosquitto compares passwords anew, and keys not: who is in with the old key would stay.
    again = "restart mosquitto" if found["change"] == REPLACED else "kill -HUP PID of mosquitto"
    if found["broker"]:
        text.append(f"let the broker read {found['broker']} again: {again}")
    elif found["password"]:
        text.append(f"run `thermesh broker config` again with the options of before, then {again}")
    follows = "follows now, in a new run" if found["running"] else "does not run: it follows at its next start"
    text.append(f"the gateway {follows}")
    if found["restart"]:
        text.append(f"then restart with their new files: {', '.join(found['restart'])}")
    if found["file"]:
        text.append(f"then start it with {found['file']}, which the gateway writes; name its sensor there")
    return text


def _is_half_removed(config: GatewayConfig, name: str) -> bool:
    """Whether there is a hole, and something of its node still: a password, files, or rights at the broker."""
    if cell_named(config.site, name) in config.site.cells:
        return False
    rights = config.state / MOSQUITTO / "acl"
    is_user = rights.is_file() and f"user {name}\n" in rights.read_text(encoding="utf-8", errors="replace")
    return is_user or passwords.knows(config.state, name) or any((config.state / "nodes").glob(f"{name}.*"))


def _forget_files(config: GatewayConfig, name: str, but: str = "") -> None:
    """Drop what lies in the state folder of a node that was there before."""
    for file in (config.state / "nodes").glob(f"{name}.*"):
        if file.suffix != but:
            try:
                file.unlink(missing_ok=True)
            except OSError as error:
                raise SiteError(f"{file}: {error.strerror or error}; delete it") from None


def _tell(config: Path, loaded: GatewayConfig, site: Site, name: str, change: str) -> dict[str, Any]:
    """Write what the broker needs, and tell the gateway."""
    asks = (loaded.state / passwords.NAME).exists()
    folder = _write_broker_files(config, loaded, site) if asks else None
    if loaded.state.is_dir():  # else no gateway ever ran
        running.order_to_follow(loaded.state)
    gone = change == REMOVED
    return {
        "node": name,
        "change": change,
        "nodes": len(site.cells),
        "file": None if gone else str(loaded.state / "nodes" / f"{name}.json"),
        "restart": _changed(loaded.site, site),
        "password": ("dropped" if gone else "new") if asks else None,
        "broker": folder and str(folder),
        "running": running.is_running(loaded.state),
    }


def _write_broker_files(config: Path, loaded: GatewayConfig, site: Site) -> Path | None:
    """Mosquitto's files anew where `thermesh broker config` put them by itself; passwords in any case."""
    folder = loaded.state / MOSQUITTO
    file = folder / "mosquitto.conf"
    found = _LISTENER.findall(file.read_text(encoding="utf-8", errors="replace")) if file.is_file() else []
    if len(found) != _LISTENERS:
        passwords.load_or_make(loaded.state, site)
        return None
    (port, plain_address), (tls_port, address), _ = found
    write_config(config, None, Listeners(address, int(port), int(tls_port), plain_address == address))
    return folder


def _changed(before: Site, after: Site) -> list[str]:
    """Whose files are others: they have other neighbours, or come to stand next to the gateway, or no more."""
    both = [cell for cell in after.cells if cell in set(before.cells)]
    entries = set(before.next_to_gateway) ^ set(after.next_to_gateway)
    masks = before.neighbour_masks, after.neighbour_masks
    return [node_name(*cell) for cell in both if cell in entries or masks[0][cell] != masks[1][cell]]
