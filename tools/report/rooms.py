"""Which rooms: read from the command line, simulated one after the other, and kept when they are done.

A room takes a minute or two, so each is written to the report's folder as soon as it is finished, under a name that
says all that it came from: what was asked for, and the sources that computed it. What has this name is not done again.
"""

import hashlib
import itertools
import json
import re
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tools.report.room import simulated, stages

ROOM_MAX = 2**31 - 1
ROOMS_MAX = 1_000
# What was promised was promised of these.
ALL_ROOMS, QUICK_ROOMS = "0-9", "0"
_KEY_LEN = 16
_ROOT = Path(__file__).resolve().parents[2]
# What a room's figures come from; tables and pictures may change without simulating anew.
_SOURCES = (
    "protocol",
    "firmware",
    "gateway",
    "sim",
    *(f"tools/{name}.py" for name in ("change", "zones", "zones_loss")),
    *(f"tools/report/{name}.py" for name in ("charge", "lossless", "lossy", "room", "scheme")),
)

# Called with (stages done, stages to do).
Progress = Callable[[int, int], None]


class RoomsError(ValueError):
    """No such rooms; one line names the option, its value and what would be right."""


def parse_rooms(text: str) -> tuple[int, ...]:
    """Rooms' numbers in rising order, each once: "0-9", "0,3,5" or "4".

    Raises:
        RoomsError: it is something else, or too many.
    """
    found: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*([0-9]{1,10})\s*(?:-\s*([0-9]{1,10})\s*)?", part)
        if not match:
            raise RoomsError(f"--rooms {text}: {part.strip() or 'nothing'} is no room; write 0-9, 0,3,5 or 4")
        first, last = int(match[1]), int(match[2] or match[1])
        if not first <= last <= ROOM_MAX:
            raise RoomsError(f"--rooms {text}: {part.strip()} does not lie in 0-{ROOM_MAX}, from low to high")
        if last - first >= ROOMS_MAX or len(found := found | set(range(first, last + 1))) > ROOMS_MAX:
            raise RoomsError(f"--rooms {text}: these are more than {ROOMS_MAX} rooms; ask for fewer")
    return tuple(sorted(found))


def finished(
    rooms: tuple[int, ...], thresholds_ccel: tuple[int, ...], folder: Path, progress: Progress
) -> dict[int, dict[str, Any]]:
    """Every room, as `simulated` gives it: read from the folder, or simulated and written there.

    Args:
        rooms: their numbers.
        thresholds_ccel: as of `simulated`.
        folder: exists, and can be written.
        progress: told after each stage of each room.
    """
    key, found = _key(thresholds_ccel), {}
    by_room = stages(thresholds_ccel)
    to_do = len(rooms) * by_room
    for place, room in enumerate(rooms):
        done = place * by_room
        progress(done, to_do)
        path = folder / f"room-{room}-{key}.json"
        kept = _read(path)
        if kept is None:
            kept = simulated(room, thresholds_ccel, _counted(progress, done, to_do))
            _write(path, kept)
        found[room] = kept
    progress(to_do, to_do)
    return found


def _counted(progress: Progress, done: int, to_do: int) -> Callable[[], None]:
    """What tells of one stage more each time."""
    stage = itertools.count(done + 1)
    return lambda: progress(next(stage), to_do)


def _key(thresholds_ccel: tuple[int, ...]) -> str:
    """A digest of the thresholds, the package's version and the sources."""
    digest = hashlib.sha256(repr((version("thermesh"), thresholds_ccel)).encode())
    for source in _SOURCES:
        path = _ROOT / source
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file() and "__pycache__" not in file.parts:
                digest.update(str(file.relative_to(_ROOT)).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:_KEY_LEN]


def _read(path: Path) -> dict[str, Any] | None:
    """A room that was kept; None: there is none, or not all of it."""
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return found


def _write(path: Path, kept: dict[str, Any]) -> None:
    """All of it or nothing, whenever it is stopped."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(kept) + "\n", encoding="utf-8")
    part.replace(path)
