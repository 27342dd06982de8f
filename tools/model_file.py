"""`thermesh filters export` and `import`: a model as a signed file, to another site or from one."""

from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from gateway import keys, model_file
from gateway.config import GatewayConfig, load_config
from gateway.model import spec_named
from gateway.store import Store
from tools.filters import FiltersError, active_model, place_order, stored_model


def write(config: Path, version: int | None, file: Path) -> dict[str, Any]:
    """Write a model as a file, signed with the site's key; by default the one in use.

    Args:
        config: the gateway's file.
        version: of a stored model's filters.
        file: becomes the model's; nothing may be there yet.

    Returns:
        file, bytes, filters, head, spec, site; public (the key that those have to trust who take it).

    Raises:
        ValueError: there is no such model, or the file cannot be written.
    """
    loaded = load_config(config)
    with Store(loaded.state, loaded.site) as store:
        model = (active_model(store) if version is None else stored_model(store, version)).model
    key = keys.load(loaded.state)
    data = model_file.pack(model, loaded.site, key)
    try:
        with file.open("xb") as opened:
            try:
                opened.write(data)
                opened.flush()
            except OSError:
                file.unlink()  # half of it would only be in the way of the next try
                raise
    except OSError as error:
        raise FiltersError(f"{file}: cannot be written: {error.strerror}; name a new file") from None
    return {
        "file": str(file),
        "bytes": len(data),
        "filters": model.filters.version,
        "head": model.head.revision,
        "spec": model.spec_name,
        "site": loaded.site.name,
        "public": keys.public_hex(key),
    }


def take(config: Path, file: Path, trust: str) -> dict[str, Any]:
    """Order that a file's model is sent to all nodes, under the next version, signed with the site's own key.

    Args:
        config: the gateway's file.
        file: as `write` writes it.
        trust: the key that has to have signed it, 64 hex digits.

    Returns:
        As `tools.filters.push`.

    Raises:
        ValueError: it is not taken; nothing has changed.
    """
    loaded = load_config(config)
    trusted = _key_of(trust)
    with Store(loaded.state, loaded.site) as store:
        active_model(store)
        found = _unpacked(file, trusted, loaded)
        origin = f"filters {found.model.filters.version} of site {found.site_name!r}"
        return place_order(store, loaded, found.model, f"from model file {file.name}: {origin}")


def written_lines(facts: dict[str, Any]) -> list[str]:
    """What was written, and what to do with it."""
    what = f"filters {facts['filters']} with head {facts['head']}, spec {facts['spec']}, of site {facts['site']}"
    take_it = f"thermesh filters import {Path(facts['file']).name} --trust {facts['public']} --config gateway.toml"
    return [f"{facts['file']}: {facts['bytes']:,} bytes, {what}", f"To take it elsewhere: {take_it}"]


def _key_of(text: str) -> Ed25519PublicKey:
    try:
        return Ed25519PublicKey.from_public_bytes(bytes.fromhex(text))
    except ValueError:
        remedy = "write the 64 hex digits that `thermesh keys` shows as public where the file was made"
        raise FiltersError(f"--trust: {text[:80]!r} is no public key; {remedy}") from None


def _unpacked(file: Path, trusted: Ed25519PublicKey, config: GatewayConfig) -> model_file.Foreign:
    spec = spec_named(config.spec)
    limit = model_file.size_max(config.site, spec)
    try:
        with file.open("rb") as opened:
            data = opened.read(limit + 1)
    except OSError as error:
        raise FiltersError(f"{file}: cannot be read: {error.strerror}; name a file of `filters export`") from None
    if len(data) > limit:
        raise FiltersError(f"{file}: is longer than {limit} bytes; no model of spec {spec.name} for this site is")
    try:
        return model_file.unpack(data, trusted, config.site, spec)
    except ValueError as error:
        raise FiltersError(f"{file}: {error}") from None
