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
    port: Annotated[int, typer.Option(min=1, max=65535, help="TCP port to listen on.")] = 1883,
    listen: Annotated[
        str, typer.Option(help="Address to listen on; passwords go over it as they are.")
    ] = "127.0.0.1",
    renew: Annotated[str | None, typer.Option(help="A node, or gateway, that gets a new password.")] = None,
    as_json: AsJson = False,
) -> int:
    """Write mosquitto's configuration: one user a node and one for the gateway, each with what it has to say and read.

    Passwords that exist stay, so that nodes in the field stay in. They lie in the gateway's state folder; the gateway
    uses its own and writes each node's into the node's file when it starts.
    """
    from tools.broker_config import Listener, lines, write_config

    print_answer(write_config(config, out, Listener(listen, port), renew), as_json, lines)
    return FINE
