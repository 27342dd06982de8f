"""`thermesh backup` and `thermesh restore`."""

import time
from datetime import datetime
from pathlib import Path
from typing import Any

from gateway import backup
from gateway.config import load_config
from tools.model_choice import Stage


def make(config: Path, file: Path, stage: Stage) -> dict[str, Any]:
    """Write a backup of a gateway's state folder.

    Args:
        config: the gateway's file.
        file: becomes the backup.
        stage: opens progress bars.

    Returns:
        file, bytes, site, created_s, run, nodes (whose configuration is in it).

    Raises:
        ValueError: something cannot be read or written; one line.
    """
    loaded = load_config(config)
    manifest = backup.make(loaded.state, loaded.site, file, time.time(), stage("copy the store, pages"))
    return _facts(file, manifest)


def restore(config: Path, file: Path, replace: bool) -> dict[str, Any]:
    """Make a gateway's state folder out of a backup.

    Args:
        config: the gateway's file.
        file: the backup.
        replace: move a store that is there aside.

    Returns:
        As `make`, where run is the one that the next start goes on from, and state (the folder), aside (where what was
        there is now, or None).

    Raises:
        ValueError: the backup or the folder cannot be used; one line.
    """
    loaded = load_config(config)
    manifest = backup.restore(file, loaded.state, loaded.site, replace)
    return _facts(file, manifest) | {"state": str(loaded.state), "aside": manifest["aside"]}


def made_lines(facts: dict[str, Any]) -> list[str]:
    """What was written, and what to do with it."""
    return [
        f"{facts['file']}: {facts['bytes']:,} bytes, {_what(facts)}",
        "It holds the site's private key: keep it where nobody else can read it.",
    ]


def restored_lines(facts: dict[str, Any]) -> list[str]:
    """What lies where now."""
    aside = [f"what was there: {facts['aside']}"] if facts["aside"] else []
    return [f"{facts['state']}: {_what(facts)}", *aside]


def _what(facts: dict[str, Any]) -> str:
    made = datetime.fromtimestamp(facts["created_s"]).astimezone().isoformat(" ", "seconds")
    return f"site {facts['site']} as of {made}, up to run {facts['run']}, key, configuration of {facts['nodes']} nodes"


def _facts(file: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    nodes = sum(name.startswith(f"{backup.NODES}/") for name in manifest["files"])
    said = {name: manifest[name] for name in ("site", "created_s", "run")}
    return {"file": str(file), "bytes": file.stat().st_size, **said, "nodes": nodes}
