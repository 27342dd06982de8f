"""`thermesh report traffic`: what every scheme costs and how right it is, as a page, a picture and one JSON object."""

import json
from pathlib import Path
from typing import Any

from gateway.carried_reports import THRESHOLD_CCEL
from tools.change import THRESHOLDS_CCEL
from tools.model_choice import Stage
from tools.report.page import page
from tools.report.picture import check, draw
from tools.report.rooms import ALL_ROOMS, QUICK_ROOMS, finished, parse_rooms
from tools.report.summary import summary
from tools.report.verdicts import Verdict, verdicts


def traffic(rooms: str | None, quick: bool, folder: Path, stage: Stage) -> dict[str, Any]:
    """Simulate what is not in the folder yet, and write traffic.md, traffic.png and traffic.json into it.

    Args:
        rooms: as `parse_rooms`; None: ALL_ROOMS, or QUICK_ROOMS.
        quick: with one threshold only.
        folder: is made; rooms are kept in it under rooms/.
        stage: opens progress bars.

    Returns:
        What traffic.json holds: the fields of Report, and `verdicts`.

    Raises:
        RoomsError: no such rooms.
        ValueError: there is no matplotlib.
        OSError: the folder cannot be written.
    """
    numbers = parse_rooms((QUICK_ROOMS if quick else ALL_ROOMS) if rooms is None else rooms)
    check()
    (folder / "rooms").mkdir(parents=True, exist_ok=True)
    thresholds = (THRESHOLD_CCEL,) if quick else THRESHOLDS_CCEL
    report = summary(finished(numbers, thresholds, folder / "rooms", stage("rooms, stage by stage")))
    found = verdicts(report)
    answer = report.as_json() | {"verdicts": [one._asdict() for one in found]}
    draw(report, folder / "traffic.png")
    command = "thermesh report traffic" + (f" --rooms {rooms}" if rooms else "") + (" --quick" if quick else "")
    (folder / "traffic.md").write_text(page(report, found, command), encoding="utf-8")
    (folder / "traffic.json").write_text(json.dumps(answer, indent=1) + "\n", encoding="utf-8")
    return answer


def lines(answer: dict[str, Any]) -> list[str]:
    """The verdicts, for people."""
    found = [Verdict(**one) for one in answer["verdicts"]]
    head = f"rooms {', '.join(map(str, answer['rooms']))}; promised of the mean of rooms {ALL_ROOMS}:"
    return [head] + [f"{'holds ' if one.holds else 'MISSED'}  {one.what}: {one.figure}" for one in found]


def holds(answer: dict[str, Any]) -> bool:
    """Whether all that was promised does."""
    return all(one["holds"] for one in answer["verdicts"])
