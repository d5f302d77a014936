"""Clusters and TFCE against scipy's labels and the integral itself."""

import numpy as np
import pytest
from scipy import ndimage

from ibma_app.stats import components, tfce
from ibma_app.stats.components import ClusterWorkspace
from ibma_app.stats.neighbours import in_box, listed
from ibma_app.stats.tfce import TfceWorkspace

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
    workspace = TfceWorkspace(in_box(mask, neighbours), e, h)
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
    found = TfceWorkspace(in_box(mask, 6)).each(voxels, values[voxels])
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
    workspace = TfceWorkspace(in_box(mask, 6))
    every = np.arange(27)
    np.testing.assert_allclose(workspace.each(every, np.full(27, 2.0)), np.sqrt(27) * 8 / 3, rtol=1e-12)
    assert workspace.largest(every[:0], np.empty(0)) == 0.0
    np.testing.assert_allclose(workspace.largest(np.array([13]), np.array([3.0])), 9.0)
    empty = TfceWorkspace(in_box(np.zeros((3, 3, 3), dtype=bool), 6))
    assert empty.largest(np.empty(0, dtype=np.int64), np.empty(0)) == 0.0


@pytest.mark.parametrize(("neighbours", "axes"), CONNECTIVITIES)
@pytest.mark.parametrize("threshold", [-0.5, 0.7, 2.0])
def test_clusters_equal_scipys(volume, neighbours, axes, threshold):
    mask, z = volume
    workspace = ClusterWorkspace(in_box(mask, neighbours))
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
    workspace = ClusterWorkspace(in_box(mask, 26))
    sizes, _ = workspace.sums(np.array([2, 6]), np.ones(2))
    np.testing.assert_array_equal(sizes, [1, 1])


def test_other_connectivities_are_refused():
    with pytest.raises(ValueError, match="6, 18 and 26"):
        in_box(np.ones((2, 2, 2), dtype=bool), 8)


@pytest.mark.parametrize(("neighbours", "axes"), CONNECTIVITIES)
def test_lists_give_what_a_box_gives_times_sizes(volume, neighbours, axes):
    mask, z = volume
    at, values = np.argwhere(mask), z[mask]
    apart = np.abs(at[:, None] - at)
    touches = (apart.max(axis=2) == 1) & (apart.sum(axis=2) <= axes)
    pairs = np.argwhere(np.triu(touches))
    voxels = np.flatnonzero(values > 0.7)
    heights = values[voxels]
    box, lists = in_box(mask, neighbours), listed(pairs, np.full(len(at), 8.0))
    for e, h in [(0.5, 2.0), (1.0, 2.0)]:
        expected = TfceWorkspace(box, e, h).each(voxels, heights)
        np.testing.assert_allclose(TfceWorkspace(lists, e, h).each(voxels, heights), 8**e * expected, rtol=1e-12)
    expected, largest = ClusterWorkspace(box).sums(voxels, heights)
    found, most = ClusterWorkspace(lists).sums(voxels, heights)
    np.testing.assert_allclose(found, 8 * expected, rtol=1e-12)
    assert most == pytest.approx(8 * largest, rel=1e-12)
    labels, n = ndimage.label((z > 0.7) & mask, ndimage.generate_binary_structure(3, axes))
    np.testing.assert_array_equal(ClusterWorkspace(lists).labels(voxels), labels[mask][voxels])
    assert n > 1


def test_one_kernel_serves_boxes_and_lists():
    # what an image compiles ahead on volumes does for surfaces
    voxels, heights, compiled = np.arange(5), np.ones(5), []
    for neighbours in (in_box(np.ones((5, 1, 1), dtype=bool), 6), listed(np.array([[0, 1], [1, 2]]), np.ones(5))):
        workspace = TfceWorkspace(neighbours)
        workspace.largest(voxels, heights), workspace.each(voxels, heights)
        ClusterWorkspace(neighbours).sums(voxels, heights)
        kernels = [*vars(tfce).values(), *vars(components).values()]
        compiled.append([len(one.signatures) for one in kernels if hasattr(one, "signatures") and one.signatures])
    assert len(compiled[0]) >= 6
    assert compiled[0] == compiled[1]  # other tests of this process may have compiled more
