"""TFCE, areas and clusters on meshes against Connectome Workbench and the package `tfce` (pinned numbers).

Both compute in single precision (6e-8 of a number): 1e-6 of the peak leaves room for their sums.
"""

import importlib.util
import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from ibma_app.core.anatomy.elements import Elements
from ibma_app.core.anatomy.structures import Mesh, Surface
from ibma_app.inference.neighbourhood import find_neighbours
from ibma_app.stats.components import ClusterWorkspace
from ibma_app.stats.neighbours import listed
from ibma_app.stats.tfce import TfceWorkspace

HERE = Path(__file__).parents[1] / "reference"
PINNED = json.loads((HERE / "surface_clusters.json").read_text(encoding="utf-8"))
SPEC = importlib.util.spec_from_file_location("surface_clusters", HERE / "surface_clusters.py")
SCRIPT = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(SCRIPT)


@cache
def load(name):
    """The neighbours of a mesh, its map, and each how-manieth vertex is pinned."""
    make, step = SCRIPT.MESHES[name]
    points, triangles = make()
    mesh = Mesh(points.astype(np.float64), triangles, name)
    shape = Elements.whole((Surface("CORTEX_LEFT", len(points), mesh=mesh),), ".gii")
    return find_neighbours(shape, 26), SCRIPT.make_map(points).astype(np.float64), step


@pytest.fixture(params=list(PINNED))
def mesh(request):
    return *load(request.param), PINNED[request.param]


def each_sign(workspace, values):
    """Enhance positive and negative parts."""
    out = np.zeros(values.size)
    for sign in (1, -1):
        high = np.flatnonzero(sign * values > 0)
        out[high] = sign * workspace.each(high, sign * values[high])
    return out


def test_vertex_areas_are_workbenchs(mesh):
    neighbours, _, step, pinned = mesh
    areas = neighbours.sizes
    np.testing.assert_allclose(areas[::step], pinned["areas"], rtol=0, atol=1e-6 * areas.max())


@pytest.mark.parametrize(("key", "e", "h"), [("tfce", 1.0, 2.0), ("others", 0.6, 1.5)])
def test_tfce_is_workbenchs(mesh, key, e, h):
    neighbours, values, step, pinned = mesh
    peak = pinned["peaks"][key]
    found = each_sign(TfceWorkspace(neighbours, e, h), values)
    np.testing.assert_allclose(found[::step], pinned[key], rtol=0, atol=1e-6 * peak)
    assert abs(found).max() == pytest.approx(peak, rel=1e-6)


def test_tfce_of_numbers_of_vertices_is_the_packages(mesh):
    neighbours, values, step, pinned = mesh
    found = each_sign(TfceWorkspace(neighbours._replace(sizes=np.ones(values.size)), 0.5, 2.0), values)
    np.testing.assert_allclose(found[::step], pinned["counts"], rtol=0, atol=1e-6 * pinned["peaks"]["counts"])


def test_clusters_are_workbenchs(mesh):
    neighbours, values, step, pinned = mesh
    high = np.flatnonzero(values > SCRIPT.THRESHOLD)
    workspace = ClusterWorkspace(neighbours)
    labels = workspace.labels(high)
    areas, _ = workspace.sums(high, np.ones(high.size))
    large = areas >= SCRIPT.LEAST_AREA
    found = np.zeros(values.size, dtype=int)
    found[high[large]] = np.unique(labels[large], return_inverse=True)[1] + 1
    assert found.max() == pinned["n_clusters"]
    assert labels.max() > pinned["n_clusters"]  # some are too small
    np.testing.assert_array_equal(found[::step], pinned["clusters"])


def test_vertices_of_no_triangle_and_pairs_of_one_count():
    both = TfceWorkspace(listed(np.array([[0, 1]]), np.array([2.0, 3.0, 0.0])), 1.0, 2.0)
    np.testing.assert_allclose(both.each(np.arange(3), np.full(3, 3.0)), [45.0, 45.0, 0.0])
