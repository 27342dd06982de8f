"""One row of the report: how right a scheme is, and what it costs, over the cycles that are judged."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gateway.alternatives import PerNode
from gateway.site import Site
from gateway.tree import Tree
from tools.report.charge import Said, bill, energy_mj, load


class Decided(NamedTuple):
    """Cycle by cycle whether a scheme takes it for abnormal, and whether it is; bool [cycles] each.

    Attributes:
        found: what the scheme says, without hysteresis.
        full: what the same network says when everything is exchanged in each cycle.
        labels: what the site's rule says of the readings.
    """

    found: NDArray[np.bool_]
    full: NDArray[np.bool_]
    labels: NDArray[np.bool_]


class Scheme(NamedTuple):
    """A scheme in one room, or in the mean of rooms. Costs are those of a cycle, without loss.

    Attributes:
        accuracy: cycles decided right, %; None where a scheme decides nothing.
        agreement: cycles decided as in a full exchange, %; None where there is none to compare with.
        frames: all nodes' own, in the star, without heartbeats and control traffic.
        quiet: their bytes on the air.
        star, tree: bytes on the air with heartbeats, where a scheme has them.
        star_total, tree_total: with the control traffic, the same for all (tools/report/charge.py).
        hottest: frames of the tree's hottest node, control traffic included.
        energy_mj: of a node and day, by board and which node.
    """

    accuracy: float | None
    agreement: float | None
    frames: float
    quiet: float
    star: float
    star_total: float
    tree: float
    tree_total: float
    hottest: float
    energy_mj: dict[str, float]


def in_mesh(quiet: Sequence[Said], everything: Sequence[Said], site: Site, decided: Decided) -> Scheme:
    """Of a scheme whose nodes speak to each other.

    Args:
        quiet: what is said without heartbeats.
        everything: the same with them.
        site: where nodes stand.
        decided: how right it is.
    """
    star = load(everything, site, None)
    return _scheme(load(quiet, site, None), {"star": star, "tree": load(everything, site, Tree(site))}, site, decided)


def gathered(star: PerNode, tree: PerNode, site: Site, decided: Decided | None) -> Scheme:
    """Of a scheme whose nodes know when to listen, and for whom: what an alternative costs in either topology."""
    return _scheme(star, {"star": star, "tree": tree}, site, decided, listens=False)


def mean(same: Iterable[Scheme]) -> Scheme:
    """The mean of one scheme over rooms."""
    schemes = list(same)
    fields: dict[str, Any] = {}
    for field in Scheme._fields[:-1]:
        values = [getattr(scheme, field) for scheme in schemes]
        fields[field] = None if None in values else float(np.mean(values))
    boards = schemes[0].energy_mj
    return Scheme(**fields, energy_mj={name: float(np.mean([s.energy_mj[name] for s in schemes])) for name in boards})


def percent(right: NDArray[np.bool_]) -> float:
    """The share of cycles, %."""
    return 100 * float(right.mean())


def _scheme(
    quiet: PerNode, loads: dict[str, PerNode], site: Site, decided: Decided | None, listens: bool = True
) -> Scheme:
    trees = {"star": None, "tree": Tree(site)}
    bills = {topology: bill(one, site, trees[topology]) for topology, one in loads.items()}
    return Scheme(
        accuracy=percent(decided.found == decided.labels) if decided else None,
        agreement=percent(decided.found == decided.full) if decided else None,
        frames=float(quiet.frames.sum()),
        quiet=bill(quiet, site, None).own,
        star=bills["star"].own,
        star_total=bills["star"].total,
        tree=bills["tree"].own,
        tree_total=bills["tree"].total,
        hottest=bills["tree"].hottest,
        energy_mj=energy_mj(site, bills, loads["star"] if listens else None),
    )
