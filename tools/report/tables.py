"""The report's tables, in Markdown."""

from collections.abc import Iterable, Sequence

from gateway.comparison import RADIOS
from tools.report.lossy import Row
from tools.report.scheme import Scheme
from tools.report.summary import Report, title
from tools.report.verdicts import Verdict

# Boards whose batteries count mJ, and those that count J.
_FRUGAL = "nrf52840"


def verdict_table(found: Iterable[Verdict]) -> list[str]:
    """What was promised, what was found."""
    rows = [[one.what, one.figure, "holds" if one.holds else "**missed**"] for one in found]
    return table(["promised", "found", ""], "lll", rows)


def scheme_table(report: Report) -> list[str]:
    """How right every scheme is, and what it costs on the air."""
    head = ["scheme", "right, %", "worst room", "as full exchange, %", "frames", "bytes"]
    head += ["with heartbeats", "and control", "tree: bytes", "and control", "hottest node"]
    rows = []
    for name, one in report.schemes.items():
        if "untuned" in name:
            continue
        shares = [_share(one.accuracy), _share(report.lowest.get(name)), _share(one.agreement)]
        sizes = [one.quiet, one.star, one.star_total, one.tree, one.tree_total]
        rows.append([title(name), *shares, f"{one.frames:,.1f}", *map(_count, sizes), f"{one.hottest:.1f}"])
    return table(head, "l" + "r" * 10, rows)


def tuning_table(report: Report) -> list[str]:
    """Models in mode change before and after they learned from what was said."""
    rows = []
    for name, before in report.schemes.items():
        if "untuned" in name:
            changed = name.replace("untuned", "change")
            tuned = report.schemes[changed]
            pairs = [(_share(one.accuracy), _count(one.star)) for one in (before, tuned)]
            rows.append([title(changed), *pairs[0], *pairs[1]])
    return table(["scheme", "before: right, %", "bytes", "tuned: right, %", "bytes"], "lrrrr", rows)


def energy_table(report: Report) -> list[str]:
    """What a node needs a day."""
    names = [f"{board} {which}" for board in RADIOS for which in _which(board)]
    units = ["mJ" if name.startswith(_FRUGAL) else "J" for name in names]
    head = [f"{_board(name)}, {unit}" for name, unit in zip(names, units, strict=True)]
    rows = [
        [title(name), *(_energy(one, place, unit) for place, unit in zip(names, units, strict=True))]
        for name, one in report.schemes.items()
        if "untuned" not in name
    ]
    return table(["scheme", *head], "l" + "r" * len(names), rows)


def loss_table(ways: dict[str, Row]) -> list[str]:
    """One kind of loss."""
    head = ["what nodes do", "bytes", "heartbeats", "agree, %", "every node, %", "missed a day", "false a day"]
    head += ["given up after"]
    rows = []
    for name, row in ways.items():
        gone = f"{row['gone']:.0f}, at most {row['gone_max']:.0f}" if "gone" in row else "-"
        shares = [_share(row["agree"]), _share(row.get("states"))]
        costs = [_count(row["bytes"]), _count(row["heartbeats"]) if "heartbeats" in row else "-"]
        rows.append([name, *costs, *shares, _share(row.get("missed")), _share(row.get("false")), gone])
    return table(head, "l" + "r" * 7, rows)


def small_table(report: Report) -> list[str]:
    """Small sites: bytes in the star and in the tree, with control traffic."""
    names = list(next(iter(report.small.values())))
    head = [
        "scheme",
        *(f"{side} x {side}: {what}" for side in report.small for what in ("right, %", "bytes", "total", "tree")),
    ]
    rows = []
    for name in names:
        cells = [title(name)]
        for by_name in report.small.values():
            one = by_name[name]
            cells += [_share(one.accuracy), _count(one.star), _count(one.star_total), _count(one.tree_total)]
        rows.append(cells)
    return table(head, "l" + "r" * 4 * len(report.small), rows)


def step_table(report: Report) -> list[str]:
    """Readings that change faster: bytes a cycle in the star."""
    names = list(next(iter(report.steps.values())))
    rows = [[_step(step), *(_count(sizes[name]) for name in names)] for step, sizes in report.steps.items()]
    return table(["cycles", *map(title, names)], "l" + "r" * len(names), rows)


def table(head: Sequence[str], sides: str, rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table; `sides`: l or r for each column."""
    rule = ["---" if side == "l" else "---:" for side in sides]
    return ["| " + " | ".join(cells) + " |" for cells in (head, rule, *rows)]


def _which(board: str) -> tuple[str, ...]:
    return ("mean", "wake tone", "hottest") if board == _FRUGAL else ("mean", "hottest")


def _board(name: str) -> str:
    board, _, which = name.partition(" ")
    return f"{board.replace('_', ' ')} ({RADIOS[board][1]}), {which}"


def _energy(one: Scheme, place: str, unit: str) -> str:
    mj = one.energy_mj.get(place)
    if mj is None:
        return "-"
    return f"{mj:,.0f}" if unit == "mJ" else f"{mj / 1000:.2f}"


def _step(step: str) -> str:
    return {"1": "every one", "shuffled": "all, in any order"}.get(
        step, f"every {step}th" if step != "2" else "every 2nd"
    )


def _share(percent: float | None) -> str:
    return "-" if percent is None else f"{percent:.2f}"


def _count(value: float) -> str:
    return f"{value:,.0f}"
