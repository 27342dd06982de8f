"""What `thermesh demo --out DIR` writes, cycle by cycle, so that nothing is lost when it is stopped.

    readings.csv          `cycle`, then a column a node: what each sensor returned, empty = nothing
    cycles.jsonl          a line a cycle: features, scores, decision, what was missing
    filters/<version>.json
    summary.json          what `--json` prints
"""

import json
from pathlib import Path
from typing import Any, Self, TextIO

import numpy as np

from gateway.gateway import Outcome
from gateway.model import Filters
from gateway.site import Site
from gateway.twin import NOTHING
from protocol.grid import node_name
from tools.readings import celsius


class ResultsError(ValueError):
    """The folder cannot be written; one line that names it."""


def cycle_line(outcome: Outcome) -> dict[str, Any]:
    """One cycle as cycles.jsonl holds it."""
    record, decided = outcome.record, outcome.decision
    blocks = [
        [None if (features == NOTHING).all() else features.tolist() for features in row] for row in record.features
    ]
    return {
        "cycle": record.cycle,
        "filter_version": outcome.filter_version,
        "head_revision": outcome.head_revision,
        "features": blocks,
        "no_reading": [node_name(row, col) for row, col in np.argwhere(record.no_reading).tolist()],
        "carried": np.argwhere(record.carried).tolist(),
        "late": record.late,
        "scores": list(decided.scores),
        "abnormal": decided.abnormal,
        "where": list(decided.where) if decided.where else None,
    }


class Results:
    """The folder while it fills; a context manager."""

    def __init__(self, folder: Path, site: Site):
        """Begin the files.

        Raises:
            ResultsError: the folder cannot be made or written.
        """
        self._folder = folder
        self._site = site
        try:
            (folder / "filters").mkdir(parents=True, exist_ok=True)
            self._cycles = (folder / "cycles.jsonl").open("w", encoding="utf-8")
            self._readings = (folder / "readings.csv").open("w", encoding="utf-8")
        except OSError as error:
            reason = error.strerror or error
            raise ResultsError(f"--out {folder}: {reason}; name a folder that can be written") from None
        self._write(self._readings, ",".join(["cycle", *(node_name(row, col) for row, col in site.cells)]))

    def add_filters(self, filters: Filters) -> None:
        """Keep a filter set that a cycle used."""
        text = json.dumps(filters.as_json(), indent=1)
        (self._folder / "filters" / f"{filters.version}.json").write_text(text + "\n", encoding="utf-8")

    def add(self, outcome: Outcome) -> None:
        """Keep a cycle."""
        record = outcome.record
        self._write(self._cycles, json.dumps(cycle_line(outcome)))
        fields = [
            celsius(int(record.readings_ccel[cell])) if record.has_reading[cell] else "" for cell in self._site.cells
        ]
        self._write(self._readings, ",".join([str(record.cycle), *fields]))

    def add_summary(self, summary: dict[str, Any]) -> None:
        """Keep the summary."""
        (self._folder / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._cycles.close()
        self._readings.close()

    def _write(self, file: TextIO, line: str) -> None:
        file.write(line + "\n")
        file.flush()
