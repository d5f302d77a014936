"""Grids: how far apart, and whether their voxels are the same."""

import math

import numpy as np
import pytest

from ibma_app.core.grid import Grid

AFFINE = np.array([[-2.0, 0, 0.1, 90], [0, 2.5, 0, -126], [0.2, 0, 3, -72], [0, 0, 0, 1]])
SHAPE = (9, 10, 11)


def test_a_whole_grid_has_every_voxel_and_takes_no_memory():
    grid = Grid.whole(AFFINE, SHAPE, sform_code=4)
    assert grid.shape == SHAPE
    assert grid.n_voxels == 990
    assert grid.mask.strides == (0, 0, 0)
    np.testing.assert_array_equal(grid.to_volume(np.arange(990)), np.arange(990).reshape(SHAPE))
    np.testing.assert_allclose(grid.voxel_sizes, [np.sqrt(4.04), 2.5, np.sqrt(9.01)])


@pytest.mark.parametrize(
    ("move", "apart"),
    [
        (lambda affine: affine[0].__setitem__(3, 90.02), 0.02),
        (lambda affine: affine[:3, 3].__iadd__([0.3, 0.4, 0]), 0.5),
        (lambda affine: affine[1].__setitem__(1, 2.51), 0.09),  # 0.01 mm a voxel, nine voxels away
        (lambda affine: affine[2].__setitem__(0, 0.19), 0.08),
    ],
)
def test_how_far_apart_grids_are(move, apart):
    other = AFFINE.copy()
    move(other)
    one, two = Grid.whole(AFFINE, SHAPE), Grid.whole(other, SHAPE)
    corners = np.array(list(np.ndindex(*SHAPE)))
    distances = np.linalg.norm(corners @ (other - AFFINE)[:3, :3].T + (other - AFFINE)[:3, 3], axis=1)
    assert one.apart(two) == pytest.approx(distances.max())
    assert one.apart(two) == pytest.approx(apart)
    assert one.matches(two) is (apart <= 0.05 * 2.0099)
    assert one.apart(Grid.whole(AFFINE, (9, 10, 12))) == math.inf


def test_a_place_is_stated_by_either_code():
    assert Grid.whole(AFFINE, SHAPE).placed
    assert Grid.whole(AFFINE, SHAPE, sform_code=0, qform_code=1).placed
    assert not Grid.whole(AFFINE, SHAPE, sform_code=0, qform_code=0).placed
