"""The passwords with which nodes and gateway connect to a broker that asks for them: one file, readable by its owner.

    passwords.json   {"gateway": "...", "n-00-00": "...", ...}, as `thermesh broker config` makes them, or a gateway
                     that starts a broker of its own

A node's user name is its name. At a broker that runs already everybody connects without one where there is no such
file. Where a node shares a key with the broker instead (TLS-PSK), the key is made of its password: one secret a node.
"""

import base64
import hashlib
import json
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from gateway.files import write_private
from gateway.site import Site
from protocol.grid import node_name

NAME = "passwords.json"
GATEWAY = "gateway"
# 192 bits, in 32 characters; a node takes up to 64 (firmware/config.py).
_RANDOM_BYTES = 24
_ALLOWED = re.compile("[!-~]{1,64}")
# The largest site has 65,025 nodes, some 50 bytes each.
_SIZE_MAX = 1 << 23
# mosquitto's own numbers. More rounds protect words that people choose; these are 192 random bits.
ROUNDS, SALT_SIZE = 101, 12
_SALT_DIGITS = SALT_SIZE * 4 // 3


class PasswordsError(ValueError):
    """The passwords cannot be used; one line that names the file and the remedy."""


class Login(NamedTuple):
    """What one of us tells a broker, and the authority (PEM) that has to have signed its certificate; "": no TLS."""

    user: str
    password: str
    authority: str = ""


def psk_of(password: str) -> str:
    """The key of the same user for TLS-PSK, 64 hex digits."""
    return hashlib.sha256(password.encode()).hexdigest()


def load(state: Path, site: Site) -> dict[str, str]:
    """Password by user name, for the gateway and for every node of the site; empty where there is no file.

    Raises:
        PasswordsError: the file cannot be read, is damaged, or knows nothing of a node.
    """
    found = _read(state / NAME)
    missing = [name for name in users(site) if name not in found]
    if found and missing:
        remedy = "run `thermesh broker config` again, and start the broker with what it writes"
        raise PasswordsError(f"{state / NAME}: has none for {missing[0]}; {remedy}")
    return found


def load_or_make(state: Path, site: Site, renew: str | None = None) -> tuple[dict[str, str], list[str]]:
    """As `load`, but whoever has none gets one, and `renew` another one; all others keep theirs.

    So do nodes that the site has not now: they may come back.

    Args:
        state: the gateway's folder; made when it is missing.
        site: whose nodes.
        renew: a user name.

    Returns:
        The passwords by user name, and the names of those that are new.

    Raises:
        PasswordsError: nobody is called `renew`, or the file cannot be read or written, or is damaged.
    """
    if renew is not None and renew not in users(site):
        wanted = f"write {GATEWAY}, or a node of site {site.name} like {node_name(*site.cells[0])}"
        raise PasswordsError(f"--renew {renew[:40]!r}: is none of ours; {wanted}")
    before = _read(state / NAME)
    new = [name for name in users(site) if name not in before or name == renew]
    passwords = before | {name: secrets.token_urlsafe(_RANDOM_BYTES) for name in new}
    if new:
        _write(state, passwords)
    return passwords, new


def knows(state: Path, name: str) -> bool:
    """Whether a user has a password, one of the site or not.

    Raises:
        PasswordsError: the file cannot be read, or is damaged.
    """
    return name in _read(state / NAME)


def forget(state: Path, name: str) -> None:
    """Drop a user's password: whoever has the device that knew it gets nowhere with it, also if the node comes back.

    Raises:
        PasswordsError: the file cannot be read or written, or is damaged.
    """
    before = _read(state / NAME)
    if name in before:
        _write(state, {user: password for user, password in before.items() if user != name})


def users(site: Site) -> list[str]:
    """All user names of a site: the gateway's, then the nodes' in reading order."""
    return [GATEWAY, *(node_name(*cell) for cell in site.cells)]


def password_line(user: str, password: str, salt: bytes) -> str:
    """A line of mosquitto's `password_file`: user:$7$rounds$salt$hash, PBKDF2 with SHA-512, both in base64."""
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, ROUNDS)
    return f"{user}:$7${ROUNDS}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"


def write_hashed(path: Path, known: Mapping[str, str]) -> None:
    """Write mosquitto's `password_file`, a line for each user; those that are right already stay as they are.

    Raises:
        OSError: it cannot be written.
    """
    before = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    salts = dict(re.findall(rf"^([\w-]+):\$7\${ROUNDS}\$([A-Za-z0-9+/]{{{_SALT_DIGITS}}})\$", before, re.MULTILINE))
    text = ""
    for user, password in known.items():
        line = password_line(user, password, base64.b64decode(salts.get(user, "")))
        if line not in before.split("\n"):
            line = password_line(user, password, secrets.token_bytes(SALT_SIZE))
        text += line + "\n"
    write_private(path, text.encode())


def _write(state: Path, passwords: dict[str, str]) -> None:
    try:
        state.mkdir(parents=True, exist_ok=True)
        write_private(state / NAME, json.dumps(passwords, indent=0).encode())
    except OSError as error:
        raise PasswordsError(f"{state / NAME}: {error.strerror or error}; make the folder writable") from None


def _read(path: Path) -> dict[str, str]:
    try:
        with path.open("rb") as file:
            os.fchmod(file.fileno(), 0o600)  # a copy from a backup may be open to all
            found = json.loads(file.read(_SIZE_MAX))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise PasswordsError(f"{path}: {error.strerror or error}; make it readable") from None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not all(_is_password(value) for value in found.values()):
        remedy = "put it back from a backup, or delete it for new passwords for all nodes"
        raise PasswordsError(f"{path}: holds no passwords by user name; {remedy}")
    return found


def _is_password(value: object) -> bool:
    return isinstance(value, str) and _ALLOWED.fullmatch(value) is not None
