"""A gateway's backup: one file with all that a new machine needs to take its place, made while the gateway runs.

A zip file, readable by its owner only, for it holds the site's private key:

    thermesh.db          the store, as it was at one instant
    site-key.pem         the site's key pair (gateway/keys.py)
    passwords.json       where the broker asks for them (gateway/passwords.py)
    broker-ca.pem        with them: who signs the broker's certificate (gateway/certificates.py)
    nodes/n-RR-CC.json   each node's configuration, in which people name its sensor
    manifest.json        format, site, rows, cols, created_s, run, and the SHA-256 of every other file

Runs only rise, so that nodes tell old frames from new ones, and a gateway may have started since its backup was made:
what is restored goes on `RUNS_AHEAD` runs later. Filter versions rise by themselves, above all that nodes speak of.
"""

import hashlib
import json
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gateway import certificates, keys, passwords, running
from gateway.config import RUN, last_run
from gateway.files import private_file, write_whole
from gateway.site import Site
from gateway.store import Store
from gateway.store_schema import FILE, StoreError
from protocol.grid import node_name

FORMAT = 1
# More often than this no gateway starts between its backup and its end.
RUNS_AHEAD = 1_000
NODES = "nodes"
_MANIFEST = "manifest.json"
# The largest site has 65,025 nodes.
_MANIFEST_SIZE_MAX = _TEXT_SIZE_MAX = 1 << 24
_PIECE = 1 << 20
# The year 9999; no calendar goes further.
_CREATED_S_MAX = 253_402_300_799

# As we pack, or not at all: the other ways take as much memory as the file says, 4 GB of it.
_PACKED = (zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED)

# What zipfile raises for archives that are cut short, encrypted, packed in other ways or damaged.
_BROKEN = (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, zlib.error)
_QUOTE_LEN_MAX = 120

Progress = Callable[[int, int], None]


class BackupError(ValueError):
    """The backup cannot be made or used; one line that names file and remedy."""


def make(state: Path, site: Site, target: Path, at_s: float, progress: Progress) -> dict[str, Any]:
    """Write a backup of a gateway's state folder; a gateway that runs in it goes on meanwhile.

    Args:
        state: the folder.
        site: whose it is.
        target: the file; one that is there already is replaced once the new one is whole.
        at_s: now, UTC seconds.
        progress: called with (pages of the store copied, of how many).

    Returns:
        The manifest.

    Raises:
        BackupError, StoreError, SiteKeyError: something cannot be read or written; what was at `target` stays.
    """
    if target.resolve().is_relative_to(state.resolve()):
        raise BackupError(f"{target}: lies in the folder that is to be saved; name a file elsewhere")
    with _errors_named(target, "check the folder and its free space"):
        beside = _new_folder(target.parent, f"{target.name}-unfinished")
        try:
            scratch, copy = beside / "archive", beside / FILE
            with private_file(copy):
                pass  # empty, and its owner's alone, before anything is copied
            with Store(state, site) as store:
                store.copy_to(copy, progress)
                run = store.last_run() or 0
            keys.load(state)
            manifest = {"format": FORMAT, "site": site.name, "rows": site.rows, "cols": site.cols}
            manifest |= {"created_s": at_s, RUN: max(run, _run_of(state))}
            files = {FILE: copy, keys.NAME: state / keys.NAME} | _other_files(state, site)
            with private_file(scratch) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
                manifest["files"] = {name: _add(archive, name, path) for name, path in files.items()}
                archive.writestr(_MANIFEST, json.dumps(manifest))
            scratch.replace(target)
        finally:
            _remove(beside)
    return manifest


def restore(backup: Path, state: Path, site: Site, replace: bool = False) -> dict[str, Any]:
    """Make a gateway's state folder out of a backup.

    Args:
        backup: the file.
        state: the folder; made when it is missing.
        site: whose the backup has to be.
        replace: where the folder holds a store or a key, move what is there aside, into a folder in it.

    Returns:
        The manifest, with the run that the next start goes on from, and `aside`: where what was there is now, or None.

    Raises:
        BackupError: the backup is damaged, of another site or format, or a store is there already.
        RunningError: a gateway runs in the folder. In all cases the folder is as it was.
    """
    with running.claim(state), _errors_named(backup, "name a file that `thermesh backup` wrote"):
        _refuse_to_overwrite(state, replace)
        fresh = _new_folder(state, "restored")
        try:
            with zipfile.ZipFile(backup) as archive:
                manifest = _read_manifest(archive, backup, site)
                for name, digest in manifest["files"].items():
                    _take_out(archive, backup, name, digest, fresh)
            try:
                _check_whole(fresh, site)
            except (StoreError, keys.SiteKeyError) as error:
                raise _damaged(backup, str(error)) from None
            run = max(manifest[RUN] + RUNS_AHEAD, _run_of(state))
            write_whole(fresh / RUN, f"{run}\n".encode())
            aside = _put_in_place(fresh, state, list(manifest["files"]))
        finally:
            _remove(fresh)
    return manifest | {RUN: run, "aside": aside and str(aside)}


def _run_of(state: Path) -> int:
    """The number of the last start, as far as anybody knows: the store knows it too."""
    try:
        return last_run(state)
    except ValueError:
        return 0


def _other_files(state: Path, site: Site) -> dict[str, Path]:
    names = [passwords.NAME, certificates.NAME, *(f"{NODES}/{node_name(*cell)}.json" for cell in site.cells)]
    return {name: state / name for name in names if (state / name).exists()}


def _add(archive: zipfile.ZipFile, name: str, path: Path) -> str:
    """Put a file into the archive; returns its SHA-256."""
    sha = hashlib.sha256()
    with path.open("rb") as source, archive.open(name, "w", force_zip64=True) as target:
        while data := source.read(_PIECE):
            sha.update(data)
            target.write(data)
    return sha.hexdigest()


def _read_manifest(archive: zipfile.ZipFile, backup: Path, site: Site) -> dict[str, Any]:
    """What the backup says of itself, checked to be of this format and site, with none but the files above."""
    for info in archive.infolist():
        if info.compress_type not in _PACKED:
            raise _damaged(backup, "it is packed in a way that no backup is")
    if _MANIFEST not in archive.namelist() or archive.getinfo(_MANIFEST).file_size > _MANIFEST_SIZE_MAX:
        raise _damaged(backup, "it has no manifest.json")
    try:
        manifest: dict[str, Any] = json.loads(archive.read(_MANIFEST))
    except (ValueError, RecursionError):
        raise _damaged(backup, "its manifest.json cannot be read") from None
    form = manifest.get("format") if isinstance(manifest, dict) else None
    if isinstance(form, int) and form > FORMAT:
        raise BackupError(f"{backup}: has format {form}, this thermesh knows {FORMAT}; install a newer one")
    if form != FORMAT or not _is_sound(manifest):
        raise _damaged(backup, "its manifest.json lacks something")
    if (manifest["site"], manifest["rows"], manifest["cols"]) != (site.name, site.rows, site.cols):
        other = f"{manifest['site']} ({manifest['rows']} x {manifest['cols']})"
        raise BackupError(f"{backup}: is of site {other}, not of {site.name} ({site.rows} x {site.cols})")
    return manifest


def _is_sound(manifest: dict[str, Any]) -> bool:
    """Whether it has all that is read of it, in its type, and names no file that does not belong to a state folder."""
    numbers = all(type(manifest.get(name)) is int for name in ("rows", "cols", RUN))
    files = manifest.get("files")
    if not numbers or not isinstance(manifest.get("site"), str) or not isinstance(files, dict):
        return False
    created_s = manifest.get("created_s")
    if not isinstance(created_s, float) or not 0 <= created_s < _CREATED_S_MAX:
        return False
    if not 0 <= manifest[RUN] < 1 << 32 or not {FILE, keys.NAME} <= files.keys():
        return False
    cells = range(min(manifest["rows"], 256)), range(min(manifest["cols"], 256))
    nodes = {f"{NODES}/{node_name(row, col)}.json" for row in cells[0] for col in cells[1]}
    known = {FILE, keys.NAME, passwords.NAME, certificates.NAME} | nodes
    return files.keys() <= known and all(isinstance(digest, str) for digest in files.values())


def _take_out(archive: zipfile.ZipFile, backup: Path, name: str, digest: str, folder: Path) -> None:
    """Write a file of the archive into a folder, piece by piece, and check it."""
    if name not in archive.namelist():
        raise _damaged(backup, f"{name} is not in it")
    if name != FILE and archive.getinfo(name).file_size > _TEXT_SIZE_MAX:
        raise _damaged(backup, f"{name} is far too large")
    sha, path = hashlib.sha256(), folder / name
    path.parent.mkdir(exist_ok=True)
    with archive.open(name) as source, private_file(path) as target:
        while data := source.read(_PIECE):
            sha.update(data)
            target.write(data)
    if sha.hexdigest() != digest:
        raise _damaged(backup, f"{name} is not what was written")


def _check_whole(folder: Path, site: Site) -> None:
    """See that a gateway could start with it."""
    with Store(folder, site) as store:
        store.check_whole()
        active = store.active_model()
        if active:
            keys.check_signed(folder, keys.load(folder), active.filter_set)


def _refuse_to_overwrite(state: Path, replace: bool) -> None:
    for path in (state / FILE, state / keys.NAME):
        if path.exists() and not replace:
            remedy = "name another folder as state, or write --replace to move it aside"
            raise BackupError(f"{path}: is there already; {remedy}")


def _put_in_place(fresh: Path, state: Path, names: list[str]) -> Path | None:
    """Move what was restored into the folder, the store last: until it is there, this can be done once more."""
    names = [name for name in names if name != FILE] + [RUN, FILE]
    there = [name for name in (*names, f"{FILE}-wal", f"{FILE}-shm") if (state / name).exists()]
    aside = None
    if there:
        aside = _new_folder(state, "before-restore")
        (aside / NODES).mkdir()
        for name in there:
            (state / name).rename(aside / name)
    (state / NODES).mkdir(exist_ok=True)
    for name in names:
        (fresh / name).rename(state / name)
    return aside


def _new_folder(parent: Path, name: str) -> Path:
    """A folder that was not there before."""
    number = 1
    while True:
        folder = parent / f"{name}-{number}"
        try:
            folder.mkdir(mode=0o700)
            return folder
        except FileExistsError:
            number += 1


def _remove(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()


@contextmanager
def _errors_named(path: Path, remedy: str) -> Iterator[None]:
    """Turn what goes wrong with a file into one line.

    Raises:
        BackupError: it cannot be read or written, or is no whole zip file.
    """
    try:
        yield
    except OSError as error:
        raise BackupError(f"{error.filename or path}: {error.strerror or error}; {remedy}") from None
    except _BROKEN as error:
        raise _damaged(path, " ".join(str(error).split())[:_QUOTE_LEN_MAX]) from None


def _damaged(backup: Path, what: str) -> BackupError:
    return BackupError(f"{backup}: is no whole backup ({what}); take another one")
