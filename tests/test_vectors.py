"""The golden files: they are what the reference says today, and the reference is nobody's copy."""

import ast
from pathlib import Path

import pytest

from gateway.model import SPECS
from tools.rig import make_vectors, reference

TEXTS = make_vectors.vectors()


@pytest.mark.parametrize("name", TEXTS)
def test_a_golden_file_is_what_the_reference_makes(name):
    golden = (make_vectors.FOLDER / name).read_text(encoding="utf-8")
    assert golden == TEXTS[name], "run python -m tools.rig.make_vectors, with a new wire version"


def test_there_are_no_other_golden_files_and_they_are_small():
    files = list(make_vectors.FOLDER.iterdir())
    assert set(TEXTS) == {path.name for path in files}
    assert sum(path.stat().st_size for path in files) < 200_000


def test_the_reference_imports_nothing_of_ours():
    tree = ast.parse(Path(reference.__file__).read_text(encoding="utf-8"))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert [ast.unparse(node) for node in imports] == ["from typing import Any"]


def test_the_meshes_have_the_layers_of_the_specs():
    assert {name: tuple(map(tuple, spec.layers)) for name, spec in SPECS.items()} == make_vectors.SHAPES
