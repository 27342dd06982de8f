"""`thermesh keys`: the public half of a site's key, which nodes hold; made where there is none yet."""

from pathlib import Path
from typing import Any

from gateway import keys
from gateway.config import load_config


def show(config: Path) -> dict[str, Any]:
    """The site's key without its private half.

    Returns:
        site, path (of the private half), public (64 hex digits, as in each node's file), fingerprint, made (just now).

    Raises:
        ValueError: the gateway's file or the key cannot be used.
    """
    loaded = load_config(config)
    path = loaded.state / keys.NAME
    made = not path.exists()
    key = keys.load_or_make(loaded.state)
    return {
        "site": loaded.site.name,
        "path": str(path),
        "public": keys.public_hex(key),
        "fingerprint": keys.fingerprint(key),
        "made": made,
    }
