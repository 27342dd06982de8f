"""`thermesh filters status`, `push`, `rollback`, `export` and `import`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from tools.answer import FINE, AsJson, GatewayFile, print_answer

ModelFile = Annotated[Path, typer.Argument(help="The model's file.")]

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


@filters_app.command("export")
def filters_export(
    file: ModelFile,
    config: GatewayFile,
    version: Annotated[int | None, typer.Option(min=0, max=2**32 - 1, help="Write a stored model.")] = None,
    as_json: AsJson = False,
) -> int:
    """Write filters and head as one signed file for another site of the same shape; by default those in use."""
    from tools.model_file import write, written_lines

    print_answer(write(config, version, file), as_json, written_lines)
    return FINE


@filters_app.command("import")
def filters_import(
    file: ModelFile,
    config: GatewayFile,
    trust: Annotated[str, typer.Option(help="The public key that has to have signed it, 64 hex digits.")],
    as_json: AsJson = False,
) -> int:
    """Send the filters and the head of a file to all nodes, once everything about it was checked.

    It is signed anew, for this site, under the next version; a running gateway takes the order before its next cycle.
    """
    from tools.model_file import take

    _print_order(take(config, file, trust), as_json)
    return FINE


def _print_order(done: dict[str, Any], as_json: bool) -> None:
    from tools.filters import order_line

    print_answer(done, as_json, lambda done: [order_line(done)])
