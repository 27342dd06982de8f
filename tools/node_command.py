"""`thermesh node`."""

import os
from pathlib import Path
from typing import Annotated

import typer

from tools.answer import FINE, AsJson, GatewayFile, print_answer

node_app = typer.Typer(help="One sensor node.")
NodeName = Annotated[str, typer.Argument(help="The node, like n-03-12: row and column.")]


@node_app.command("run")
def node_run(
    config: Annotated[Path, typer.Argument(help="The node's file (JSON); firmware/config.py lists its fields.")],
) -> int:
    """Run one node on this machine, the same code as on a device, until Ctrl-C.

    `thermesh gateway` writes such files for all nodes of its site into its state folder, under nodes/.
    """
    from firmware.main import run

    if config.is_dir():
        raise ValueError(f"{config}: is a folder; name the node's file in it, like n-00-00.json")
    if not config.is_file():
        raise ValueError(f"{config}: no such file; `thermesh gateway` writes one for each node into STATE/nodes/")
    os.chdir(config.parent)  # the node's flash: its filters and readings lie beside its configuration
    run(config.name)
    return FINE


@node_app.command("add")
def node_add(name: NodeName, config: GatewayFile, as_json: AsJson = False) -> int:
    """Put a node where the site has a hole: in its file, at the broker, and at the gateway while it runs."""
    from tools import nodes

    print_answer(nodes.add(config, name), as_json, nodes.lines)
    return FINE


@node_app.command("replace")
def node_replace(name: NodeName, config: GatewayFile, as_json: AsJson = False) -> int:
    """Prepare another device for a node's place: with a new password, so that the old one opens nothing any more."""
    from tools import nodes

    print_answer(nodes.replace(config, name), as_json, nodes.lines)
    return FINE


@node_app.command("remove")
def node_remove(name: NodeName, config: GatewayFile, as_json: AsJson = False) -> int:
    """Make a hole where a node stood; the broker keeps nothing of it."""
    from tools import nodes

    print_answer(nodes.remove(config, name), as_json, nodes.lines)
    return FINE
