"""`thermesh filters status`, `push` and `rollback`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from tools.answer import FINE, AsJson, GatewayFile, print_answer

filters_app = typer.Typer(help="The filters that a site's nodes compute with.")


@filters_app.command("status")
def filters_status(config: GatewayFile, as_json: AsJson = False) -> int:
    """Show which filters decide, how far the newest ones are, node by node, and what became of every model."""
    from gateway.config import load_config
    from tools.filters import lines, status

    print_answer(status(config), as_json, lambda found: lines(found, load_config(config).site))
    return FINE


@filters_app.command("push")
def filters_push(
    config: GatewayFile,
    version: Annotated[int | None, typer.Option(min=0, max=2**32 - 1, help="Send a stored model's again.")] = None,
    file: Annotated[Path | None, typer.Option(help="Send those of a JSON file, as `demo --out` writes them.")] = None,
    as_json: AsJson = False,
) -> int:
    """Send filters to all nodes, signed and under the next version; by default those in use once more.

    A running gateway takes the order before its next cycle; otherwise they are sent when it starts.
    """
    from tools.filters import push

    _print_order(push(config, version, file), as_json)
    return FINE


@filters_app.command("rollback")
def filters_rollback(config: GatewayFile, as_json: AsJson = False) -> int:
    """Send the weights that were in use before, under the next version: nodes take no older one.

    While new filters are on their way and not in use yet, this sends those in use in their place.
    """
    from tools.filters import rollback

    _print_order(rollback(config), as_json)
    return FINE


def _print_order(done: dict[str, Any], as_json: bool) -> None:
    from tools.filters import order_line

    print_answer(done, as_json, lambda done: [order_line(done)])
