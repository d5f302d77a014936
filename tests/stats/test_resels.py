"""Smoothness and resels against SPM's functions (pinned), a plain loop, and noise of known width."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from ibma_app.stats.resels import count_resels, extended_axes, fwhm_of, sum_roughness

PINNED = json.loads((Path(__file__).parents[1] / "reference" / "rft_spm.json").read_text(encoding="utf-8"))
SMOOTHNESS = {row["mask"]: row for row in PINNED["smoothness"]}


def make_mask(name):
    """The masks of tests/reference/rft_spm.m."""
    if name == "ball":
        x, y, z = np.indices((10, 9, 8))
        mask = ((x - 4.4) / 4.1) ** 2 + ((y - 4.0) / 3.6) ** 2 + ((z - 3.4) / 3.1) ** 2 < 1
        mask[4, 4, 3] = False
        return mask
    if name == "box":
        return np.ones((6, 5, 4), dtype=bool)
    if name == "slice":
        mask = np.ones((9, 7, 1), dtype=bool)
        mask[:3, :2] = False
        return mask
    return np.ones((12, 1, 1), dtype=bool)


def make_residuals(mask, n):
    """The residuals of tests/reference/rft_spm.m, over the root of their sum of squares."""
    x, y, z = np.indices(mask.shape)
    maps = np.zeros((n, *mask.shape))
    for k in range(1, n + 1):
        for m in range(1, 6):
            maps[k - 1] += np.sin(0.37 * m * x + 0.29 * m**2 * y + 0.23 * (m + 1) * z + 1.7 * m * k**2)
    maps -= maps.mean(axis=0)
    return (maps / np.sqrt((maps**2).sum(axis=0)))[:, mask]


@pytest.mark.parametrize("name", SMOOTHNESS)
def test_resels_equal_spm(name):
    mask, row = make_mask(name), SMOOTHNESS[name]
    np.testing.assert_allclose(count_resels(mask, row["FWHM"]), row["resels"], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(count_resels(mask, [1.7, 2.9, 3.3]), row["other"], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", SMOOTHNESS)
def test_smoothness_equals_spm(name, smoothness_of):
    mask, row = make_mask(name), SMOOTHNESS[name]
    found = smoothness_of(make_residuals(mask, row["n"]), mask)
    # the same arithmetic but for the order of sums
    np.testing.assert_allclose(found.fwhm, row["FWHM"], rtol=1e-9)


def test_a_slice_lies_in_any_plane(smoothness_of):
    mask = make_mask("slice")
    residuals = make_residuals(mask, 8)
    flat = smoothness_of(residuals, mask).fwhm
    for axis in range(3):
        volume = np.zeros((8, *mask.shape))
        volume[:, mask] = residuals
        turned = np.moveaxis(volume, 3, axis + 1)
        there = np.moveaxis(mask, 2, axis)
        found = smoothness_of(turned[:, there], there)
        np.testing.assert_allclose(np.delete(found.fwhm, axis), flat[:2], rtol=1e-12)
        assert found.fwhm[axis] == 1.0


def brute_force(u, covered, mask):
    """The same by loops over voxels; partial coverage: cubes of one pattern."""
    volume, there = np.zeros((len(u), *mask.shape)), np.zeros((len(u), *mask.shape), dtype=bool)
    volume[:, mask], there[:, mask] = u, covered
    shape = mask.shape
    images, axes = [], []
    for i, j, k in np.argwhere(mask):
        cube = [
            (min(i + a, shape[0] - 1), min(j + b, shape[1] - 1), min(k + c, shape[2] - 1))
            for a in (0, 1) for b in (0, 1) for c in (0, 1)
        ]  # fmt: skip
        whole = all(mask[v] and (there[(slice(None), *v)] == there[:, i, j, k]).all() for v in cube)
        if not whole:
            continue
        here = volume[:, i, j, k]
        d = np.array([volume[(slice(None), *cube[n])] - here for n in (4, 2, 1)])
        rough = d @ d.T
        images.append(np.sqrt(max(np.linalg.det(rough), 0) / (4 * np.log(2)) ** 3))
        axes.append(np.sqrt(np.diag(rough) / (4 * np.log(2))))
    resels, along = np.mean(images), np.mean(axes, axis=0)
    return np.prod(along) ** (1 / 3) / (resels ** (1 / 3) * along), len(images)


def test_partial_coverage_equals_a_loop_over_voxels():
    rng = np.random.default_rng(4)
    mask = ndimage.binary_erosion(np.ones((11, 10, 9), dtype=bool))
    covered = np.ones((6, mask.sum()), dtype=bool)
    covered[1, :200] = covered[2, 150:260] = False
    u = rng.standard_normal(covered.shape) * covered
    u /= np.sqrt((u**2).sum(axis=0))
    places = np.full(mask.shape, -1)
    places[mask] = np.arange(mask.sum())
    axes = extended_axes(mask)
    sums = sum_roughness(u.T, covered.T, np.ones(mask.sum(), dtype=bool), places, axes, mask.shape[0])
    found = fwhm_of(sums, axes)
    expected, n_voxels = brute_force(u, covered, mask)
    assert found.n_voxels == n_voxels < mask.sum() / 1.5
    np.testing.assert_allclose(found.fwhm, expected, rtol=1e-9)


def test_known_width_is_found(smoothness_of):
    # 12 independent maps smoothed with FWHM 6, 5 and 4 voxels; differences over a whole voxel see
    # the field as a little smoother than its derivatives do (2 to 5 % here), the rest is sampling error
    rng = np.random.default_rng(1)
    fwhm = np.array([6.0, 5.0, 4.0])
    maps = rng.standard_normal((12, 44, 42, 40))
    maps = np.array([ndimage.gaussian_filter(m, fwhm / np.sqrt(8 * np.log(2)), mode="wrap") for m in maps])
    maps -= maps.mean(axis=0)
    maps /= np.sqrt((maps**2).sum(axis=0))
    found = smoothness_of(maps.reshape(12, -1), np.ones(maps.shape[1:], dtype=bool)[:, :, :])
    inner = np.zeros(maps.shape[1:], dtype=bool)
    inner[1:-1, 1:-1, 1:-1] = True
    inside = smoothness_of(maps[:, inner], inner)
    np.testing.assert_allclose(inside.fwhm, fwhm, rtol=0.1)
    # beyond the last plane SPM takes no difference: a mask that ends there looks smoother
    assert (np.array(found.fwhm) > np.array(inside.fwhm)).all()


def test_one_voxel_and_no_neighbours(smoothness_of):
    mask = np.zeros((3, 3, 3), dtype=bool)
    mask[1, 1, 1] = True
    assert smoothness_of(np.ones((4, 1)) / 2, mask) == ((1.0, 1.0, 1.0), 0)
    np.testing.assert_array_equal(count_resels(mask, (1.0, 1.0, 1.0)), [1, 0, 0, 0])
    mask[0, 0, 0] = True
    with pytest.raises(ValueError, match="neighbours"):
        smoothness_of(np.ones((4, 2)) / 2, mask)
    with pytest.raises(ValueError, match="do not vary"):
        smoothness_of(np.ones((4, 27)) / 2, np.ones((3, 3, 3), dtype=bool))
