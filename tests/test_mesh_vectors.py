"""Whole meshes: the node's parts on both runtimes and the gateway's twin come to the golden features."""

import json

import numpy as np
import pytest
from on_micropython import run
from replay import replay

from gateway import twin
from gateway.model import Filters, LayerShape, NodeLayer
from gateway.site import Site
from tools.rig import interpreter
from tools.rig.make_vectors import FOLDER, SHAPES

MESHES = json.loads((FOLDER / "mesh.json").read_text(encoding="utf-8"))
every_mesh = pytest.mark.parametrize("mesh", MESHES, ids=lambda mesh: mesh["says"])
RESULTS = ("absence", "units", "features")

REPLAY_ALL = f"""
import json, sys
sys.path.append({str(interpreter.SOURCES / "tests")!r})
from replay import replay
with open({str(FOLDER / "mesh.json")!r}) as file:
    print(json.dumps([replay(mesh) for mesh in json.load(file)]))
"""


def golden(mesh):
    return {name: mesh[name] for name in RESULTS}


def on_twin(mesh):
    """The twin's site, filters, readings and where there are some."""
    grid = [(row, col) for row in range(mesh["rows"]) for col in range(mesh["cols"])]
    site = Site("golden", mesh["rows"], mesh["cols"], tuple(cell for cell in grid if [*cell] not in mesh["holes"]))
    layers = []
    shapes = SHAPES[mesh["says"].partition(",")[0]]
    for shape, numbers in zip(map(LayerShape._make, shapes), mesh["layers"], strict=True):
        bias, weights = np.array(numbers["bias"], np.int32), np.array(numbers["weights"], np.int8)
        layers.append(
            NodeLayer.of(shape, numbers["shift"], bias, weights.reshape(shape.filters, shape.channels_in, -1))
        )
    readings = np.array([[value or 0 for value in row] for row in mesh["readings"]], np.int16)
    present = np.array([[value is not None for value in row] for row in mesh["readings"]])
    return site, Filters(3, mesh["reference_ccel"], tuple(layers)), readings, present


def listed(features):
    """The twin's features as the golden file has them: None where nothing was pooled."""
    return [[None if block[0] == twin.NOTHING else block for block in row] for row in features.tolist()]


@every_mesh
def test_nodes_come_to_the_golden_units(mesh):
    assert golden(mesh) == replay(mesh)


def test_nodes_on_micropython_come_to_the_golden_units():
    assert [golden(mesh) for mesh in MESHES] == json.loads(run(REPLAY_ALL))


@every_mesh
def test_the_twin_comes_to_the_golden_units(mesh):
    site, filters, readings, present = on_twin(mesh)
    units = twin.units(filters, readings, present, site.neighbour_masks, np.array(mesh["absence"], np.uint8))
    expected = [[unit or [0] * units.shape[-1] for unit in row] for row in mesh["units"]]
    assert expected == units.tolist()
    assert mesh["features"] == listed(twin.pool(units, present))


@every_mesh
def test_the_twin_knows_what_missing_readings_do_without_being_told(mesh):
    site, filters, readings, present = on_twin(mesh)
    expected = replay(mesh | {"absence": np.zeros_like(mesh["absence"]).tolist()})["features"]
    if "nothing lost" in mesh["says"]:
        assert mesh["features"] == expected
    assert expected == listed(twin.features(filters, readings[np.newaxis], present[np.newaxis], site)[0])
