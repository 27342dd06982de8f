"""`thermesh gateway`: one site's gateway as a service, until it is stopped."""

import json
import logging
from contextlib import ExitStack
from pathlib import Path

from gateway import service
from gateway.broker import open_broker
from gateway.config import load_config, next_run
from gateway.gateway import Gateway, Outcome
from gateway.link import Link
from tools.mesh.files import write_node_files
from tools.model_choice import Stage, choose_model
from tools.results import cycle_line

log = logging.getLogger(__name__)


def run_gateway(path: Path, cycles: int | None, as_json: bool, stage: Stage) -> None:
    """Serve the site that a gateway's file describes.

    Args:
        path: the file (gateway/config.py).
        cycles: end after so many; None: run on until KeyboardInterrupt.
        as_json: print decisions as JSON lines, as in cycles.jsonl.
        stage: opens progress bars.

    Raises:
        ValueError: configuration, model or broker cannot be used; one line.
    """
    config = load_config(path)
    model = choose_model(config.spec, config.site, 0, stage)
    run = next_run(config.state)
    with ExitStack() as stack:
        broker = stack.enter_context(open_broker(config.broker, config.state / "broker"))
        link = stack.enter_context(Link(broker.host, broker.port, config.site.name))
        log.info("site %s, run %d, broker %s at %s:%d", config.site.name, run, broker.name, broker.host, broker.port)
        files = config.state / "nodes"
        sensor = {"kind": "simulated", "mean_ccel": config.site.reference_ccel}
        sensors = {cell: sensor | {"seed": seed} for seed, cell in enumerate(config.site.cells)}
        write_node_files(files, config.site, (broker.host, broker.port), model.filters.pack(config.site.name), sensors)
        log.info("%s: each node's configuration, with a simulated sensor, and the filters", files)
        gateway = Gateway(config.site, model, config.timing, run, config.limits)
        service.serve(gateway, link, config.site.cycle_s, lambda outcome: _show(outcome, as_json), cycles)


def _show(outcome: Outcome, as_json: bool) -> None:
    record, decided = outcome.record, outcome.decision
    if as_json:
        print(json.dumps(cycle_line(outcome)), flush=True)
        return
    nodes = int(record.pooled.sum())
    word = f"abnormal at block {decided.where}" if decided.abnormal else "normal" if nodes else "nothing heard"
    print(
        f"cycle {record.cycle}: {word}, score {decided.scores[1]:.3f}, {nodes} nodes, {record.late} late, "
        f"{outcome.exact.equal} of {outcome.exact.compared} features exact",
        flush=True,
    )
