"""What a service says of itself to other programs: that it runs, and how things stand."""

import json
import signal
import subprocess
import sys

import pytest

from gateway import running
from gateway.running import FACTS, RunningError

SOUND = {
    "run": 1,
    "cycle": 2,
    "model": {"filters": 3, "head": 4},
    "rollout": {"filters": 3, "state": "decides"},
    "nodes": {"n-00-00": None, "n-00-01": {"filters": 3, "highest": 3, "phase": "confirmed", "refused": 0}},
    "learning": {"state": "off", "cycles_left": None, "done": 0, "steps": 0, "last": ""},
    "reports": {"late": 3, "gaps": 1},
    "store": {"unstored": 0, "fault": ""},
    "quarantine": {"n-00-01": 7},
    "faults": {"n-00-01": {"flood": 7}},
    "encryption": {"gateway": "certificate", "nodes": {"psk": 2}},
}
# What a service of an older release does not say.
NEWER = ("encryption", "reports", "store", "quarantine", "faults")


def test_a_folder_is_held_as_long_as_its_service_runs(tmp_path):
    state = tmp_path / "state"
    assert not running.is_running(state)
    with running.claim(state):
        assert running.is_running(state)
    assert not running.is_running(state)
    with running.claim(state):
        pass


def test_a_second_service_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(running, "_TRIES", 1)
    line = r"service\.lock: another `thermesh gateway` runs with this folder; stop it, or name another folder"
    with running.claim(tmp_path), pytest.raises(RunningError, match=line), running.claim(tmp_path):
        pass
    assert not running.is_running(tmp_path)


HOLD = """
import sys
from pathlib import Path
from gateway import running

with running.claim(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_service_that_was_killed_holds_nothing(tmp_path, request):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, cwd=request.config.rootpath, **pipes) as service:
        assert b"held\n" == service.stdout.readline()
        assert running.is_running(tmp_path)
        service.send_signal(signal.SIGKILL)
    assert not running.is_running(tmp_path)


def test_what_an_older_service_said_is_read(tmp_path):
    running.write(tmp_path, without("store"))
    assert without("store") == running.read(tmp_path)


def test_what_is_written_is_read(tmp_path):
    assert running.read(tmp_path) is None
    running.write(tmp_path, SOUND)
    assert SOUND == running.read(tmp_path)


def test_what_cannot_be_written_is_not_read_as_it_was_before(tmp_path, monkeypatch):
    def full(_path, _text):
        raise OSError(28, "No space left on device")

    running.write(tmp_path, SOUND)
    with monkeypatch.context() as patch:
        patch.setattr(running.Path, "write_text", full)
        with pytest.raises(RunningError, match=r"service\.json: No space left on device; check the disk and its free"):
            running.write(tmp_path, SOUND)
    assert running.read(tmp_path) is None
    running.write(tmp_path, SOUND)
    assert SOUND == running.read(tmp_path)


def test_what_an_older_release_wrote_is_read(tmp_path):
    older = {name: value for name, value in SOUND.items() if name not in NEWER}
    running.write(tmp_path, older)
    assert older == running.read(tmp_path)


def without(key):
    return {name: value for name, value in SOUND.items() if name != key}


DAMAGED = {
    "empty": "",
    "cut": json.dumps(SOUND)[:-9],
    "deep": "[" * 100_000,
    "a list": "[]",
    "no UTF-8": "\udcff",
    **{f"without {key}": json.dumps(without(key)) for key in SOUND if key not in ("model", *NEWER)},
    "encryption as a list": json.dumps(SOUND | {"encryption": []}),
    "an encryption without nodes": json.dumps(SOUND | {"encryption": {"gateway": "none"}}),
    "a word as a count": json.dumps(SOUND | {"encryption": {"gateway": "none", "nodes": {"psk": "x"}}}),
    "nodes as a list": json.dumps(SOUND | {"nodes": [1]}),
    "a node as a number": json.dumps(SOUND | {"nodes": {"n-00-00": 7}}),
    "a version as a text": json.dumps(SOUND | {"rollout": {"filters": "3", "state": "decides"}}),
    "gaps as a text": json.dumps(SOUND | {"reports": {"late": 0, "gaps": "1"}}),
    "a fault as a number": json.dumps(SOUND | {"store": {"unstored": 0, "fault": 7}}),
    "a count as a text": json.dumps(SOUND | {"store": {"unstored": "0", "fault": ""}}),
    "a store without a count": json.dumps(SOUND | {"store": {"fault": ""}}),
    "dropped messages as a text": json.dumps(SOUND | {"quarantine": {"n-00-00": "many"}}),
    "faults of no kind": json.dumps(SOUND | {"faults": {"n-00-00": 7}}),
    "a last sentence as a list": json.dumps(SOUND | {"learning": SOUND["learning"] | {"last": []}}),
}


@pytest.mark.parametrize("text", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file_is_named(tmp_path, text):
    (tmp_path / FACTS).write_text(text, errors="surrogateescape")
    with pytest.raises(RunningError, match=r"service\.json: is damaged; delete it, `thermesh gateway` writes"):
        running.read(tmp_path)
