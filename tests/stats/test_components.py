"""Clusters and TFCE against scipy's labels and the integral itself."""

import numpy as np
import pytest
from scipy import ndimage

from ibma_app.stats.components import ClusterWorkspace, make_lattice
from ibma_app.stats.tfce import TfceWorkspace, surround

CONNECTIVITIES = [(6, 1), (18, 2), (26, 3)]


@pytest.fixture
def volume():
    """A ragged mask and smooth noise in it."""
    rng = np.random.default_rng(4)
    mask = ndimage.gaussian_filter(rng.normal(size=(14, 13, 12)), 1) > -0.1
    return mask, ndimage.gaussian_filter(rng.normal(size=mask.shape), 1) * 8


def integral(z, mask, e, h, structure):
    """TFCE as the limit of small steps: clusters change at the voxels' heights only."""
    enhanced, below = np.zeros(z.shape), 0.0
    for height in np.unique(z[mask & (z > 0)]):
        labels, _ = ndimage.label((z >= height) & mask, structure)
        sizes = np.bincount(labels.ravel()).astype(float)
        sizes[0] = 0
        enhanced += sizes[labels] ** e * (height ** (h + 1) - below ** (h + 1)) / (h + 1)
        below = height
    return enhanced[mask]


@pytest.mark.parametrize(("neighbours", "axes"), CONNECTIVITIES)
@pytest.mark.parametrize(("e", "h"), [(0.5, 2.0), (1.0, 1.0), (0.6, 1.5)])
def test_tfce_is_the_integral(volume, neighbours, axes, e, h):
    mask, z = volume
    workspace = TfceWorkspace(surround(mask, neighbours), e, h)
    values = z[mask]
    voxels = np.flatnonzero(values > 0)
    expected = integral(z, mask, e, h, ndimage.generate_binary_structure(3, axes))[voxels]
    for _ in range(2):  # work space is used again
        np.testing.assert_allclose(workspace.each(voxels, values[voxels]), expected, rtol=1e-6)
        np.testing.assert_allclose(workspace.largest(voxels, values[voxels]), expected.max(), rtol=1e-6)


def test_small_steps_come_near_the_integral(volume):
    mask, z = volume
    values = z[mask]
    voxels = np.flatnonzero(values > 0)
    found = TfceWorkspace(surround(mask, 6)).each(voxels, values[voxels])
    dh, stepped = 0.002, np.zeros(z.shape)
    for height in np.arange(dh / 2, values.max(), dh):
        labels, _ = ndimage.label((z >= height) & mask)
        sizes = np.bincount(labels.ravel()).astype(float)
        sizes[0] = 0
        stepped += np.sqrt(sizes[labels]) * height**2 * dh
    large = found > 0.01 * found.max()
    np.testing.assert_allclose(found[large], stepped[mask][voxels][large], rtol=0.02)


def test_tfce_of_ties_one_voxel_and_nothing():
    mask = np.ones((3, 3, 3), dtype=bool)
    workspace = TfceWorkspace(surround(mask, 6))
    every = np.arange(27)
    np.testing.assert_allclose(workspace.each(every, np.full(27, 2.0)), np.sqrt(27) * 8 / 3, rtol=1e-12)
    assert workspace.largest(every[:0], np.empty(0)) == 0.0
    np.testing.assert_allclose(workspace.largest(np.array([13]), np.array([3.0])), 9.0)
    empty = TfceWorkspace(surround(np.zeros((3, 3, 3), dtype=bool), 6))
    assert empty.largest(np.empty(0, dtype=np.int64), np.empty(0)) == 0.0


@pytest.mark.parametrize(("neighbours", "axes"), CONNECTIVITIES)
@pytest.mark.parametrize("threshold", [-0.5, 0.7, 2.0])
def test_clusters_equal_scipys(volume, neighbours, axes, threshold):
    mask, z = volume
    workspace = ClusterWorkspace(make_lattice(mask, neighbours))
    values = z[mask]
    voxels = np.flatnonzero(values > threshold)
    labels, n = ndimage.label((z > threshold) & mask, ndimage.generate_binary_structure(3, axes))
    assert n > 0
    at = labels[mask][voxels]
    for _ in range(2):
        sizes, largest = workspace.sums(voxels, np.ones(voxels.size))
        np.testing.assert_array_equal(sizes, np.bincount(labels.ravel())[at])
        assert largest == np.bincount(labels.ravel())[1:].max()
        masses, heaviest = workspace.sums(voxels, values[voxels] - threshold)
        expected = ndimage.sum(z - threshold, labels, np.arange(n + 1))
        np.testing.assert_allclose(masses, expected[at], rtol=1e-12)
        np.testing.assert_allclose(heaviest, expected[1:].max(), rtol=1e-12)


def test_masks_that_touch_the_edge():
    # a border keeps the end of one row from being the neighbour of the next row's begin
    mask = np.ones((2, 2, 3), dtype=bool)
    workspace = ClusterWorkspace(make_lattice(mask, 26))
    sizes, _ = workspace.sums(np.array([2, 6]), np.ones(2))
    np.testing.assert_array_equal(sizes, [1, 1])


@pytest.mark.parametrize("make", [make_lattice, surround])
def test_other_connectivities_are_refused(make):
    with pytest.raises(ValueError, match="6, 18 and 26"):
        make(np.ones((2, 2, 2), dtype=bool), 8)
