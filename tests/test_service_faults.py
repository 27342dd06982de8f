"""A running gateway under faults: it says in one line what is wrong, decides on, and loses nothing acknowledged."""

import re
import resource
import shutil
import socket
import subprocess
import sys
from contextlib import contextmanager

import pytest
from broker_bench import until
from live_service import SITE, STORED, UNSTORED, WAIT_S_MAX, Service, write_files
from store_bench import rows_of

from gateway.broker import LOOPBACK
from gateway.keys import NAME as KEY
from gateway.store import Store
from gateway.store_age import CHUNK_CYCLES
from gateway.store_schema import FILE
from tools.cli import WRONG
from tools.rig.interpreter import SOURCES

STOPPED = 130
POINTS = 20


@contextmanager
def own_disk(folder):
    """A disk of 16 MB at a folder; skips where it cannot be mounted."""
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", folder], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount a disk here: {done.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


class Quota:
    """Files of the gateway cannot grow beyond the store's log: needs no rights."""

    def __init__(self, service):
        self._service = service

    def fill(self, left):
        self._service.allow_files_of((self._service.state / f"{FILE}-wal").stat().st_size + left)

    def free(self):
        self._service.allow_files_of(None)


class Ballast:
    """A file on the gateway's own disk that takes all but so many bytes."""

    def __init__(self, service):
        self._file = service.state / "ballast"

    def fill(self, left):
        with self._file.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4_096))
            except OSError:
                file.truncate(max(0, file.tell() - left))

    def free(self):
        self._file.unlink()


def survive(service, disk):
    """Fill the disk at twenty points, with room for a part of a cycle, or of several.

    Returns:
        What was said of it, and what `thermesh filters status` would have shown each time.
    """
    shown = []
    for point in range(POINTS):
        disk.fill(point * 1_500)
        until(lambda point=point: len(service.lines(UNSTORED)) > point, service.last_words, WAIT_S_MAX)
        service.goes_on(acknowledged=False)
        shown.append(service.facts())
        disk.free()
        until(lambda point=point: len(service.lines(STORED)) > point, service.last_words, WAIT_S_MAX)
        service.goes_on()
    shown.append(service.facts())
    assert STOPPED == service.stop()
    assert set() == service.lost()
    assert list(range(len(service.decided))) == service.decided
    assert not service.lines("Traceback")
    return service.lines("ERROR", STORED), shown


@pytest.mark.slow
def test_a_disk_that_is_full_at_twenty_points_is_said_once_each_time_and_costs_nothing_acknowledged(tmp_path):
    with Service(tmp_path) as service:
        said, shown = survive(service, Quota(service))
    fault = f"{service.state / FILE}: cannot be read or written; check the disk and its free space"
    assert [fault] * POINTS == [line.partition(UNSTORED)[2] for line in said[::2]]
    assert POINTS == len([line for line in said[1::2] if STORED in line])
    assert 2 * POINTS == len(said)
    assert [fault] * POINTS + [""] == [facts["store"]["fault"] for facts in shown]


@pytest.mark.slow
def test_a_disk_of_its_own_without_space_at_twenty_points_is_survived_too(tmp_path):
    """Then nobody can write how things stand either: what was written before is gone, and gives room for a cycle."""
    with own_disk(tmp_path / "state"), Service(tmp_path) as service:
        said, shown = survive(service, Ballast(service))
    fault = f"{service.state / FILE}: the disk is full; free some space"
    found = [line.partition(UNSTORED)[2] for line in said if UNSTORED in line]
    assert {fault} == set(found)
    assert POINTS <= len(found) == len([line for line in said if STORED in line]) < 2 * POINTS
    assert {None, fault, ""} >= {facts and facts["store"]["fault"] for facts in shown[:-1]}
    assert "" == shown[-1]["store"]["fault"]


def test_clocks_that_jump_by_a_year_change_neither_order_nor_pace_nor_what_is_kept(tmp_path):
    with Service(tmp_path) as service:
        for chunks in (0, 2, 4):  # while a clock stands still nothing becomes old
            service.next_clock()
            service.goes_on(2 * CHUNK_CYCLES)
            assert chunks <= rows_of(service.state, "chunks")
        assert not service.lines("ERROR", "WARNING", "Traceback")
        assert STOPPED == service.stop()
    assert set() == service.lost()
    assert [(1, cycle) for cycle in service.decided] == service.stored()[: len(service.decided)]


@pytest.mark.parametrize("there", [False, True])
def test_a_store_that_is_deleted_or_replaced_under_way_gets_no_report_acknowledged(tmp_path, there):
    with Service(tmp_path) as service:
        store = service.state / FILE
        store.rename(tmp_path / "aside")
        if there:
            store.write_bytes((tmp_path / "aside").read_bytes())
        until(lambda: service.lines(UNSTORED), service.last_words, WAIT_S_MAX)
        service.goes_on(acknowledged=False)
        (tmp_path / "aside").replace(store)
        until(lambda: service.lines(STORED), service.last_words, WAIT_S_MAX)
        service.goes_on()
        service.stop()
    (said,) = service.lines(UNSTORED)
    assert said.endswith(f"{store}: was deleted or replaced while it was in use; start this program anew")
    assert (set(), []) == (service.lost(), service.lines("Traceback"))


def test_a_store_that_is_damaged_under_way_is_named_and_no_report_is_acknowledged_any_more(tmp_path):
    with Service(tmp_path) as service:
        store = service.state / FILE
        with store.open("r+b") as file:
            file.write(b"\xa5" * store.stat().st_size)
        until(lambda: service.lines(UNSTORED), service.last_words, WAIT_S_MAX)
        known = len(service.acknowledged)
        service.goes_on(20, acknowledged=False)
        assert len(service.acknowledged) <= known + 1  # one may have been on its way
        service.stop()
    consequences = [line.partition(": ")[0] for line in service.lines("ERROR")]
    assert len(consequences) == len(set(consequences))
    assert all(" is damaged; put a backup in its place, or move it away" in line for line in service.lines("ERROR"))
    assert [] == service.lines("Traceback")


# At the start


def start(config, file_size=None):
    """Run a gateway for a cycle; it writes no file of more bytes, where a number is given."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft if file_size is None else file_size, hard))

    command = [sys.executable, "-m", "tools.cli", "gateway", "--config", str(config), "--cycles", "1"]
    return subprocess.run(
        command, cwd=SOURCES, capture_output=True, text=True, timeout=WAIT_S_MAX, preexec_fn=limit, check=False
    )


def refusal(config, file_size=None):
    """Why a gateway does not start: its one line."""
    done = start(config, file_size)
    lines = [line for line in done.stderr.splitlines() if " INFO " not in line]
    assert (WRONG, 1) == (done.returncode, len(lines)), done.stderr
    return lines[0]


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The folder of a gateway that ran for a cycle."""
    folder = tmp_path_factory.mktemp("ran")
    assert 0 == start(write_files(folder)).returncode
    return folder


def scramble(file):
    file.write_bytes(b"\xa5" * 9_999)


def empty_head(file):
    with Store(file.parent, SITE) as store:
        store._database.execute("UPDATE models SET head = x'0101'")


def cut_filters(file):
    with Store(file.parent, SITE) as store:
        store._database.execute("UPDATE models SET filter_set = CAST(substr(filter_set, 1, 30) AS BLOB)")


def unreadable(file):
    file.unlink()
    file.mkdir()


@pytest.mark.parametrize(
    ("name", "change", "line"),
    [
        (f"state/{FILE}", scramble, "is damaged; put a backup in its place, or move it away to start a new one"),
        (f"state/{FILE}", empty_head, r"is damaged; .* \(filters 1 with head 1: a head cut short\)"),
        (f"state/{FILE}", cut_filters, r"is damaged; .* \(filters 1 with head 1: "),
        (f"state/{KEY}", scramble, "."),
        ("state/run", scramble, "holds no number; write the number of the last run there"),
        ("gateway.toml", scramble, "is not TOML: "),
        ("gateway.toml", unreadable, "cannot be read: Is a directory; write site = "),
        ("site.toml", scramble, "is not TOML: "),
        ("site.toml", unreadable, "cannot be read: Is a directory; write a site file there"),
    ],
)
def test_what_cannot_be_used_at_the_start_is_named_in_one_line(ran, tmp_path, name, change, line):
    shutil.copytree(ran, tmp_path / "copy")
    file = tmp_path / "copy" / name
    change(file)
    assert re.match(f"thermesh: {re.escape(str(file))}: {line}", refusal(tmp_path / "copy" / "gateway.toml"))


@pytest.mark.parametrize("file_size", [0, 4_096, 40_000])
def test_a_first_start_on_a_full_disk_is_named_and_the_next_one_makes_it_good(tmp_path, file_size):
    config = write_files(tmp_path)
    line = f"thermesh: {tmp_path / 'state' / FILE}: cannot be read or written; check the disk and its free space"
    assert line == refusal(config, file_size)
    assert (0, 1) == ((done := start(config)).returncode, done.stdout.count("nothing heard"))


def test_a_broker_port_on_which_no_broker_answers_is_named(ran, tmp_path):
    shutil.copytree(ran, tmp_path / "copy")
    config = tmp_path / "copy/gateway.toml"
    with socket.create_server((LOOPBACK, 0)) as server:
        port = server.getsockname()[1]
    config.write_text(f'broker = "{LOOPBACK}:{port}"\n' + config.read_text())
    assert re.match(f"thermesh: .*{LOOPBACK}:{port}: ", refusal(config))


def test_an_own_brokers_port_that_another_program_took_is_given_up_for_another(ran, tmp_path):
    shutil.copytree(ran, tmp_path / "copy")
    remembered = int((tmp_path / "copy/state/broker/port").read_text())
    with socket.create_server((LOOPBACK, remembered)):
        done = start(tmp_path / "copy/gateway.toml")
    assert (0, 1) == (done.returncode, done.stdout.count("nothing heard"))
    assert f":{remembered}" not in done.stderr
