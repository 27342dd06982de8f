"""What was promised of mode event and mode change, and whether it holds: computed from the figures, never typed."""

from typing import NamedTuple

from firmware.quiet import HEARTBEAT
from tools.report.lossy import REPORTED, Row
from tools.report.room import EVENT
from tools.report.summary import Report, title
from tools.zones_loss import DYING

ACCURACY_MIN, BYTES_MAX, AGREEMENT = 96.5, 600, 100.0
# By loss: agreement at least, %, at less than so many bytes a cycle.
UNDER_LOSS = {"10 % lost": (99.5, 1_000), "30 % lost": (99.0, 2_000)}


class Verdict(NamedTuple):
    """One promise.

    Attributes:
        what: was promised.
        figure: what was found.
        holds: whether that is enough.
    """

    what: str
    figure: str
    holds: bool


def verdicts(report: Report) -> list[Verdict]:
    """All of them."""
    return [
        *_exact(report),
        *(_below_raw_gather(report, topology) for topology in ("star", "tree")),
        *(_agreement(report.losses[loss], loss, *bounds) for loss, bounds in UNDER_LOSS.items()),
        _dead_node(report.losses[DYING]),
        *(_tuned(report, name) for name in ("seed", "lean")),
    ]


def _exact(report: Report) -> list[Verdict]:
    event = report.schemes[EVENT]
    right, agree = event.accuracy or 0.0, event.agreement or 0.0
    spec = "spec zone, mode event"
    return [
        Verdict(f"{spec}: right in at least {ACCURACY_MIN} % of the cycles", f"{right:.2f} %", right >= ACCURACY_MIN),
        Verdict(
            f"{spec}: at most {BYTES_MAX} bytes a cycle on the air with reports, without heartbeats",
            f"{event.quiet:.0f} bytes",
            event.quiet <= BYTES_MAX,
        ),
        Verdict(f"{spec}: every node's state as in a full exchange", f"{agree:.2f} %", agree == AGREEMENT),
    ]


def _below_raw_gather(report: Report, topology: str) -> Verdict:
    field = f"{topology}_total"
    total = getattr(report.schemes[EVENT], field)
    others = {name: getattr(report.schemes[name], field) for name in report.raw_gather}
    least = min(others, key=lambda name: others[name])
    return Verdict(
        f"with heartbeats, beacons and health messages, in the {topology}: below each raw gather with the same",
        f"{total:,.0f} bytes; the least of the others: {others[least]:,.0f}, {title(least)}",
        total < others[least],
    )


def _agreement(ways: dict[str, Row], loss: str, agree_min: float, bytes_max: int) -> Verdict:
    """By the policy that agrees most for so few bytes, and if that is not enough, by the cheapest that does."""
    policies = {name: ways[name] for name in REPORTED}
    cheap = {name: row for name, row in policies.items() if row["bytes"] < bytes_max}
    right = {name: row for name, row in policies.items() if row["agree"] >= agree_min}
    both = cheap.keys() & right.keys()
    told = [max(cheap, key=lambda name: cheap[name]["agree"])] if cheap else []
    told += [min(right, key=lambda name: right[name]["bytes"])] if right and not both else []
    figures = [f"{ways[name]['agree']:.2f} % for {ways[name]['bytes']:,.0f} bytes ({name})" for name in told]
    return Verdict(
        f"{loss}: the gateway's answer as in a full exchange in at least {agree_min} % of the cycles, "
        f"for less than {bytes_max:,} bytes without heartbeats",
        "; ".join(figures) or "neither by any policy",
        bool(both),
    )


def _dead_node(ways: dict[str, Row]) -> Verdict:
    """Of the policy that gives dead nodes up latest."""
    longest = {name: ways[name]["gone_max"] for name in REPORTED if "gone_max" in ways[name]}
    what = f"a node that dies is noticed within its heartbeat, {HEARTBEAT} cycles"
    if not longest:
        return Verdict(what, "no node that died was given up", holds=False)
    worst = max(longest, key=lambda name: longest[name])
    figure = f"{ways[worst]['gone']:.0f} cycles in the mean, {longest[worst]:.0f} at most ({worst})"
    return Verdict(what, figure, longest[worst] <= HEARTBEAT)


def _tuned(report: Report, name: str) -> Verdict:
    changed = [scheme for scheme in report.schemes if scheme.startswith(f"{name} change ")]
    figures = []
    for scheme in changed:
        before, after = (report.schemes[one].accuracy for one in (scheme.replace("change", "untuned"), scheme))
        gain = (after or 0.0) - (before or 0.0)
        size = report.schemes[scheme].star
        figures.append(f"{scheme.split()[-1]} ccel: {after:.2f} % ({gain:+.2f} by tuning), {size:,.0f} bytes")
    return Verdict(
        f"{name} in mode change stands in the table, tuned on stale views", "; ".join(figures), bool(figures)
    )
