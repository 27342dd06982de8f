"""The report as one picture: accuracy over bytes a cycle on the air, logarithmic, in the star with heartbeats."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from tools.report.room import BY_HAND, EVENT
from tools.report.summary import Report
from tools.report.verdicts import ACCURACY_MIN, BYTES_MAX

_INCHES, _DOTS_PER_INCH = (12, 7), 100
# Room for a label above what is always right, and below the rest.
_TOP, _BELOW = 100.6, 0.7


class Family(NamedTuple):
    """Schemes that belong together.

    Attributes:
        label: in the legend.
        colour, marker: of its points.
        names: of its schemes, or how they begin; those of one beginning are joined by a line.
    """

    label: str
    colour: str
    marker: str
    names: tuple[str, ...]


class Label(NamedTuple):
    """Text beside the dearest point of a name, and where, in typographic points; `side`: left, right or center."""

    text: str
    right: int
    up: int
    side: str


FAMILIES = (
    Family("raw gather", "0.35", "s", ("raw_gather", "deltas", "send_on_change")),
    Family("mode always: every node speaks", "tab:blue", "o", ("seed always", "lean always", "zone always")),
    Family("mode change, tuned on what was said", "tab:orange", "^", ("seed change", "lean change", "zone change")),
    Family("mode event: silent unless it matters", "tab:green", "D", ("lean event", BY_HAND, EVENT)),
)
_LABELS = {
    "raw_gather": Label("raw readings, single or aggregated", 0, 9, "center"),
    "deltas": Label("one-byte differences", 0, -19, "center"),
    "send_on_change": Label("readings that moved", -9, 8, "right"),
    "seed always": Label("the seed's wave", 9, -4, "left"),
    "lean always": Label("lean", 9, -4, "left"),
    "zone always": Label("zone", 9, -4, "left"),
    "seed change": Label("seed", 10, 3, "left"),
    "lean change": Label("lean", 0, 9, "center"),
    "zone change": Label("zone", 10, -6, "left"),
    "lean event": Label("lean, a study", 0, -19, "center"),
    BY_HAND: Label("the closed-form rule with zones", 0, 9, "center"),
    EVENT: Label("spec zone", 0, -19, "center"),
}
# The outermost lines say which threshold a point has.
_THRESHOLDS = {"send_on_change": Label("", -9, -4, "right"), "seed change": Label("", 10, -11, "left")}
# What decides nothing is a line at its bytes.
_BOUNDS = {"one_frame": "one empty frame a cycle", "naive_unicast": "naive distributed convolution (R0-16)"}


class Point(NamedTuple):
    """One scheme: bytes a cycle with and without heartbeats, accuracy, %, and its threshold in words, if it has one."""

    size: float
    quiet: float
    accuracy: float
    threshold: str


def check() -> None:
    """Before anything is simulated for a picture that cannot be drawn.

    Raises:
        ValueError: matplotlib is not there; the line says how to get it.
    """
    if find_spec("matplotlib") is None:
        raise ValueError("matplotlib: is not installed; pip install 'thermesh[report]'")


def draw(report: Report, path: Path) -> None:
    """Write the picture as PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=_INCHES, dpi=_DOTS_PER_INCH, layout="constrained")
    axes = figure.subplots()
    _draw_promise(axes, report)
    for family in FAMILIES:
        _draw_family(axes, report, family)
    _draw_bounds(axes, report)
    axes.set(xscale="log", xlabel="bytes a cycle on the air, 425 nodes, without loss and control traffic")
    lowest = min(point.accuracy for family in FAMILIES for _, found in _lines(report, family) for point in found)
    axes.set(ylabel="cycles decided right, %", ylim=(min(lowest, ACCURACY_MIN) - _BELOW, _TOP))
    axes.set_title(f"Accuracy over bytes, mean of rooms {report.rooms_text}")
    axes.grid(alpha=0.25, which="both")
    axes.legend(loc="lower right", framealpha=1)
    figure.savefig(path)


def points(report: Report, start: str) -> list[Point]:
    """Schemes of a name, or whose names begin so and end in a threshold; the dearest comes first."""
    found = []
    for name, one in report.schemes.items():
        rest = name.removeprefix(start).strip()
        if name.startswith(start) and (not rest or rest.isdigit()) and one.accuracy is not None:
            found.append(Point(one.star, one.quiet, one.accuracy, f"{int(rest) / 100:.2f}" if rest else ""))
    return sorted(found, reverse=True)


def _lines(report: Report, family: Family) -> Iterator[tuple[str, list[Point]]]:
    return ((start, found) for start in family.names if (found := points(report, start)))


def _draw_family(axes: Any, report: Report, family: Family) -> None:
    legend: str | None = family.label
    for start, found in _lines(report, family):
        sizes, quiet, shares, _ = zip(*found, strict=True)
        axes.plot(sizes, shares, f"{family.marker}-", color=family.colour, label=legend, markersize=8, zorder=3)
        if start == EVENT:
            hollow = {"markerfacecolor": "white", "markersize": 7}
            axes.plot(quiet, shares, family.marker, color=family.colour, label="spec zone, no heartbeats", **hollow)
        legend = None
        _write(axes, found[0], _LABELS[start], family.colour)
        for point in found:
            if start in _THRESHOLDS:
                _write(axes, point, _THRESHOLDS[start]._replace(text=point.threshold), family.colour)


def _draw_promise(axes: Any, report: Report) -> None:
    """Where spec zone was promised to be, without heartbeats."""
    least = report.schemes["one_frame"].star
    axes.fill_between(
        [least, BYTES_MAX], ACCURACY_MIN, 100, color="tab:green", alpha=0.08, label="promised: without heartbeats"
    )


def _draw_bounds(axes: Any, report: Report) -> None:
    for name, text in _BOUNDS.items():
        size = report.schemes[name].star
        axes.axvline(size, color="0.6", linestyle=":")
        place = {"xycoords": ("data", "axes fraction"), "xytext": (-5, 0), "textcoords": "offset points"}
        axes.annotate(text, (size, 0.55), rotation=90, ha="right", va="center", color="0.4", **place)


def _write(axes: Any, point: Point, label: Label, colour: str) -> None:
    place = {"xytext": (label.right, label.up), "textcoords": "offset points", "ha": label.side}
    axes.annotate(label.text, (point.size, point.accuracy), color=colour, **place)
