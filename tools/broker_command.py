"""`thermesh broker config`."""

from pathlib import Path
from typing import Annotated

import typer

from tools.answer import FINE, AsJson, GatewayFile, print_answer

broker_app = typer.Typer(help="A production broker for a site's nodes and gateway.")


@broker_app.command("config")
def broker_config(
    config: GatewayFile,
    out: Annotated[
        Path | None, typer.Option(help="Folder for mosquitto's files; default: mosquitto/ in the state folder.")
    ] = None,
    listen: Annotated[str, typer.Option(help="Address to listen on for TLS.")] = "127.0.0.1",
    tls_port: Annotated[
        int, typer.Option(min=1, max=65534, help="TCP port for TLS with a certificate; the next one for keys.")
    ] = 8883,
    port: Annotated[int, typer.Option(min=1, max=65535, help="TCP port for what is not encrypted.")] = 1883,
    plain: Annotated[
        bool, typer.Option(help="Listen there too for what is not encrypted, not on the loopback only.")
    ] = False,
    renew: Annotated[str | None, typer.Option(help="A node, or gateway, that gets a new password.")] = None,
    as_json: AsJson = False,
) -> int:
    """Write mosquitto's configuration: one user a node and one for the gateway, each with what it has to say and read.

    Passwords that exist stay, so that nodes in the field stay in. They lie in the gateway's state folder; the gateway
    uses its own and writes each node's into the node's file when it starts.
    """
    from tools.broker_config import Listeners, lines, write_config

    listeners = Listeners(listen, port, tls_port, plain)
    print_answer(write_config(config, out, listeners, renew), as_json, lines)
    return FINE
