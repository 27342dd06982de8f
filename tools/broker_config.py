"""`thermesh broker config`: what a production mosquitto needs to let in a site's nodes and gateway, and nobody else."""

import base64
import hashlib
import re
import secrets
import shlex
from pathlib import Path
from typing import Any, NamedTuple

from gateway import passwords
from gateway.broker import LOOPBACK, QUEUE_LEN_MAX, user_line
from gateway.config import load_config
from gateway.private_file import write_private
from gateway.site import Site
from protocol.filter_set import SIZE_MAX
from tools.acl import acl_text

# Whoever comes back after a power cut comes while the broker still holds its dead connection; and some to look in.
CONNECTIONS_EACH, CONNECTIONS_MORE = 2, 16
# The largest message is a filter set; its topic and MQTT's own bytes need a hundred.
PACKET_MAX = SIZE_MAX + 1_024
# mosquitto's own numbers. More rounds protect words that people choose; these are 192 random bits.
ROUNDS, SALT_SIZE = 101, 12
_SALT_DIGITS = SALT_SIZE * 4 // 3

MOSQUITTO_CONFIG = """\
# Written by `thermesh broker config` for site {site}; the next call writes it anew.
listener {port} {address}
max_connections {connections_max}
# Or a node could throw another one out by taking its client id.
use_username_as_clientid true
allow_anonymous false
password_file {folder}/passwords
acl_file {folder}/acl
{user}# Nodes and gateway say again what counts; mosquitto acknowledges before anything is on its disk.
persistence false
max_packet_size {packet_max}
max_queued_messages {queue_len_max}
set_tcp_nodelay true
log_dest stderr
log_type error
log_type warning
log_type notice
"""
LOOPBACKS = (LOOPBACK, "::1", "localhost")
NOT_ENCRYPTED = "the listener is not encrypted: whoever hears the wire reads passwords and readings"


class ListenError(ValueError):
    """The broker's files cannot be written as asked; one line that names the option and the remedy."""


class Listener(NamedTuple):
    """Where the broker listens: an address or name, IPv6 without brackets, and a port, 1..65535."""

    address: str
    port: int


def write_config(config: Path, out: Path | None, listener: Listener, renew: str | None = None) -> dict[str, Any]:
    """Write mosquitto.conf, acl and passwords for the site of a gateway's file.

    Args:
        config: the gateway's file.
        out: folder for the three files, made when it is missing; None: `mosquitto` in the state folder.
        listener: of the broker.
        renew: user name that gets a new password; all others keep theirs.

    Returns:
        site, folder, listener (HOST:PORT), encrypted (false), warning (why that matters), users (how many),
        new_passwords (whose), start (the command).

    Raises:
        ValueError: the gateway's file, the passwords, the address or the folder cannot be used; one line.
    """
    loaded = load_config(config)
    folder = (out or loaded.state / "mosquitto").resolve()
    _check(listener, folder)
    known, new = passwords.load_or_make(loaded.state, loaded.site, renew)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_files(folder, loaded.site, listener, known)
    except OSError as error:
        raise ListenError(f"--out {folder}: {error.strerror or error}; name a folder that can be written") from None
    host = f"[{listener.address}]" if ":" in listener.address else listener.address
    return {
        "site": loaded.site.name,
        "folder": str(folder),
        "listener": f"{host}:{listener.port}",
        "encrypted": False,
        "warning": NOT_ENCRYPTED if listener.address in LOOPBACKS else f"{NOT_ENCRYPTED}; use a wire that you trust",
        "users": len(passwords.users(loaded.site)),
        "new_passwords": new,
        "start": f"mosquitto -c {shlex.quote(str(folder / 'mosquitto.conf'))}",
    }


def lines(found: dict[str, Any]) -> list[str]:
    """The same for people."""
    new = found["new_passwords"]
    whom = ", ".join(new[:3]) + (f" and {len(new) - 3} more" if len(new) > 3 else "")
    return [
        f"{found['folder']}: mosquitto.conf, acl and passwords for {found['users']} users of site {found['site']}",
        f"new passwords: {whom or 'none'}",
        f"{found['listener']}: {found['warning']}",
        f"start it with: {found['start']}",
    ]


def password_line(user: str, password: str, salt: bytes) -> str:
    """A line of mosquitto's `password_file`: user:$7$rounds$salt$hash, PBKDF2 with SHA-512, both in base64."""
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, ROUNDS)
    return f"{user}:$7${ROUNDS}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"


def _check(listener: Listener, folder: Path) -> None:
    """Refuse what would be more than one word, or one line, of mosquitto's configuration."""
    if not re.fullmatch(r"[A-Za-z0-9.:-]{1,253}", listener.address):
        remedy = "write one like 192.168.1.10, or a name"
        raise ListenError(f"--listen {listener.address[:40]!r}: is no address; {remedy}")
    if not str(folder).isprintable():
        raise ListenError(f"--out {str(folder)[:80]!r}: mosquitto reads no such name; name another folder")


def _write_files(folder: Path, site: Site, listener: Listener, known: dict[str, str]) -> None:
    users = passwords.users(site)
    _write_passwords(folder / "passwords", {user: known[user] for user in users})
    (folder / "acl").write_text(acl_text(site), encoding="utf-8")
    text = MOSQUITTO_CONFIG.format(
        site=site.name,
        port=listener.port,
        address=listener.address,
        connections_max=CONNECTIONS_EACH * len(users) + CONNECTIONS_MORE,
        folder=folder,
        user=user_line(),
        packet_max=PACKET_MAX,
        queue_len_max=QUEUE_LEN_MAX,
    )
    (folder / "mosquitto.conf").write_text(text, encoding="utf-8")


def _write_passwords(path: Path, known: dict[str, str]) -> None:
    """A line for each user; those that are right already stay as they are."""
    before = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    salts = dict(re.findall(rf"^([\w-]+):\$7\${ROUNDS}\$([A-Za-z0-9+/]{{{_SALT_DIGITS}}})\$", before, re.MULTILINE))
    text = ""
    for user, password in known.items():
        line = password_line(user, password, base64.b64decode(salts.get(user, "")))
        if line not in before.split("\n"):
            line = password_line(user, password, secrets.token_bytes(SALT_SIZE))
        text += line + "\n"
    write_private(path, text.encode())
