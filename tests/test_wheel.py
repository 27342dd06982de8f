"""The distribution: pins that fit the declaration, a wheel that holds everything and runs outside the clone."""

import json
import os
import re
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("firmware", "gateway", "protocol", "sim", "tools")
PINS = [ROOT / "requirements" / "base.txt", ROOT / "requirements" / "all.txt"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = [word for words in PROJECT["optional-dependencies"].values() for word in words]
# glibc of 64-bit Raspberry Pi OS since 2021 (Debian 11) and older: a wheel for any of these installs there.
AARCH64 = ["manylinux_2_31", "manylinux_2_28", "manylinux_2_27", "manylinux_2_26", "manylinux_2_17", "manylinux2014"]


def run(*command, cwd, seconds_max=600):
    """Run a command without this clone on any path; gives the finished process, which succeeded."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
    result = subprocess.run(
        [str(word) for word in command], cwd=cwd, env=env, capture_output=True, text=True, timeout=seconds_max
    )
    assert result.returncode == 0, f"{command[:4]} ended with {result.returncode}:\n{result.stdout}{result.stderr}"
    return result


def pinned(path):
    """Name -> versions pinned; several where Python versions differ."""
    versions = {}
    for name, version in re.findall(r"^([a-z0-9-]+)==(\S+)", path.read_text(encoding="utf-8"), re.MULTILINE):
        versions.setdefault(name, []).append(version)
    return versions


@pytest.mark.parametrize(("path", "words"), [(PINS[0], []), (PINS[1], EXTRAS)], ids=["base", "all"])
def test_every_dependency_is_pinned_within_its_bounds(path, words):
    versions = pinned(path)
    for requirement in map(Requirement, PROJECT["dependencies"] + words):
        assert versions.get(requirement.name), f"{requirement.name}: not in {path.name}; run make pins"
        assert all(version in requirement.specifier for version in versions[requirement.name]), requirement


@pytest.mark.parametrize("path", PINS, ids=lambda path: path.name)
def test_every_pin_has_a_hash_and_none_names_a_place(path):
    text = path.read_text(encoding="utf-8")
    entries = re.split(r"^(?=\S)", text, flags=re.MULTILINE)[1:]
    assert entries
    assert [entry.split()[0] for entry in entries if "--hash=sha256:" not in entry] == []
    assert not re.search(r"://|find-links|index-url|^torch==", text, re.MULTILINE)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built by the pinned hatchling."""
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=ROOT)
    (path,) = folder.glob("thermesh-*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The bin folder of an empty virtual environment that holds the wheel and its pinned dependencies."""
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, with_pip=True)
    pip = [folder / "bin" / "python", "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--no-input"]
    run(*pip, "--require-hashes", "-r", PINS[0], cwd=folder)
    run(*pip, "--no-deps", wheel, cwd=folder)
    return folder / "bin"


@pytest.mark.slow
def test_the_wheel_holds_everything_but_tests(wheel):
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    sources = {
        str(path.relative_to(ROOT))
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and not {"__pycache__", ".mypy_cache", ".ruff_cache"} & set(path.parts)
    }
    assert names == sources


@pytest.mark.slow
def test_the_wheel_installed_elsewhere_shows_its_help(installed, tmp_path):
    assert "demo" in run(installed / "thermesh", "--help", cwd=tmp_path).stdout


@pytest.mark.slow
def test_the_wheel_installed_elsewhere_runs_the_demo(installed, tmp_path):
    answer = json.loads(run(installed / "thermesh", "demo", "--cycles", "2", "--json", cwd=tmp_path).stdout)
    assert answer["cycles"] == 2
    assert answer["exact"]["compared"] == answer["exact"]["equal"] > 0


@pytest.mark.slow
def test_nothing_of_the_wheel_is_imported_from_the_clone(installed, tmp_path):
    script = f"import {', '.join(FOLDERS)}; print(*({', '.join(f'{folder}.__file__' for folder in FOLDERS)},))"
    places = run(installed / "python", "-c", script, cwd=tmp_path).stdout.split()
    assert all(Path(place).is_relative_to(installed.parent) for place in places), places


@pytest.mark.slow
def test_the_base_install_resolves_from_wheels_on_a_64_bit_raspberry_pi(installed, tmp_path):
    platforms = [word for name in AARCH64 for word in ("--platform", f"{name}_aarch64")]
    pip = [installed / "python", "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--no-input"]
    target = ["--dry-run", "--target", tmp_path, "--only-binary=:all:", "--python-version", "3.11"]
    done = run(*pip, *target, *platforms, "--require-hashes", "-r", PINS[0], cwd=tmp_path)
    assert 0 == done.returncode
