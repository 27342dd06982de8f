"""The means over rooms, and what every scheme is called."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from tools.change import RULE
from tools.report.lossy import Row
from tools.report.scheme import Scheme, mean

_GATHERED = {
    "raw_gather": "raw readings, each in a frame",
    "raw_gather_aggregated": "raw readings, aggregated",
    "deltas": "differences of one byte, aggregated",
    "send_on_change": "readings that moved",
    "naive_unicast": "naive distributed convolution (R0-16)",
    "one_frame": "one empty frame, the least that can be said",
    "changes_only": 'an oracle that says when "abnormal somewhere" changes',
}
_MODES = {"always": "mode always", "change": "mode change", "event": "mode event", "untuned": "mode change, not tuned"}
_ORDER = (*_GATHERED, *(f"{name} {mode}" for mode in _MODES for name in ("seed", "lean", "zone", RULE)))


class Report(NamedTuple):
    """What was found, in the mean of some rooms.

    Attributes:
        rooms: their numbers.
        schemes: by name.
        lowest: accuracy in the worst room, %, of schemes that decide.
        losses: by loss and way; `gone_max` is that of the worst room.
        small: schemes by nodes a side.
        steps: bytes a cycle by step and scheme (tools/report/room.py).
    """

    rooms: tuple[int, ...]
    schemes: dict[str, Scheme]
    lowest: dict[str, float]
    losses: dict[str, dict[str, Row]]
    small: dict[str, dict[str, Scheme]]
    steps: dict[str, dict[str, float]]

    @property
    def rooms_text(self) -> str:
        """0-9, or the numbers themselves."""
        first, last = self.rooms[0], self.rooms[-1]
        in_a_row = last - first == len(self.rooms) - 1 > 0
        return f"{first}-{last}" if in_a_row else ", ".join(map(str, self.rooms))

    @property
    def raw_gather(self) -> list[str]:
        """Names of the ways to bring readings to the gateway."""
        starts = ("raw_gather", "deltas", "send_on_change")
        return [name for name in self.schemes if name.startswith(starts)]

    def as_json(self) -> dict[str, Any]:
        """As it is written."""
        small = {side: {name: one._asdict() for name, one in by.items()} for side, by in self.small.items()}
        return self._asdict() | {"schemes": {name: one._asdict() for name, one in self.schemes.items()}, "small": small}


def summary(by_room: Mapping[int, dict[str, Any]]) -> Report:
    """The means of what tools/report/room.py found in each room; one at least."""
    found = list(by_room.values())
    rooms = [_schemes(room["schemes"]) for room in found]
    first = found[0]
    return Report(
        tuple(by_room),
        _means(rooms),
        {
            name: min(_accuracy(room[name]) for room in rooms)
            for name, one in rooms[0].items()
            if one.accuracy is not None
        },
        {
            loss: {way: _row([room["losses"][loss][way] for room in found]) for way in ways}
            for loss, ways in first["losses"].items()
        },
        {side: _means([_schemes(room["small"][side]) for room in found]) for side in first["small"]},
        {step: _row([room["steps"][step] for room in found]) for step in first["steps"]},
    )


def title(name: str) -> str:
    """What a scheme is called: "lean change 25" -> "lean, mode change, 0.25 degrees"."""
    first, *rest = name.split()
    if first in _GATHERED:
        return f"{_GATHERED[first]} by more than {_degrees(rest[0])}" if rest else _GATHERED[first]
    network = "the rule as filters of zone" if first == RULE else first
    if first == "seed" and rest == ["always"]:
        return "seed, mode always: the seed's wave"
    found = f"{network}, {_MODES[rest[0]]}"
    if rest[0] == "event" and first == "zone":
        return f"**{found}**"
    if rest[1:] == ["announced"]:
        return f"{found}, limits announced"
    if first == "lean" and rest == ["event"]:
        return f"{found}, limits known"
    return f"{found}, {_degrees(rest[1])}" if rest[1:] else found


def _degrees(ccel: str) -> str:
    return f"{int(ccel) / 100:.2f} degrees"


def _schemes(by_name: Mapping[str, dict[str, Any]]) -> dict[str, Scheme]:
    return {name: Scheme(**fields) for name, fields in by_name.items()}


def _means(rooms: list[dict[str, Scheme]]) -> dict[str, Scheme]:
    """In the order in which they are told: gathered, always, change, event."""
    return {name: mean(room[name] for room in rooms) for name in sorted(rooms[0], key=_place)}


def _place(name: str) -> tuple[int, int]:
    """Where a scheme stands: among its like by its threshold, if it has one."""
    network, *rest = name.split()
    first = " ".join([network, *rest[:1]]) if network not in _GATHERED else network
    threshold = rest[-1] if rest and rest[-1].isdigit() else "0"
    return _ORDER.index(first), int(threshold)


def _accuracy(scheme: Scheme) -> float:
    return scheme.accuracy if scheme.accuracy is not None else 0.0


def _row(rows: list[Row]) -> Row:
    """The mean of each figure over the rooms that have it, but for the longest time of all."""
    fields = {field for row in rows for field in row}
    by_field = {field: [row[field] for row in rows if field in row] for field in sorted(fields)}
    return {
        field: max(values) if field.endswith("_max") else float(np.mean(values)) for field, values in by_field.items()
    }
