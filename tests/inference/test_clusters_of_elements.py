"""The clusters table where the elements of structures are listed: vertices, voxels, regions."""

import numpy as np
import pytest
from scipy.stats import norm

from ibma_app.core.anatomy.atlas import Atlas
from ibma_app.core.anatomy.elements import Elements
from ibma_app.core.anatomy.structures import Mesh, Parcels, Surface, Voxels
from ibma_app.core.errors import UsageError
from ibma_app.core.estimate import Field, Significance
from ibma_app.core.methods import InferenceSettings
from ibma_app.inference import INFERENCES, find_inference, inferences_that
from ibma_app.inference.cluster_table import table_columns, tabulate_clusters
from ibma_app.inference.clusters import apply_min_extent
from ibma_app.inference.neighbourhood import why_unknown
from ibma_app.inference.random_fields import prepare_search

# a strip of two rows of vertices, 10 mm apart; and three voxels in a row, the last apart
STRIP = Mesh(
    np.array([[10.0 * x, 10.0 * y, 0.0] for x in range(6) for y in range(2)]),
    np.array([[k, k + 1, k + 2] for k in range(10)], dtype=np.int32),
    "strip",
)
LEFT, RIGHT = (Surface(name, 12, mesh=STRIP) for name in ("CORTEX_LEFT", "CORTEX_RIGHT"))
NUCLEUS = Voxels("THALAMUS_LEFT", np.array([[0, 0, 0], [0, 0, 1], [0, 0, 4]], dtype=np.int32), 2 * np.eye(4), (1, 1, 5))
BOTH = Elements.whole((LEFT, RIGHT, NUCLEUS), ".dscalar.nii")


def field_of(z, shape):
    z = np.asarray(z, dtype=float)
    log_p = -(norm.logsf(np.abs(z)) + np.log(2)) / np.log(10)
    return Field(z, "two-sided", np.ones(z.size, dtype=bool), shape, log_p)


def above(field, height=3.0):
    return Significance(field.log10_p, np.abs(field.z) > height, height)


@pytest.fixture
def field():
    z = np.zeros(27)
    z[[10, 11]] = 4.0, 5.0  # the end of the left strip
    z[[12, 13]] = 6.0, 5.5  # the begin of the right one, which follows it
    z[[24, 25, 26]] = -4.5, -4.0, -7.0
    return field_of(z, BOTH)


def test_clusters_end_with_their_structure(field):
    rows = tabulate_clusters(field, above(field), field.z * 10)
    described = [(row.structure, row.vertex, row.peak_z, row.n_voxels) for row in rows]
    assert described == [
        ("THALAMUS_LEFT", None, -7.0, 1),
        ("CORTEX_RIGHT", 0, 6.0, 2),
        ("CORTEX_LEFT", 11, 5.0, 2),
        ("THALAMUS_LEFT", None, -4.5, 2),
    ]
    assert [row.peak for row in rows] == [26, 12, 11, 24]
    # vertices at the ends of the strip have one triangle and two; each has 50 mm²
    areas = [row.area_mm2 for row in rows]
    assert areas == [None, pytest.approx(50.0), pytest.approx(50.0), None]
    assert [row.volume_mm3 for row in rows] == [pytest.approx(8.0), None, None, pytest.approx(16.0)]
    assert (rows[2].x, rows[2].y, rows[2].z) == (50.0, 10.0, 0.0)
    assert (rows[0].x, rows[0].y, rows[0].z) == (0.0, 0.0, 8.0)


def test_columns_tell_structure_vertex_and_area(field):
    rows = tabulate_clusters(field, above(field))
    names = "cluster_id structure vertex x y z peak_z mean_z peak_effect log10p area_mm2 volume_mm3 n_voxels"
    assert list(rows[0].cells()) == [*names.split(), "region", "composition"]
    assert table_columns(structures=True) == tuple(rows[0].cells())


def test_sub_peaks_are_as_far_apart_as_in_volumes():
    z = np.zeros(12)
    z[[0, 2, 4, 6]] = 7.0, 3.5, 3.2, 6.0
    field = field_of(z, Elements.whole((LEFT,), ".func.gii"))
    rows = tabulate_clusters(field, above(field))
    assert [(row.cluster_id, row.vertex) for row in rows] == [("1", 0), ("1a", 6)]
    assert rows[1].area_mm2 is None
    assert rows[0].n_voxels == 4


def test_masked_vertices_separate_clusters(field):
    mask = np.ones(27, dtype=bool)
    mask[[4, 5]] = False
    z = np.where(np.arange(27) < 12, 4.0, 0.0)[mask]
    parted = field_of(z, BOTH.with_mask(mask))
    rows = tabulate_clusters(parted, above(parted))
    assert sorted(row.n_voxels for row in rows) == [4, 6]
    assert {row.vertex for row in rows} == {0, 6}


def test_each_region_of_a_table_is_a_row_with_its_name():
    shape = Elements.whole((Parcels("Toy", ("one", "two", "three"), np.array([1, 2, 3])),), ".tsv")
    field = field_of([4.0, 5.0, -1.0], shape)
    atlas = Atlas("other", np.ones((2, 2, 2), dtype=np.int32), np.eye(4), {1: "everything"})
    for atlases in ((), (atlas,)):
        rows = tabulate_clusters(field, above(field), atlases=atlases)
        assert [(row.structure, row.region, row.n_voxels) for row in rows] == [("Toy", "two", 1), ("Toy", "one", 1)]
        assert rows[0].cells()["x"] is None
        assert rows[0].cells()["area_mm2"] is rows[0].cells()["volume_mm3"] is rows[0].cells()["vertex"] is None


def test_small_clusters_are_left_out(field):
    kept = apply_min_extent(field, above(field), 2)
    assert np.flatnonzero(kept.significant).tolist() == [10, 11, 12, 13, 24, 25]


def test_random_fields_are_refused(field):
    with pytest.raises(UsageError, match=r"--inference rft-voxel is for volumes.*CORTEX_LEFT \(12 vertices\)"):
        prepare_search(field, "rft-voxel")


def test_without_a_mesh_nothing_is_a_cluster():
    field = field_of([4.0, 4.0, 0.0], Elements.whole((Surface("CORTEX_LEFT", 3),), ".func.gii"))
    assert tabulate_clusters(field, above(field)) == ()
    with pytest.raises(UsageError, match="--surface L=FILE"):
        apply_min_extent(field, above(field), 2)


def test_records_that_need_neighbours_ask_for_them():
    shape = Elements.whole((Surface("CORTEX_LEFT", 3),), ".func.gii")
    assert "--surface L=FILE" in why_unknown(shape)
    assert why_unknown(BOTH) == ""
    needed = inferences_that(lambda record: record.needs_neighbours)
    assert needed == tuple(name for name in INFERENCES if "connectivity" in find_inference(name).settings)
    for name in needed:
        if (score := find_inference(name).score) is not None:
            with pytest.raises(UsageError, match="--surface L=FILE"):
                score(shape, "two-sided", InferenceSettings())
