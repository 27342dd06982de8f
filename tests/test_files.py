"""Files that are replaced as a whole: all of the new one or all of the old one, for whom it was readable before."""

import os
import stat
from pathlib import Path

import pytest

from gateway.files import write_many, write_private, write_whole

every_way = pytest.mark.parametrize("write", [write_whole, write_private])


@every_way
def test_a_file_is_replaced_whether_it_was_there_or_not(tmp_path, write):
    file = tmp_path / "words.txt"
    for data in (b"a long one", b"short"):
        write(file, data)
        assert (data, ["words.txt"]) == (file.read_bytes(), os.listdir(tmp_path))


@every_way
def test_all_of_it_is_on_the_disk_before_it_takes_the_place_of_the_old_one(tmp_path, monkeypatch, write):
    file = tmp_path / "words.txt"
    file.write_bytes(b"old")
    seen = []

    def power_cut(handle):
        seen.append((os.fstat(handle).st_size, file.read_bytes()))
        raise OSError("no power")

    monkeypatch.setattr(os, "fsync", power_cut)
    with pytest.raises(OSError, match="no power"):
        write(file, b"the new one")
    assert ([(11, b"old")], b"old") == (seen, file.read_bytes())


@every_way
def test_its_name_is_on_the_disk_when_it_is_written(tmp_path, monkeypatch, write):
    file, seen = tmp_path / "words.txt", []

    def sync(handle):
        seen.append((Path(f"/proc/self/fd/{handle}").resolve(), file.exists()))

    monkeypatch.setattr(os, "fsync", sync)
    write(file, b"new")
    assert [(tmp_path / "words.txt.new", False), (tmp_path, True)] == seen


def test_who_may_read_a_file_stays_and_a_link_stays_a_link(tmp_path):
    file, link = tmp_path / "words.txt", tmp_path / "link.txt"
    file.write_bytes(b"old")
    file.chmod(0o640)
    link.symlink_to(file)
    write_whole(link, b"new")
    assert (b"new", 0o640, True) == (file.read_bytes(), stat.S_IMODE(file.stat().st_mode), link.is_symlink())


def test_of_many_files_all_are_on_the_disk_before_the_first_takes_its_place(tmp_path, monkeypatch):
    files = {tmp_path / name: name.encode() for name in "abc"}
    next(iter(files)).write_bytes(b"old")
    seen = []
    monkeypatch.setattr(os, "sync", lambda: seen.append({path.name: path.read_bytes() for path in tmp_path.iterdir()}))
    write_many(files, private=True)
    assert [{"a": b"old", "a.new": b"a", "b.new": b"b", "c.new": b"c"}] == seen
    assert {name: name.encode() for name in "abc"} == {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert {0o600} == {stat.S_IMODE(path.stat().st_mode) for path in files}


def test_where_one_of_many_files_cannot_be_written_none_is(tmp_path):
    files = {tmp_path / "a": b"a", tmp_path / "nowhere" / "b": b"b"}
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(FileNotFoundError):
        write_many(files, private=False)
    assert (["a"], b"old") == (os.listdir(tmp_path), (tmp_path / "a").read_bytes())


def test_a_secret_is_for_its_owner_whoever_could_read_the_file_before(tmp_path):
    file = tmp_path / "words.txt"
    file.write_bytes(b"old")
    file.chmod(0o644)
    write_private(file, b"secret")
    assert 0o600 == stat.S_IMODE(file.stat().st_mode)
