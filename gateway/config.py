"""The gateway's configuration: one TOML file, read once, checked once.

    site   = "site.toml"     the site's file, relative to this one
    spec   = "seed"          or "lean"
    broker = "auto"          or "mosquitto", "amqtt", "HOST:PORT"
    state  = "state"         folder for what must outlive a restart, relative to this file

    [timing]                 ms, 1..65535 each: the longest waits (gateway/gateway.py)
    exchange_ms = 2500
    gather_ms   = 1500
    report_ms   = 1500

    [decision]
    threshold = 0.5
    band      = 0.1

Only `site` has to be there.
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.decision import Limits, check_limits
from gateway.gateway import Timing
from gateway.model import ModelError, spec_named
from gateway.site import Site, load_site

_MS_MAX = 65_535
_TEXTS = {"spec": "seed", "broker": "auto", "state": "state"}
_TIMES = ("exchange_ms", "gather_ms", "report_ms")


class ConfigError(ValueError):
    """One line: file, field, value and what would be right."""


@dataclass(frozen=True)
class GatewayConfig:
    """What a gateway serves, and how."""

    site: Site
    spec: str
    broker: str
    state: Path
    timing: Timing
    limits: Limits


def load_config(path: Path) -> GatewayConfig:
    """Read and check a gateway's file and the site file that it names.

    Raises:
        ConfigError, gateway.site.SiteError: one line that names file, field, value and remedy.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {getattr(error, 'strerror', None) or 'is not UTF-8 text'}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: {error}") from None
    try:
        return _config_of_table(table, path.parent)
    except (ConfigError, ModelError) as error:
        raise ConfigError(f"{path}: {error}") from None


def next_run(state: Path) -> int:
    """The number of this start, one more than the last; runs only rise, so that old frames are told from new.

    Raises:
        ConfigError: the state folder cannot be used.
    """
    file = state / "run"
    try:
        state.mkdir(parents=True, exist_ok=True)
        run = (int(file.read_text()) if file.exists() else 0) + 1
        file.with_suffix(".new").write_text(f"{run}\n")
        file.with_suffix(".new").replace(file)
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror or error}") from None
    except ValueError:
        raise ConfigError(f"{file}: holds no number; write the number of the last run there") from None
    return run & 0xFFFFFFFF


def _config_of_table(table: dict[str, Any], folder: Path) -> GatewayConfig:
    _refuse_unknown("", table, {"site", "timing", "decision", *_TEXTS})
    texts = {name: table.get(name, default) for name, default in _TEXTS.items()}
    for name, value in {"site": table.get("site"), **texts}.items():
        if not isinstance(value, str) or not value:
            raise ConfigError(f"{name}: {value!r} is no text; write {name} = \"...\"")
    site = load_site(folder / table["site"])
    times = _section(table, "timing", dict.fromkeys(_TIMES), int)
    for name, value in times.items():
        if not 1 <= value <= _MS_MAX:
            raise ConfigError(f"timing.{name}: {value} is not in 1..{_MS_MAX}")
    decision = _section(table, "decision", Limits()._asdict(), float)
    try:
        limits = check_limits(Limits(**decision))
    except ValueError as error:
        raise ConfigError(f"decision.{error}") from None
    return GatewayConfig(
        site,
        spec_named(texts["spec"]).name,
        texts["broker"],
        folder / texts["state"],
        Timing(site.cycle_s * 1000, **times),
        limits,
    )


def _section(table: dict[str, Any], name: str, known: dict[str, Any], kind: type) -> dict[str, Any]:
    """The section's values, converted to `kind`; keys that are not there stay away."""
    section = table.get(name, {})
    if not isinstance(section, dict):
        raise ConfigError(f"{name}: is no table; write [{name}]")
    _refuse_unknown(f"{name}.", section, set(known))
    for key, value in section.items():
        if isinstance(value, bool) or not isinstance(value, int | kind):
            raise ConfigError(f"{name}.{key}: {value!r} is no number")
    return {key: kind(value) for key, value in section.items()}


def _refuse_unknown(place: str, table: dict[str, Any], known: set[str]) -> None:
    for key in table:
        if key not in known:
            raise ConfigError(f"{place}{key}: is no field of this file; fields are {', '.join(sorted(known))}")
