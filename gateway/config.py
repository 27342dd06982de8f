"""The gateway's configuration: one TOML file, read once, checked once.

    site   = "site.toml"     the site's file, relative to this one
    spec   = "seed"          or "lean" or "zone"
    mode   = "always"        when nodes speak: or "change" (docs/change.md), or "event", with a spec that has silent
                             zones (docs/zones.md)
    broker = "auto"          or "mosquitto", "amqtt", "HOST:PORT"
    plain  = true            reach HOST:PORT without TLS, and let nodes; false: with it. Where this is not written,
                             without TLS on the loopback only. The port is that of the listener for TLS then, and nodes
                             with keys find theirs one above it
    state  = "state"         folder for what must outlive a restart, relative to this file

    [timing]                 ms, 1..65535 each: the longest waits (gateway/gateway.py)
    exchange_ms = 2500       together, exchange_ms once for each exchange, they must fit the site's
    gather_ms   = 1500       cycle_s; defaults shrink with a short one, what is written here does not
    report_ms   = 1500

    [decision]
    threshold = 0.5
    band      = 0.1

    [event]
    copies    = 0            how often nodes say what matters in mode event: 0 over brokers, 2 where links lose 10 % of
                             the frames, 4 where they lose 30 %; 0..4 (firmware/watch.py). Takes two exchanges more

    [learning]
    every_cycles = 240       after so many stored cycles the gateway tries to learn from them; 0: never
    cycles_max   = 2880      from so many at most, the latest

    [store]
    keep_days = 400          so long cycles are kept, with decisions and labels (gateway/store_age.py); 0: for ever

Only `site` has to be there.
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.decision import Limits, check_limits
from gateway.files import write_whole
from gateway.gateway import Timing
from gateway.learning import Plan, check_plan
from gateway.model import SPECS, ModelError, ModelSpec, spec_named
from gateway.site import FILE_SIZE_MAX, Site, load_site
from gateway.store_age import Keeping, check_keeping
from protocol.beacon import CHALLENGE_EXCHANGES, COPIES_MAX, MODE_ALWAYS, MODE_CHANGE, MODE_EVENT

# As files and commands call them.
MODES = {"always": MODE_ALWAYS, "change": MODE_CHANGE, "event": MODE_EVENT}
# In the state folder: the number of the last start.
RUN = "run"
_MS_MAX = 65_535
_TEXTS = {"spec": "seed", "mode": "always", "broker": "auto", "state": "state"}
_TIMES = ("exchange_ms", "gather_ms", "report_ms")


class ConfigError(ValueError):
    """One line: file, field, value and what would be right."""


@dataclass(frozen=True)
class GatewayConfig:
    """What a gateway serves, and how; `site_file` says where nodes stand."""

    site_file: Path
    site: Site
    spec: str
    mode: str
    broker: str
    plain: bool | None
    state: Path
    timing: Timing
    copies: int
    limits: Limits
    learning: Plan
    keeping: Keeping


def load_config(path: Path) -> GatewayConfig:
    """Read and check a gateway's file and the site file that it names.

    Raises:
        ConfigError, gateway.site.SiteError: one line that names file, field, value and remedy.
    """
    try:
        return _config_of_table(_read(path), path.parent)
    except (ConfigError, ModelError) as error:
        raise ConfigError(f"{path}: {error}") from None


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(FILE_SIZE_MAX + 1)
    except OSError as error:
        remedy = 'write site = "site.toml" there, at least, or name another file'
        raise ConfigError(f"cannot be read: {error.strerror}; {remedy}") from None
    if len(data) > FILE_SIZE_MAX:
        raise ConfigError(f"is longer than {FILE_SIZE_MAX} bytes; no gateway's file needs that")
    try:
        return tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:  # bad TOML, bad UTF-8, numbers or nesting beyond Python's limits
        raise ConfigError(f"is not TOML: {str(error)[:200]}") from None


def check_mode(name: str, spec: ModelSpec) -> str:
    """The name itself, of a mode that nodes of the spec can do.

    Raises:
        ConfigError: there is none of this name, or it needs another spec.
    """
    if name not in MODES:
        raise ConfigError(f"mode: {name[:40]!r} is none; write {', '.join(MODES)}")
    if MODES[name] == MODE_EVENT and not spec.has_sign:
        able = " or ".join(f'"{other.name}"' for other in SPECS.values() if other.has_sign)
        raise ConfigError(f'mode: "{name}": spec "{spec.name}" has no zones to be silent in; write spec = {able}')
    return name


def check_copies(copies: int, mode: str) -> int:
    """The number itself, of copies that nodes of a mode can say.

    Raises:
        ConfigError: it is out of range, or of another mode.
    """
    if not 0 <= copies <= COPIES_MAX:
        raise ConfigError(f"event.copies: {copies} is not in 0..{COPIES_MAX}")
    if copies and MODES[mode] != MODE_EVENT:
        raise ConfigError(f'event.copies: {copies}: mode "{mode}" has none; write mode = "event" or copies = 0')
    return copies


def last_run(state: Path) -> int:
    """The number of the last start in a state folder, 0 before the first.

    Raises:
        OSError, ValueError: its file cannot be read, or holds no number.
    """
    file = state / RUN
    return int(file.read_text()) if file.exists() else 0


def next_run(state: Path, floor: int = 0) -> int:
    """The number of this start, above that of the last and above `floor`; runs only rise, so that old frames are told.

    Raises:
        ConfigError: the state folder cannot be used.
    """
    file = state / RUN
    try:
        state.mkdir(parents=True, exist_ok=True)
        run = max(last_run(state), floor) + 1
        write_whole(file, f"{run}\n".encode())
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror or error}; check the folder and its free space") from None
    except ValueError:
        raise ConfigError(f"{file}: holds no number; write the number of the last run there") from None
    return run & 0xFFFFFFFF


def _config_of_table(table: dict[str, Any], folder: Path) -> GatewayConfig:
    _refuse_unknown("", table, {"site", "plain", "timing", "decision", "event", "learning", "store", *_TEXTS})
    if "site" not in table:
        raise ConfigError('site: is missing; write site = "site.toml", the file that says where nodes stand')
    texts = {name: table.get(name, default) for name, default in _TEXTS.items()}
    for name, value in {"site": table["site"], **texts}.items():
        if not isinstance(value, str) or not value or not value.isprintable():
            raise ConfigError(f'{name}: {value!r} is no text; write {name} = "..."')
    plain = table.get("plain")
    if not isinstance(plain, bool | None):
        raise ConfigError(f"plain: {plain!r} is not true or false")
    site_file, spec = folder / table["site"], spec_named(texts["spec"])
    site = load_site(site_file)
    mode = check_mode(texts["mode"], spec)
    copies = check_copies(_section(table, "event", {"copies": 0}, int).get("copies", 0), mode)
    exchanges = spec.exchanges + (CHALLENGE_EXCHANGES if copies else 0)
    computed = f"{spec.name} with event.copies = {copies}" if copies else spec.name
    timing = _timing(_section(table, "timing", dict.fromkeys(_TIMES), int), site, computed, exchanges)
    decision = _section(table, "decision", Limits()._asdict(), float)
    try:
        limits = check_limits(Limits(**decision))
    except ValueError as error:
        raise ConfigError(f"decision.{error}") from None
    plan = _section(table, "learning", Plan()._asdict(), int)
    try:
        learning = check_plan(Plan(**plan))
    except ValueError as error:
        raise ConfigError(f"learning.{error}") from None
    try:
        keeping = check_keeping(Keeping(**_section(table, "store", Keeping()._asdict(), int)))
    except ValueError as error:
        raise ConfigError(f"store.{error}") from None
    state = folder / texts["state"]
    numbers = timing, copies, limits, learning, keeping
    return GatewayConfig(site_file, site, spec.name, mode, texts["broker"], plain, state, *numbers)


def _timing(written: dict[str, int], site: Site, spec: str, exchanges: int) -> Timing:
    """The times as written; the others by default, or shorter in proportion where the cycle leaves less room."""
    for name, value in written.items():
        if not 1 <= value <= _MS_MAX:
            raise ConfigError(f"timing.{name}: {value} is not in 1..{_MS_MAX}")
    period_ms = site.cycle_s * 1000
    counts = dict.fromkeys(_TIMES, 1) | {"exchange_ms": exchanges}
    defaults = {name: Timing._field_defaults[name] for name in _TIMES if name not in written}
    room_ms = period_ms - sum(counts[name] * value for name, value in written.items())
    wanted_ms = sum(counts[name] * value for name, value in defaults.items())
    if room_ms < wanted_ms:
        defaults = {name: max(1, value * room_ms // wanted_ms) for name, value in defaults.items()}
    timing = Timing(period_ms, **written, **defaults)
    longest_ms = timing.cycle_ms(exchanges)
    if longest_ms > period_ms:
        times = ", ".join(f"timing.{name} = {value}" for name, value in written.items())
        raise ConfigError(
            f"{times}: a cycle of {spec} could take {longest_ms} ms, longer than the site's cycle_s = "
            f"{site.cycle_s}; write shorter times or a longer cycle_s"
        )
    return timing


def _section(table: dict[str, Any], name: str, known: dict[str, Any], kind: type) -> dict[str, Any]:
    """The section's values, converted to `kind`; keys that are not there stay away."""
    section = table.get(name, {})
    if not isinstance(section, dict):
        raise ConfigError(f"{name}: is no table; write [{name}]")
    _refuse_unknown(f"{name}.", section, set(known))
    for key, value in section.items():
        if isinstance(value, bool) or not isinstance(value, int | kind):
            raise ConfigError(f"{name}.{key}: {value!r} is no number")
    try:
        return {key: kind(value) for key, value in section.items()}
    except OverflowError:
        raise ConfigError(f"{name}: a number there has far too many digits") from None


def _refuse_unknown(place: str, table: dict[str, Any], known: set[str]) -> None:
    for key in table:
        if key not in known:
            raise ConfigError(f"{place}{key}: is no field of this file; fields are {', '.join(sorted(known))}")
