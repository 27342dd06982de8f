"""How right a demo was: decisions against the site's rule, places against the largest difference, readings as given."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.acceptance import accuracy as accuracy_of
from gateway.cycles import Record
from gateway.gateway import Outcome
from gateway.model import Model
from gateway.rule import abnormal, largest_difference
from gateway.samples import samples_of
from gateway.site import Cell
from protocol.grid import BLOCK_SIDE, node_name
from tools.demo.plan import Plan
from tools.mesh.mesh import parse_heap


def accuracy(plan: Plan, outcomes: list[Outcome], before: Model, after: Model) -> dict[str, Any]:
    """Percent of cycles that are decided right, without hysteresis, against the site's rule on the sensors' readings.

    Both models decide the same cycles, from what nodes said: their readings, in mode change their last words (R0-13).

    Args:
        plan: with the readings that sensors were given.
        outcomes: cycles that were not trained on.
        before: the model before training; after: the one that was rolled out.

    Returns:
        cycles: how many; before, after: percent, None without any; majority: of always saying what most cycles are;
        rule: of the closed-form rule itself, which makes the labels and so is right by definition.
    """
    records = [outcome.record for outcome in outcomes if outcome.record.has_reading.any()]
    if not records:
        return {"cycles": 0} | dict.fromkeys(("before", "after", "majority", "rule"))
    samples = samples_of(records)
    given_ccel = np.stack([record.readings_ccel for record in as_given(plan, records)])
    samples = samples._replace(abnormal=abnormal(given_ccel, samples.present))
    share = float(samples.abnormal.mean())
    return {
        "cycles": samples.cycles,
        "before": _percent(accuracy_of(before, plan.site, samples)),
        "after": _percent(accuracy_of(after, plan.site, samples)),
        "majority": _percent(max(share, 1 - share)),
        "rule": 100.0,
    }


def places(plan: Plan, outcomes: list[Outcome]) -> dict[str, int]:
    """How well `where` was named, by the readings that sensors were given.

    Returns:
        found: abnormal cycles that were decided abnormal; near: those of them whose block is that of the largest
        difference, or next to it, corners included.
    """
    counts = {"found": 0, "near": 0}
    records = as_given(plan, [outcome.record for outcome in outcomes])
    for record, decided in zip(records, (outcome.decision for outcome in outcomes), strict=True):
        if not decided.abnormal or not abnormal(record.readings_ccel, record.has_reading):
            continue
        counts["found"] += 1
        counts["near"] += is_near(decided.where, record.readings_ccel, record.has_reading)
    return counts


def is_near(where: tuple[int, int] | None, readings_ccel: NDArray[np.int16], present: NDArray[np.bool_]) -> bool:
    """Whether a block is that of the largest difference of a cycle, or next to it, corners included."""
    largest = largest_difference(readings_ccel, present)
    if where is None or largest is None:
        return False
    blocks = np.array([largest.first, largest.second]) // BLOCK_SIDE
    return bool((np.abs(blocks - where).max(axis=1) <= 1).any())


def as_given(plan: Plan, records: Sequence[Record]) -> list[Record]:
    """What was reported, with the sensors' readings in place of what nodes said; beyond the plan's cycles as it is."""
    there = len(plan.readings_ccel)
    given_ccel, _ = plan.fields(there)
    return [
        record._replace(readings_ccel=np.where(record.has_reading, given_ccel[record.cycle], 0).astype(np.int16))
        if record.cycle < there
        else record
        for record in records
    ]


def wrong_readings(plan: Plan, outcomes: list[Outcome]) -> list[str]:
    """A line for each cycle in which a node said what its sensor was not given, or what is too far from it by now."""
    rows, cols = np.array(plan.site.cells).T
    there = len(plan.readings_ccel)
    wrong = []
    for record in (outcome.record for outcome in outcomes):
        if record.cycle >= there:
            wrong.append(f"cycle {record.cycle}: there are readings for {there} only; the mesh went ahead by itself")
            continue
        has = record.has_reading[rows, cols]
        given_ccel, present = plan.readings_ccel[record.cycle], plan.present[record.cycle]
        away_ccel = np.abs(record.readings_ccel[rows, cols].astype(np.int32) - given_ccel)
        if (has & ~present).any() or (away_ccel[has] > plan.threshold_ccel).any():
            wrong.append(f"cycle {record.cycle}: a node reported another reading than its sensor gave")
    return wrong


def wrong_heaps(plan: Plan, about: Mapping[Cell, Mapping[str, Any]]) -> list[str]:
    """A line for each node whose heap is not the one asked for; the interpreter keeps a little of it for itself."""
    if plan.kind.heap is None:
        return []
    size = parse_heap(plan.kind.heap)
    heaps = {cell: facts.get("heap") for cell, facts in about.items()}
    return [
        f"node {node_name(*cell)}: its heap is {heap}, not {plan.kind.heap}"
        for cell, heap in heaps.items()
        if not isinstance(heap, int) or not 0.9 * size <= heap <= size
    ]


def is_exact(summary: dict[str, Any]) -> bool:
    """Whether something was compared, and all of it was equal."""
    exact = summary["exact"]
    return bool(exact["compared"] == exact["equal"] > 0)


def _percent(share: float) -> float:
    return round(100 * share, 2)
