"""`thermesh broker config`: what a production mosquitto needs to let in a site's nodes and gateway, and nobody else."""

import re
import shlex
from pathlib import Path
from typing import Any, NamedTuple

from gateway import certificates, passwords
from gateway.broker import LOOPBACK, LOOPBACKS, QUEUE_LEN_MAX, Choice, parse_address, user_line
from gateway.config import load_config
from gateway.files import write_private, write_whole
from gateway.site import Site
from protocol.filter_set import SIZE_MAX
from tools.acl import acl_text
from tools.mesh.files import PSK_PORT_ABOVE

# Whoever comes back after a power cut comes while the broker still holds its dead connection; and some to look in.
CONNECTIONS_EACH, CONNECTIONS_MORE = 2, 16
# The largest message is a filter set; its topic and MQTT's own bytes need a hundred.
PACKET_MAX = SIZE_MAX + 1_024

MOSQUITTO_CONFIG = """\
# Written by `thermesh broker config` for site {site}; the next call writes it anew.
allow_anonymous false
password_file {folder}/passwords
psk_file {folder}/psk
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

# Without encryption: {plain}.
listener {port} {plain_address}
{each}
# TLS with the broker's certificate; then user name and password.
listener {tls_port} {address}
{each}certfile {folder}/broker.pem
keyfile {folder}/broker.pem

# TLS with a key that the broker shares with each node: it says the user name too.
listener {psk_port} {address}
{each}psk_hint {site}
use_identity_as_username true
"""
EACH = """\
max_connections {connections_max}
# Or a node could throw another one out by taking its client id.
use_username_as_clientid true
"""
FILES = ("mosquitto.conf", "acl", "passwords", "psk", "broker.pem")
NOT_ENCRYPTED = "is not encrypted: whoever hears the wire reads passwords and readings; use one that you trust"
# Listening on these is listening everywhere.
_EVERYWHERE = ("0.0.0.0", "::")


class ListenError(ValueError):
    """The broker's files cannot be written as asked; one line that names the option and the remedy."""


class Listeners(NamedTuple):
    """Where the broker listens.

    Attributes:
        address: address or name, IPv6 without brackets.
        port, tls_port: TCP, 1..65535, for what is not encrypted and for TLS; PSK_PORT_ABOVE the latter for keys.
        plain: what is not encrypted goes to the address too, not to the loopback only.
    """

    address: str
    port: int
    tls_port: int
    plain: bool

    @property
    def plain_address(self) -> str:
        """Where it listens for what is not encrypted."""
        return self.address if self.plain else LOOPBACK

    @property
    def psk_port(self) -> int:
        """Where it listens for nodes with keys."""
        return self.tls_port + PSK_PORT_ABOVE


def write_config(config: Path, out: Path | None, listeners: Listeners, renew: str | None = None) -> dict[str, Any]:
    """Write mosquitto.conf and the files that it names for the site of a gateway's file.

    Args:
        config: the gateway's file.
        out: folder for the files, made when it is missing; None: `mosquitto` in the state folder.
        listeners: of the broker.
        renew: user name that gets a new password; all others keep theirs.

    Returns:
        site, folder, plain, tls, psk (HOST:PORT of each listener), exposed (whether what is not encrypted leaves the
        machine), users (how many), new_passwords (whose), start (the command).

    Raises:
        ValueError: the gateway's file, the passwords, the address or the folder cannot be used; one line.
    """
    loaded = load_config(config)
    folder = (out or loaded.state / "mosquitto").resolve()
    _check(listeners, folder)
    known, new = passwords.load_or_make(loaded.state, loaded.site, renew)
    authority = certificates.load_or_make(loaded.state, loaded.site.name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_files(folder, loaded.site, listeners, known)
        certificates.write_broker(folder / "broker.pem", authority, _names(listeners, loaded.broker))
    except OSError as error:
        raise ListenError(f"--out {folder}: {error.strerror or error}; name a folder that can be written") from None
    return {
        "site": loaded.site.name,
        "folder": str(folder),
        "plain": _shown(listeners.plain_address, listeners.port),
        "tls": _shown(listeners.address, listeners.tls_port),
        "psk": _shown(listeners.address, listeners.psk_port),
        "exposed": listeners.plain_address not in LOOPBACKS,
        "users": len(passwords.users(loaded.site)),
        "new_passwords": new,
        "start": f"mosquitto -c {shlex.quote(str(folder / 'mosquitto.conf'))}",
    }


def lines(found: dict[str, Any]) -> list[str]:
    """The same for people."""
    new = found["new_passwords"]
    whom = ", ".join(new[:3]) + (f" and {len(new) - 3} more" if len(new) > 3 else "")
    return [
        f"{found['folder']}: {', '.join(FILES)} for {found['users']} users of site {found['site']}",
        f"new passwords: {whom or 'none'}",
        f"{found['tls']}: TLS with a certificate, for the gateway and nodes on CPython",
        f"{found['psk']}: TLS with a key for each node, for nodes on MicroPython",
        f"{found['plain']}: {NOT_ENCRYPTED if found['exposed'] else 'is not encrypted; on the loopback only'}",
        f"start it with: {found['start']}",
    ]


def _shown(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _names(listeners: Listeners, broker: str) -> set[str]:
    """By which names gateway and nodes may reach the broker: where it listens, and what the gateway's file says."""
    names = {*LOOPBACKS, listeners.address} - set(_EVERYWHERE)
    if ":" in broker:
        names.add(parse_address(Choice("broker", broker))[0])
    return names


def _check(listeners: Listeners, folder: Path) -> None:
    """Refuse what would be more than one word, or one line, of mosquitto's configuration."""
    if not re.fullmatch(r"[A-Za-z0-9.:-]{1,253}", listeners.address):
        remedy = "write one like 192.168.1.10, or a name"
        raise ListenError(f"--listen {listeners.address[:40]!r}: is no address; {remedy}")
    if listeners.port in (listeners.tls_port, listeners.psk_port):
        taken = f"{listeners.tls_port} and {listeners.psk_port}"
        raise ListenError(f"--port {listeners.port}: --tls-port takes {taken}; write another one")
    if not str(folder).isprintable():
        raise ListenError(f"--out {str(folder)[:80]!r}: mosquitto reads no such name; name another folder")


def _write_files(folder: Path, site: Site, listeners: Listeners, known: dict[str, str]) -> None:
    users = passwords.users(site)
    passwords.write_hashed(folder / "passwords", {user: known[user] for user in users})
    keys = [f"{user}:{passwords.psk_of(known[user])}\n" for user in users if user != passwords.GATEWAY]
    write_private(folder / "psk", "".join(keys).encode())
    write_whole(folder / "acl", acl_text(site).encode())
    text = MOSQUITTO_CONFIG.format(
        site=site.name,
        folder=folder,
        user=user_line(),
        packet_max=PACKET_MAX,
        queue_len_max=QUEUE_LEN_MAX,
        plain="for who may hear it, as was asked" if listeners.plain else "for this machine only",
        plain_address=listeners.plain_address,
        address=listeners.address,
        port=listeners.port,
        tls_port=listeners.tls_port,
        psk_port=listeners.psk_port,
        each=EACH.format(connections_max=CONNECTIONS_EACH * len(users) + CONNECTIONS_MORE),
    )
    write_whole(folder / "mosquitto.conf", text.encode())
