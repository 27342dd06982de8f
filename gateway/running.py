"""What a running service says of itself to other programs, through its state folder.

    service.lock    locked as long as a service runs; the lock ends with its process, however that ends
    service.json    what it knows of nodes, roll-out and learning; replaced as a whole
    service.follow  there when the site's file changed and the service is to follow; the service takes it away
"""

import fcntl
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

LOCK, FACTS, FOLLOW = "service.lock", "service.json", "service.follow"
# Whoever only looks holds the lock for an instant; so often, so long apart a service that starts tries again.
_TRIES, _TRY_S = 20, 0.05
# The largest site's nodes are 65,025 lines of some 90 bytes.
_SIZE_MAX = 1 << 23


class RunningError(ValueError):
    """The state folder cannot be used for this; one line that names file and remedy."""


@contextmanager
def claim(state: Path) -> Iterator[None]:
    """Hold a state folder for the one service that may run in it.

    Raises:
        RunningError: another one runs, or the folder cannot be written.
    """
    path = state / LOCK
    try:
        state.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
    except OSError as error:
        raise RunningError(f"{path}: {error.strerror or error}; name another folder as state") from None
    with file:
        for last in [False] * _TRIES + [True]:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if last:
                    remedy = "stop it, or name another folder as state"
                    raise RunningError(f"{path}: another `thermesh gateway` runs with this folder; {remedy}") from None
                time.sleep(_TRY_S)
        yield


def is_running(state: Path) -> bool:
    """Whether a service holds the folder now.

    Raises:
        RunningError: nobody can tell.
    """
    path = state / LOCK
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    except OSError as error:
        raise RunningError(f"{path}: {error.strerror or error}; make it readable") from None
    return False


def order_to_follow(state: Path) -> None:
    """Tell the service of a folder, which runs or will, that its site's file changed.

    Raises:
        RunningError: the folder cannot be written.
    """
    path = state / FOLLOW
    try:
        path.touch()
    except OSError as error:
        raise RunningError(f"{path}: {error.strerror or error}; make the folder writable") from None


def takes_order(state: Path) -> bool:
    """Whether the service is to follow its site's file; the order is taken away."""
    try:
        (state / FOLLOW).unlink()
    except OSError:  # there is none, or none that could be taken away: then it would be followed again and again
        return False
    return True


def write(state: Path, facts: dict[str, Any]) -> None:
    """Replace what the service says of itself.

    Raises:
        RunningError: it cannot be written; then nothing is there, for what was said before holds no longer.
    """
    path = state / FACTS
    try:
        path.with_suffix(".new").write_text(json.dumps(facts))
        path.with_suffix(".new").replace(path)
    except OSError as error:
        for file in (path, path.with_suffix(".new")):
            with suppress(OSError):
                file.unlink()
        raise RunningError(f"{path}: {error.strerror or error}; check the disk and its free space") from None


def read(state: Path) -> dict[str, Any] | None:
    """What a service said of itself last, whether it still runs or not; None where none ever did.

    Raises:
        RunningError: the file cannot be read, or is damaged.
    """
    path = state / FACTS
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(_SIZE_MAX))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RunningError(f"{path}: {error.strerror or error}; make it readable") from None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not _is_sound(found):
        raise RunningError(f"{path}: is damaged; delete it, `thermesh gateway` writes a new one")
    return found


def _is_sound(found: dict[str, Any]) -> bool:
    """Whether it has all that its readers look at, in its type."""
    try:
        nodes = [node for node in found["nodes"].values() if node is not None]
        learning, rollout = found["learning"], found["rollout"] or {"filters": 0, "state": ""}
        store = found.get("store") or {"unstored": 0, "fault": ""}  # older services did not speak of it
        numbers = [node[key] for node in nodes for key in ("filters", "highest", "refused")]
        numbers += [found["run"], found["cycle"], rollout["filters"], learning["done"], learning["steps"]]
        numbers += [learning["cycles_left"] or 0, store["unstored"]]
        # A service of an older release does not say these.
        numbers += found.get("reports", {}).values()
        numbers += found.get("quarantine", {}).values()
        numbers += [count for kinds in found.get("faults", {}).values() for count in kinds.values()]
        texts = [*(node["phase"] for node in nodes), rollout["state"], learning["state"], learning["last"]]
        texts.append(store["fault"])
        encryption = found.get("encryption", {"gateway": "", "nodes": {}})  # services of before said nothing of it
        numbers += encryption["nodes"].values()
        texts.append(encryption["gateway"])
    except (AttributeError, KeyError, TypeError):
        return False
    return all(type(number) is int for number in numbers) and all(isinstance(text, str) for text in texts)
