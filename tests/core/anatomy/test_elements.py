"""Elements of structures: a mesh, some voxels of a grid and a table of regions, side by side."""

import numpy as np
import pytest

from ibma_app.core.anatomy.elements import Elements
from ibma_app.core.anatomy.structures import Mesh, Parcels, Surface, Voxels
from ibma_app.core.errors import UsageError
from ibma_app.core.grid import Grid

# a tetrahedron with legs of 2 mm: three right triangles of 2 mm2, and one of 2 sqrt(3)
TETRAHEDRON = Mesh(
    np.array([[0.0, 0, 0], [2, 0, 0], [0, 2, 0], [0, 0, 2]]),
    np.array([[0, 1, 2], [0, 1, 3], [0, 2, 3], [1, 2, 3]], dtype=np.int32),
    "tetrahedron",
)
LEFT = Surface("CORTEX_LEFT", 4, mesh=TETRAHEDRON)
NUCLEUS = Voxels(
    "THALAMUS_LEFT",
    np.array([[5, 5, 5], [5, 5, 6], [6, 6, 6], [9, 9, 9]], dtype=np.int32),
    np.diag([2.0, 2.0, 2.0, 1.0]),
    (12, 12, 12),
)
TABLE = Parcels("Toy", ("one", "two"), np.array([1, 2]))


def shape(*structures):
    return Elements.whole(structures, ".gii")


def test_areas_are_a_third_of_each_triangle():
    slanted = 2.0 * np.sqrt(3.0)
    np.testing.assert_allclose(TETRAHEDRON.areas, [2.0, *[(4.0 + slanted) / 3.0] * 3], rtol=1e-12)
    assert TETRAHEDRON.areas.sum() == pytest.approx(6.0 + slanted)


def test_pairs_never_cross_structures_and_count_the_mask():
    both = shape(LEFT, NUCLEUS)
    assert len(both.pairs(26)) == 6 + 3  # edges; the first three voxels share a face, an edge and a corner
    assert len(both.pairs(6)) == 6 + 1
    assert both.pairs(18).tolist()[-2:] == [[4, 5], [5, 6]]
    without = both.with_mask(np.array([True, False, True, True, True, True, False, True]))
    assert without.pairs(26).tolist() == [[0, 1], [0, 2], [1, 2], [3, 4]]


def test_corners_are_neighbours_of_26_alone():
    corner = Voxels("BRAIN_STEM", np.array([[0, 0, 0], [1, 1, 1]], dtype=np.int32), np.eye(4), (2, 2, 2))
    assert [len(corner.pairs(n)) for n in (6, 18, 26)] == [0, 0, 1]


def test_regions_have_no_neighbours_and_size_one():
    assert shape(TABLE).pairs(26).shape == (0, 2)
    assert shape(TABLE).sizes_at(np.array([0, 1])).tolist() == [1.0, 1.0]


def test_without_a_mesh_the_message_says_what_to_give():
    with pytest.raises(UsageError, match=r"CORTEX_RIGHT \(4 vertices\).*--surface R=FILE"):
        shape(Surface("CORTEX_RIGHT", 4)).pairs(26)


def test_where_what_and_how_large():
    both = shape(LEFT, NUCLEUS, TABLE).with_mask(np.array([False, True, *[True] * 8]))
    at = np.array([0, 3, 8])
    np.testing.assert_allclose(both.places_at(at)[:2], [[2, 0, 0], [10, 10, 10]])
    assert np.isnan(both.places_at(at)[2]).all()
    np.testing.assert_allclose(both.sizes_at(at), [TETRAHEDRON.areas[1], 8.0, 1.0])
    assert both.structures_at(at).tolist() == [0, 1, 2]
    assert both.labels_at(at) == [1, 5 * 144 + 5 * 12 + 5, "two"]
    assert not both.placed
    assert shape(LEFT, NUCLEUS).placed


def test_nouns():
    assert [shape(*some).noun for some in ((LEFT,), (NUCLEUS,), (TABLE,), (LEFT, NUCLEUS))] == [
        "vertices", "voxels", "parcels", "grayordinates",
    ]  # fmt: skip


def test_other_orders_of_the_same_elements_are_found_by_what_they_are():
    turned = Voxels("THALAMUS_LEFT", NUCLEUS.indices[[2, 0, 3, 1]], NUCLEUS.affine, NUCLEUS.box)
    ours, theirs = shape(LEFT, NUCLEUS), shape(turned, LEFT)
    assert not ours.matches(theirs)
    order = ours.order_in(theirs)
    assert order.tolist() == [4, 5, 6, 7, 1, 3, 0, 2]
    values = np.concatenate([np.array([50.0, 51.0, 52.0, 53.0])[[2, 0, 3, 1]], [0.0, 1.0, 2.0, 3.0]])
    assert values[order].tolist() == [0.0, 1.0, 2.0, 3.0, 50.0, 51.0, 52.0, 53.0]


@pytest.mark.parametrize(
    "other",
    [
        shape(Surface("CORTEX_LEFT", 5), NUCLEUS),
        shape(LEFT),
        shape(Surface("CORTEX_RIGHT", 4), NUCLEUS),
        shape(LEFT, Voxels("THALAMUS_LEFT", NUCLEUS.indices, np.eye(4), NUCLEUS.box)),
        shape(LEFT, Voxels("THALAMUS_LEFT", NUCLEUS.indices[:3], NUCLEUS.affine, NUCLEUS.box)),
        Grid.whole(np.eye(4), (2, 2, 2)),
    ],
)
def test_other_elements_are_no_order_of_ours(other):
    ours = shape(LEFT, NUCLEUS)
    assert ours.order_in(other) is None
    assert not other.matches(ours)


def test_vectors_and_wholes():
    masked = shape(TABLE, LEFT).with_mask(np.array([True, False, True, False, False, True]))
    whole = masked.to_volume([1.0, 2.0, 3.0], fill=9.0)
    assert whole.tolist() == [1.0, 9.0, 2.0, 9.0, 9.0, 3.0]
    assert masked.to_vector(whole).tolist() == [1.0, 2.0, 3.0]


def test_a_grid_answers_to_the_same_words():
    mask = np.zeros((3, 4, 5), dtype=bool)
    mask[1, 2, 3] = mask[2, 0, 0] = True
    grid = Grid(np.diag([2.0, 2.0, 3.0, 1.0]), mask)
    np.testing.assert_allclose(grid.places_at(np.array([1, 0])), [[4, 0, 0], [2, 4, 9]])
    np.testing.assert_allclose(grid.sizes_at(np.array([0, 1])), 12.0)
    assert [grid.index_at(place) for place in ([2.1, 4, 9], [4, 0.2, 0])] == [0, 1]
