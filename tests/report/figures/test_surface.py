"""The cortex: values are those of the voxels there; nothing is fetched."""

import numpy as np
import pytest

from ibma_app.core.grid import Grid
from ibma_app.report.figures.brains.cortex import draw_cortex, sample_surface
from ibma_app.report.figures.picture import signed_scale


@pytest.fixture(scope="module")
def brain() -> Grid:
    """The whole head of MNI space at 5 mm."""
    affine = np.diag([5.0, 5.0, 5.0, 1.0])
    affine[:3, 3] = (-80.0, -115.0, -75.0)
    return Grid(affine, np.ones((33, 40, 33), dtype=bool))


def world(grid: Grid, axis: int) -> np.ndarray:
    """A map whose value is a coordinate in mm."""
    index = np.indices(grid.shape)[axis]
    return index * grid.affine[axis, axis] + grid.affine[axis, 3]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_vertices_get_the_value_of_their_place(brain, axis):
    from nilearn.datasets import load_fsaverage

    found = sample_surface(brain, world(brain, axis))
    meshes = load_fsaverage("fsaverage5")
    for side in ("left", "right"):
        ends = [meshes[kind].parts[side].coordinates[:, axis] for kind in ("pial", "white_matter")]
        # linear interpolation of a linear map is exact; the mean of the way is its middle
        np.testing.assert_allclose(found[side], np.mean(ends, axis=0), atol=1e-3)


def test_voxels_outside_of_the_mask_take_no_part(brain):
    half = Grid(brain.affine, world(brain, 0) > 0)
    found = sample_surface(half, np.where(half.mask, 7.0, 1000.0))
    assert np.isnan(found["left"]).mean() > 0.8
    assert np.nanmax(found["right"]) == pytest.approx(7.0)


def test_picture_is_drawn_where_there_is_cortex(brain):
    z = world(brain, 2) / 10
    scale = signed_scale(z, "z")
    picture = draw_cortex(brain, z, scale, "words", z > 4)
    assert picture.panels[0].uri.startswith("data:image/png;base64,")
    assert picture.labels[0][2] == "left hemisphere, lateral"
    again = draw_cortex(brain, z, scale, "words", z > 4)
    assert again.panels[0].uri == picture.panels[0].uri, "the same bytes"
    assert draw_cortex(brain, z, scale, "words").panels[0].uri != picture.panels[0].uri


def test_no_picture_of_what_is_elsewhere(brain):
    far = Grid(brain.affine + np.array([[0, 0, 0, 900.0]] + [[0] * 4] * 3), brain.mask)
    assert draw_cortex(far, world(brain, 0), signed_scale(np.ones(3), "z"), "") is None
