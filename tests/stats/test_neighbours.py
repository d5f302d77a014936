"""Lists of neighbours against neighbours that are looked up one by one."""

import numpy as np
import pytest

from ibma_app.stats.neighbours import AXES, of_triangles, of_voxels, restrict, side_by_side, vertex_areas

SQUARE = np.array([[0.0, 0, 0], [3, 0, 0], [3, 4, 0], [0, 4, 0], [9, 9, 9]])
HALVES = np.array([[0, 1, 2], [2, 3, 0]])


def as_sets(neighbours):
    return [
        set(neighbours.members[a:b].tolist())
        for a, b in zip(neighbours.starts[:-1], neighbours.starts[1:], strict=True)
    ]


def test_vertices_have_their_edges_and_thirds_of_their_triangles():
    mesh = of_triangles(SQUARE, HALVES)
    assert as_sets(mesh) == [{1, 2, 3}, {0, 2}, {0, 1, 3}, {0, 2}, set()]
    np.testing.assert_allclose(mesh.sizes, [4, 2, 4, 2, 0])
    assert (mesh.starts.dtype, mesh.members.dtype, mesh.sizes.dtype) == (np.int64, np.int32, np.float64)
    np.testing.assert_allclose(vertex_areas(SQUARE, HALVES).sum(), 12)


def test_a_triangle_of_a_vertex_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="vertices 0 to 5, of 5"):
        of_triangles(SQUARE, np.array([[0, 1, 5]]))


@pytest.mark.parametrize("connectivity", [6, 18, 26])
def test_voxels_touch_those_that_differ_by_one_along_few_axes(connectivity):
    rng = np.random.default_rng(1)
    indices = rng.permutation(np.argwhere(rng.random((6, 5, 7)) < 0.5))
    apart = np.abs(indices[:, None] - indices)
    touches = (apart.max(axis=2) == 1) & (apart.sum(axis=2) <= AXES[connectivity])
    found = of_voxels(indices, connectivity, 8.0)
    assert as_sets(found) == [set(np.flatnonzero(row).tolist()) for row in touches]
    assert (found.sizes == 8.0).all()


def test_voxels_of_another_connectivity_or_twice_are_refused():
    with pytest.raises(ValueError, match="6, 18 and 26"):
        of_voxels(np.zeros((1, 3), dtype=int), 8)
    with pytest.raises(ValueError, match="twice"):
        of_voxels(np.zeros((2, 3), dtype=int), 6)


def test_parts_side_by_side_do_not_touch_and_subsets_keep_sizes():
    mesh, box = of_triangles(SQUARE, HALVES), of_voxels(np.argwhere(np.ones((1, 1, 3))), 6, 2.0)
    both = side_by_side([mesh, box])
    assert as_sets(both) == [{1, 2, 3}, {0, 2}, {0, 1, 3}, {0, 2}, set(), {6}, {5, 7}, {6}]
    np.testing.assert_allclose(both.sizes, [4, 2, 4, 2, 0, 2, 2, 2])
    kept = np.array([True, False, True, True, True, True, False, True])
    some = restrict(both, kept)
    assert as_sets(some) == [{1, 2}, {0, 2}, {0, 1}, set(), set(), set()]
    np.testing.assert_allclose(some.sizes, both.sizes[kept])
    turned = restrict(both, np.flatnonzero(kept)[::-1])
    assert as_sets(turned) == [set(), set(), set(), {4, 5}, {3, 5}, {3, 4}]
    np.testing.assert_allclose(turned.sizes, both.sizes[kept][::-1])


def test_nothing_has_no_neighbours():
    none = side_by_side(
        [of_voxels(np.empty((0, 3), dtype=int), 6), of_triangles(np.empty((0, 3)), np.empty((0, 3), int))]
    )
    assert none.starts.tolist() == [0]
    assert none.members.size == none.sizes.size == side_by_side([]).sizes.size == 0
